//! What can go wrong between a front-end and the daemon.

use std::{fmt, io};

use keywright_proto::{ErrorName, bus};
use zbus::{DBusError, fdo};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The daemon refused, and says why.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Nobody owns the name, and the bus could not start the daemon.
    #[error(
        "the Keywright daemon does not run and could not be started ({0}); \
         start it with: systemctl start keywrightd.service"
    )]
    NotRunning(String),
    /// The bus itself, or an answer of the bus.
    #[error("{0}")]
    Bus(BusError),
    /// The daemon's answer has another type than the contract gives it.
    #[error("the daemon's {what} is not what this client expects; install matching versions")]
    Malformed {
        /// The property or reply.
        what: String,
    },
    /// A file descriptor for a secret could not be made or read.
    #[error("cannot pass a secret to or from the daemon: {0}")]
    Secret(String),
    /// The object is gone: finished, cancelled, or its Key was unplugged.
    #[error("{path} no longer exists; plug the Keys in again to start anew")]
    Gone {
        /// The object's path.
        path: String,
    },
}

/// A refusal of the bus, or no bus.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct BusError {
    /// The D-Bus error's name, where there was one.
    pub name: Option<String>,
    /// What the bus said, and what to do.
    pub text: String,
}

/// A refusal by its name, with the daemon's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DaemonError {
    /// Which of the contract's; none for a name that only a newer daemon knows.
    pub error: Option<ErrorName>,
    /// The whole D-Bus error name.
    pub name: String,
    /// What happened, to what, and what to do next; English.
    pub text: String,
}

impl DaemonError {
    /// From a whole D-Bus error name, if it is one of Keywright's.
    fn from_reply(name: &str, text: &str) -> Option<Self> {
        let ours = name.starts_with(bus::ERROR_PREFIX);
        ours.then(|| Self { error: name.parse().ok(), name: name.into(), text: text.into() })
    }
}

impl Error {
    /// The daemon's error, where it was the daemon that refused.
    pub fn daemon(&self) -> Option<&DaemonError> {
        match self {
            Self::Daemon(error) => Some(error),
            _ => None,
        }
    }

    /// The D-Bus error's whole name, where there was one.
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
        Self::bus(None, "the connection to the bus ended; try again")
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
            zbus::Error::Address(text) => Self::bus(None, format!("not a bus address: {text}")),
            zbus::Error::SignatureMismatch(..) | zbus::Error::IncorrectType => {
                Self::malformed("reply")
            }
            other => Self::bus(None, format!("the bus: {other}")),
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
                format!("the bus policy forbids it ({text}); see `keywrightctl doctor`"),
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
        // The last part alone is nobody's name, and others have the same last parts.
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
