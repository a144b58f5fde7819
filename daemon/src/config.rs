//! The configuration file, `/etc/keywright/keywrightd.toml`.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use keywright_base::toml_error_in_one_line;
use keywright_proto::trust::{MAX_REVOKE_DELAY_DAYS, REVOKE_DELAY_DAYS};
use keywright_token::Route;
use serde::Deserialize;

/// The longest validity of certificates and CRLs, in years.
const YEARS: RangeInclusive<u32> = 1..=100;

/// Default idle time before exit when a service manager can start the daemon again.
const IDLE_EXIT_SECONDS: u32 = 60;

/// The settings of an administrator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Requires a new PIN for a Key that still has its factory PIN.
    pub require_new_pin: bool,
    /// Validity of certificates, in years: from 1 to 100.
    pub certificate_years: u32,
    /// Validity of a CRL, in years: from 1 to 100.
    pub crl_years: u32,
    /// The link to the Locks. `None`: grants and confirmations are carried as files.
    pub link: Option<Link>,
    /// Idle time before exit, in seconds: no Key plugged in and no call. 0: never. Default: 60 on the system bus under
    /// a service manager, which starts the daemon again; otherwise never.
    pub idle_exit_seconds: Option<u32>,
    /// The route to USB tokens: `auto`, `direct`, `pcscd`.
    pub route: Route,
    /// The delay before the revocation of a Master, or of a Backup nearer to it, takes effect, in days: at most 365.
    /// Others can object meanwhile. Locks have a delay of their own.
    pub revoke_delay_days: u32,
}

/// The link to the Locks: an MQTT 5 broker, over TLS with certificates on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The broker's host and port: `broker.example:8883`.
    pub broker: String,
    /// PEM file with the CA certificates that may certify the broker.
    pub ca: PathBuf,
    /// PEM file with this station's client certificate.
    pub certificate: PathBuf,
    /// PEM file with the key of that certificate.
    pub key: PathBuf,
    /// Keep-alive interval, in seconds: from 10 to 3600.
    #[serde(default = "keep_alive")]
    pub keep_alive_seconds: u16,
}

const fn keep_alive() -> u16 {
    60
}

impl Link {
    /// The broker's host and port.
    pub fn address(&self) -> Option<(String, u16)> {
        keywright_link::broker_address(&self.broker)
    }

    fn check(&self) -> Result<(), String> {
        keywright_link::check_settings(&self.broker, self.keep_alive_seconds)
    }
}

/// Why a configuration file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; mend that and start again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is not TOML, has an unknown field, or has a value out of range.
    #[error("{} is no configuration: {what}; correct it and start again", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        what: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            require_new_pin: true,
            certificate_years: 20,
            crl_years: 20,
            link: None,
            idle_exit_seconds: None,
            route: Route::Auto,
            revoke_delay_days: REVOKE_DELAY_DAYS,
        }
    }
}

impl Config {
    /// Reads a file. Fields that are missing keep their defaults.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        let config = Self::parse(&text);
        config.map_err(|what| ConfigError::Invalid { path: path.into(), what })
    }

    /// The idle time before exit, or `None` to stay forever. `restarted`: a service manager can start the daemon again.
    pub fn idle_exit(&self, restarted: bool) -> Option<Duration> {
        let default = if restarted { IDLE_EXIT_SECONDS } else { 0 };
        let seconds = self.idle_exit_seconds.unwrap_or(default);
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The delay of revocations, in seconds.
    pub fn revoke_delay(&self) -> u64 {
        u64::from(self.revoke_delay_days) * 86_400
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self =
            toml::from_str(text).map_err(|error| toml_error_in_one_line(&error, text))?;
        for (field, years) in
            [("certificate_years", config.certificate_years), ("crl_years", config.crl_years)]
        {
            if !YEARS.contains(&years) {
                return Err(format!("{field} is {years}, not from 1 to 100"));
            }
        }
        if config.revoke_delay_days > MAX_REVOKE_DELAY_DAYS {
            let days = config.revoke_delay_days;
            return Err(format!(
                "revoke_delay_days is {days}, not from 0 to {MAX_REVOKE_DELAY_DAYS}"
            ));
        }
        config.link.as_ref().map_or(Ok(()), Link::check)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_defaults() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        assert_eq!(
            Config::parse(
                "require_new_pin = false\ncertificate_years = 1\ncrl_years = 100\nroute = 'direct'\n\
                 revoke_delay_days = 0"
            ),
            Ok(Config {
                require_new_pin: false,
                certificate_years: 1,
                crl_years: 100,
                route: Route::Direct,
                revoke_delay_days: 0,
                ..Config::default()
            })
        );
        let config = Config::parse("idle_exit_seconds = 5");
        assert_eq!(config.map(|config| config.idle_exit_seconds), Ok(Some(5)));
    }

    #[test]
    fn a_daemon_that_nothing_starts_again_stays() {
        for (seconds, restarted, expected) in [
            (None, true, Some(60)),
            (None, false, None),
            (Some(0), true, None),
            (Some(5), true, Some(5)),
            (Some(5), false, Some(5)),
        ] {
            let config = Config { idle_exit_seconds: seconds, ..Config::default() };
            assert_eq!(config.idle_exit(restarted), expected.map(Duration::from_secs));
        }
    }

    #[test]
    fn garbage_is_named_in_one_line() {
        for (text, part) in [
            ("crl_years = 20\nfoo = 1", "line 2: unknown field `foo`"),
            ("crl_years = 0", "crl_years is 0"),
            ("certificate_years = 101", "certificate_years is 101"),
            ("revoke_delay_days = 366", "revoke_delay_days is 366"),
            ("crl_years = -1", "line 1"),
            ("crl_years = \"20\"", "line 1"),
            ("route = 'usb'", "line 1"),
            ("\u{0}\u{1}garbage", "line 1"),
            ("require_new_pin", "line 1"),
        ] {
            let what = Config::parse(text).unwrap_err();
            assert!(what.contains(part) && !what.contains('\n'), "{what:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Path::new("/nowhere/keywrightd.toml")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/keywrightd.toml"));
    }
}
