//! Errors between a front-end and the daemon.

use std::{fmt, io};

use keywright_proto::{ErrorName, bus};
use zbus::{DBusError, fdo};

/// The result of this library's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The daemon refused the call.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The daemon is not on the bus, and the bus could not start it.
    #[error(
        "the Keywright daemon is not running and could not be started ({0}); \
         start it with: systemctl start keywrightd.service"
    )]
    NotRunning(String),
    /// The bus cannot be reached, or refused the call.
    #[error("{0}")]
    Bus(BusError),
    /// A property or reply does not have its documented type.
    #[error("the daemon sent an unexpected {what}; install the same version of daemon and client")]
    Malformed {
        /// Which property or reply.
        what: String,
    },
    /// A file descriptor for a secret could not be created or read.
    #[error("cannot pass a secret to or from the daemon: {0}; try once more")]
    Secret(String),
    /// The object was removed: finished, cancelled, or its Key was unplugged.
    #[error("{path} no longer exists; plug the Keys in again to start over")]
    Gone {
        /// The object's path.
        path: String,
    },
}

/// An error of the bus itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct BusError {
    /// The D-Bus error name, if there was one.
    pub name: Option<String>,
    /// What happened and what to do.
    pub text: String,
}

/// A refusal of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DaemonError {
    /// The error; None for a name that this version does not know.
    pub error: Option<ErrorName>,
    /// The full D-Bus error name.
    pub name: String,
    /// What happened, to what, and what to do next, in English.
    pub text: String,
}

impl DaemonError {
    /// Builds the error if the D-Bus error name is one of Keywright's.
    fn from_reply(name: &str, text: &str) -> Option<Self> {
        let ours = name.starts_with(bus::ERROR_PREFIX);
        ours.then(|| Self { error: name.parse().ok(), name: name.into(), text: text.into() })
    }
}

impl Error {
    /// The daemon's refusal, if this is one.
    pub fn daemon(&self) -> Option<&DaemonError> {
        match self {
            Self::Daemon(error) => Some(error),
            _ => None,
        }
    }

    /// The full D-Bus error name, if there was one.
    pub fn dbus_name(&self) -> Option<String> {
        match self {
            Self::Daemon(error) => Some(error.name.clone()),
            Self::NotRunning(_) => Some("org.freedesktop.DBus.Error.ServiceUnknown".into()),
            Self::Bus(error) => error.name.clone(),
            Self::Gone { .. } => Some("org.freedesktop.DBus.Error.UnknownObject".into()),
            Self::Malformed { .. } | Self::Secret(_) => None,
        }
    }

    pub(crate) fn malformed(what: impl fmt::Display) -> Self {
        Self::Malformed { what: what.to_string() }
    }

    pub(crate) fn secret(error: impl Into<io::Error>) -> Self {
        Self::Secret(error.into().to_string())
    }

    pub(crate) fn closed() -> Self {
        Self::bus(None, "the connection to the bus was closed; try again")
    }

    fn bus(name: Option<String>, text: impl Into<String>) -> Self {
        Self::Bus(BusError { name, text: text.into() })
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                let text = text.unwrap_or_else(|| name.to_string());
                match DaemonError::from_reply(&name, &text) {
                    Some(error) => error.into(),
                    None => Self::bus(Some(name.to_string()), text),
                }
            }
            zbus::Error::FDO(error) => (*error).into(),
            zbus::Error::Connection(error, address) => {
                Self::bus(None, format!("cannot reach the bus at {address}: {error}"))
            }
            zbus::Error::InputOutput(error) => {
                Self::bus(None, format!("the connection to the bus failed: {error}"))
            }
            zbus::Error::Address(text) => Self::bus(None, format!("invalid bus address: {text}")),
            zbus::Error::SignatureMismatch(..) | zbus::Error::IncorrectType => {
                Self::malformed("reply")
            }
            other => Self::bus(None, format!("D-Bus error: {other}")),
        }
    }
}

impl From<fdo::Error> for Error {
    fn from(error: fdo::Error) -> Self {
        use fdo::Error as Fdo;
        if let Fdo::ZBus(error) = error {
            return error.into();
        }
        let text = error.description().unwrap_or_default().to_owned();
        match error {
            Fdo::ServiceUnknown(_) | Fdo::NameHasNoOwner(_) => Self::NotRunning(text),
            _ if error.name().starts_with("org.freedesktop.DBus.Error.Spawn.") => {
                Self::NotRunning(text)
            }
            Fdo::AccessDenied(_) => Self::bus(
                Some(error.name().to_string()),
                format!("the D-Bus policy denied the call ({text}); run `keywrightctl doctor`"),
            ),
            _ => Self::bus(Some(error.name().to_string()), text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_errors_are_recognised_by_their_prefix() {
        let error = |name: &str| DaemonError::from_reply(name, "text");
        for known in ErrorName::ALL {
            assert_eq!(error(known.full()).unwrap().error, Some(*known));
        }
        let newer = error("org.keywright1.Error.TooWarm").unwrap();
        assert_eq!((newer.error, newer.name.as_str()), (None, "org.keywright1.Error.TooWarm"));
        // The last part alone is not a full name, and other services use the same last parts.
        assert_eq!(error("NotFound"), None);
        assert_eq!(error("org.freedesktop.DBus.Error.NotFound"), None);
    }

    #[test]
    fn bus_errors_map_to_their_variants() {
        let gone = Error::from(fdo::Error::ServiceUnknown("nobody".into()));
        assert!(matches!(&gone, Error::NotRunning(_)), "{gone:?}");
        assert!(gone.to_string().contains("systemctl start"), "{gone}");
        let spawn = Error::from(fdo::Error::SpawnChildExited("status 2".into()));
        assert!(matches!(&spawn, Error::NotRunning(text) if text == "status 2"), "{spawn:?}");
        let denied = Error::from(fdo::Error::AccessDenied("no".into()));
        assert_eq!(denied.dbus_name().as_deref(), Some("org.freedesktop.DBus.Error.AccessDenied"));
    }
}
