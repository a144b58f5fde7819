//! Checks what a configuration says about a broker: its address and the keep-alive time.

/// Splits `host:port`; an IPv6 address stands in brackets.
pub fn broker_address(broker: &str) -> Option<(String, u16)> {
    let (host, port) = broker.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

/// Checks a broker's settings; the error says in one line which one is wrong.
///
/// # Errors
/// The address is not `host:port`, or the seconds are not from 10 to 3600.
pub fn check_settings(broker: &str, keep_alive_seconds: u16) -> Result<(), String> {
    if broker_address(broker).is_none() {
        return Err(format!("broker is {broker:?}, not host:port"));
    }
    if !(10..=3_600).contains(&keep_alive_seconds) {
        return Err(format!("keep_alive_seconds is {keep_alive_seconds}, not from 10 to 3600"));
    }
    Ok(())
}
