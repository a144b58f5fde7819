//! Claims a Lock with a Master or Backup Key in its own USB port, which certifies the Lock there.

#[cfg(feature = "virtual-reader")]
use std::path::PathBuf;
use std::{
    any::Any,
    io::{self, IsTerminal, Read},
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
};

use keywright_base::clock;
use keywright_proto::{
    Certificate, Id, PublicKey, Role,
    pem::{self, Label},
};
use keywright_token::{
    CardSlot, Claims, Identity, LockRequest, Pin, Route, Session, Token, TokenError,
    TransportError, certify_lock, claims, clear_after_signing,
    hotplug::{Device, PlugEvent, Sink, StartError, UdevSource},
};
use zeroize::Zeroizing;

/// How many years a Lock's certificate is valid.
const YEARS: u32 = 20;

/// Where tokens are plugged in.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// For tests: a socket on which virtual cards connect, in place of USB.
    #[cfg(feature = "virtual-reader")]
    pub virtual_reader: Option<PathBuf>,
}

/// Why a Key did not certify this Lock.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Plugs cannot be watched.
    #[error(transparent)]
    Start(#[from] StartError),
    /// More than one token is plugged in.
    #[error(
        "{0} tokens are plugged in; leave only the Master or Backup Key plugged in and try again"
    )]
    Several(usize),
    /// The token failed.
    #[error("the token cannot be used: {0}; unplug it, plug it in again and try once more")]
    Token(#[from] TokenError),
    /// The Key is not a Master or Backup.
    #[error("this is not a Master or Backup Key; only those can give a Lock a family")]
    NotAnIssuer,
    /// The Lock belongs to another family already.
    #[error(
        "this Key is of another family than this Lock, which stays with its family; take a Key of that family"
    )]
    OtherFamily,
    /// A Backup carries no family card that leads from its certificate to the root.
    #[error(
        "this Backup Key does not carry the certificates up to its family's root ({0}); write the output of \
         `keywrightctl key certificate` to a file and name it with --chain"
    )]
    NoRoot(String),
    /// The file of `--chain` is another Key's.
    #[error(
        "the file of --chain is not the certificate chain of this Key; write it with `keywrightctl key certificate`"
    )]
    OtherChain,
    /// The PIN could not be read.
    #[error("cannot read the PIN: {0}; give it once more")]
    Pin(String),
    /// The Key did not sign.
    #[error(
        "the Key did not certify this Lock: {0}; unplug it, plug it in again and try once more"
    )]
    NotSigned(String),
}

/// Waits for a Master or Backup Key, lets it certify this Lock's key, and returns the chain as PEM. `pin` is called
/// once the Key is there; the PIN is presented for each of the two signatures. A Lock that has a `family` accepts no
/// other.
///
/// # Errors
/// See [`PortError`]. Nothing has changed then.
pub fn certify(
    port: &Port,
    identity: &PublicKey,
    family: Option<Id>,
    chain: Option<&str>,
    pin: impl FnOnce() -> Result<Pin, PortError>,
) -> Result<String, PortError> {
    let (device, _source) = wait_for_token(port)?;
    let session = Session::open(&device.connector, &format!("token-{}", device.port))?;
    let token_identity = session.run(Token::read_identity)?;
    let claims = claims(&token_identity);
    let role = claims.family.map(|(_, role)| role);
    let own = claims.issuing.filter(|_| role.is_some_and(Role::is_issuer));
    let own = own.ok_or(PortError::NotAnIssuer)?;
    if family.is_some_and(|family| family != own.family()) {
        return Err(PortError::OtherFamily);
    }
    let chain = match chain {
        // A Master's own certificate is the root.
        _ if own.family() == own.public_key().id() => vec![own],
        Some(given) => chain_from_file(&own, given)?,
        None => chain_from_card(&session, token_identity)?,
    };
    let made = clock::unix_seconds();
    let request = LockRequest {
        key: identity.clone(),
        chain: chain.clone(),
        prove: true,
        made,
        years: YEARS,
    };
    let pin = pin()?;
    let (cleared, signed) = session.run(move |token| {
        let signed = certify_lock(token, &pin, &request);
        clear_after_signing(token, signed, None)
    })?;
    if cleared.authorized {
        eprintln!("unplug this token now: it stays authorized until it is unplugged");
    }
    let (own, _) = signed.map_err(|failure| PortError::NotSigned(failure.to_string()))?;
    let ders = std::iter::once(own.as_slice()).chain(chain.iter().map(Certificate::der));
    pem::to_pem(Label::Certificate, ders).map_err(|error| PortError::NotSigned(error.to_string()))
}

/// The CA certificates from the Key's own to the root, read from its family card. The card's chain is verified; that
/// the Key holds the key of the first certificate is proven by its signature.
fn chain_from_card(
    session: &Session,
    mut token_identity: Identity,
) -> Result<Vec<Certificate>, PortError> {
    let none = |why: &dyn std::fmt::Display| PortError::NoRoot(why.to_string());
    match session.run(Token::read_card) {
        Ok(CardSlot::Card(card)) => token_identity.card = Some(card),
        Ok(CardSlot::Empty | CardSlot::Other) => return Err(none(&"it carries no family card")),
        Err(error @ TokenError::Transport(TransportError::Gone)) => return Err(error.into()),
        Err(error) => return Err(none(&format!("its family card cannot be read: {error}"))),
    }
    match claims(&token_identity) {
        Claims { card: Some(card), .. } => Ok(card.chain().to_vec()),
        Claims { card_refused: Some(why), .. } => Err(none(&why)),
        _ => Err(none(&"it carries no family card")),
    }
}

/// The same chain from a file. Whoever takes the whole chain verifies it: a root that did not certify this Key is
/// refused there.
fn chain_from_file(own: &Certificate, given: &str) -> Result<Vec<Certificate>, PortError> {
    let ders = pem::from_pem(Label::Certificate, given).map_err(|_| PortError::OtherChain)?;
    let given = ders.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
    let given = given.map_err(|_| PortError::OtherChain)?;
    let cas: Vec<_> = given.into_iter().filter(Certificate::is_ca).collect();
    if cas.first().is_some_and(|first| first == own) { Ok(cas) } else { Err(PortError::OtherChain) }
}

/// The source of plug events; a device may only be used as long as it lives.
type Source = Box<dyn Any>;

fn wait_for_token(port: &Port) -> Result<(Device, Source), PortError> {
    let (send, events) = mpsc::channel();
    let sink: Sink = Arc::new(move |event| drop(send.send(event)));
    #[cfg(feature = "virtual-reader")]
    if let Some(socket) = &port.virtual_reader {
        let source = keywright_token::hotplug::VirtualReader::start(socket, sink)?;
        return Ok((only_token(&events)?, Box::new(source)));
    }
    let Port { .. } = port;
    // When plug events end, the channel closes and waiting ends with an error.
    let on_end = |error| eprintln!("cannot watch for tokens any more: {error}");
    let source = UdevSource::start(sink, Route::Auto, on_end)?;
    Ok((only_token(&events)?, Box::new(source)))
}

/// Returns the one token that is plugged in, or waits for the first one.
fn only_token(events: &Receiver<PlugEvent>) -> Result<Device, PortError> {
    let mut there = Vec::new();
    let mut settled = false;
    loop {
        match events.recv() {
            Ok(PlugEvent::Plugged(device)) => there.push(device),
            Ok(PlugEvent::Unplugged(id)) => there.retain(|device| device.id != id),
            Ok(PlugEvent::Settled) => settled = true,
            Err(_) => return Err(TokenError::SessionEnded.into()),
        }
        match (settled, there.len()) {
            (true, 1) => return Ok(there.remove(0)),
            (true, 0) => eprintln!("plug in the Master Key, or a Backup Key"),
            (true, several) => return Err(PortError::Several(several)),
            (false, _) => {}
        }
    }
}

/// Reads a PIN from a file or descriptor, from the terminal without echo, or from standard input. One line feed at
/// the end is removed.
///
/// # Errors
/// The PIN cannot be read, or has a wrong length or characters.
pub fn read_pin(file: Option<&Path>) -> Result<Pin, PortError> {
    let wrong = |why: &dyn std::fmt::Display| PortError::Pin(why.to_string());
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    match file {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
            file.take(64).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
        }
        None if io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password("PIN: ").map_err(|error| wrong(&error))?;
            bytes.extend_from_slice(Zeroizing::new(typed).as_bytes());
        }
        None => {
            io::stdin().take(64).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
        }
    }
    let pin = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Pin::new(pin).map_err(|error| wrong(&error))
}
