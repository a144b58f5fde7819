//! What can go wrong between a front-end and the daemon.

use std::{fmt, io};

use keywright_proto::bus;
use zbus::{DBusError, fdo};

use crate::words::words;

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

/// An error by its name in the contract, with the daemon's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DaemonError {
    /// Which.
    pub name: ErrorName,
    /// What happened, to what, and what to do next; English.
    pub text: String,
}

words! {
    /// The last part of `org.keywright1.Error.*`.
    ErrorName {
        /// The caller may not do this.
        NotAuthorized = "NotAuthorized",
        /// An argument is out of its range.
        InvalidArgument = "InvalidArgument",
        /// The call does not fit the step.
        InvalidStep = "InvalidStep",
        /// What was reviewed is not what would be saved.
        StaleRevision = "StaleRevision",
        /// No such Key, Lock or family.
        NotFound = "NotFound",
        /// Another front-end drives this serialization.
        NotOwner = "NotOwner",
        /// Another program holds the token, or another job.
        KeyBusy = "KeyBusy",
        /// The Key is not plugged in.
        KeyAbsent = "KeyAbsent",
        /// Another Key is plugged in than the one meant.
        WrongKey = "WrongKey",
        /// The Key cannot make Keys.
        NotAnIssuer = "NotAnIssuer",
        /// The issuer has no Lock yet.
        NoLock = "NoLock",
        /// More than one Key could be the issuer.
        AmbiguousIssuer = "AmbiguousIssuer",
        /// The token is in use for something else.
        ForeignCredentials = "ForeignCredentials",
        /// The Key was revoked.
        Revoked = "Revoked",
        /// The Key's family is not pinned here yet.
        Unverified = "Unverified",
        /// The token or this daemon cannot do that.
        Unsupported = "Unsupported",
        /// A PIN is needed first.
        PinRequired = "PinRequired",
        /// The token refused the PIN.
        PinInvalid = "PinInvalid",
        /// The token takes no PIN any more.
        PinBlocked = "PinBlocked",
        /// The job was cut off.
        Interrupted = "Interrupted",
        /// The registry could not be written.
        StoreFailed = "StoreFailed",
        /// The token failed.
        TokenFailed = "TokenFailed",
        /// Too many of something.
        LimitExceeded = "LimitExceeded",
        /// Somebody cancelled.
        Cancelled = "Cancelled",
    }
}

impl ErrorName {
    /// The whole D-Bus error name.
    pub fn full_name(&self) -> String {
        format!("{}{self}", bus::ERROR_PREFIX)
    }

    /// From a whole D-Bus error name, if it is one of Keywright's.
    pub fn from_full_name(name: &str) -> Option<Self> {
        name.strip_prefix(bus::ERROR_PREFIX).map(Self::from)
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
            Self::Daemon(error) => Some(error.name.full_name()),
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
            zbus::Error::MethodError(name, text, _) => match ErrorName::from_full_name(&name) {
                Some(name) => DaemonError { name, text: text.unwrap_or_default() }.into(),
                None => Self::bus(Some(name.to_string()), text.unwrap_or_else(|| name.to_string())),
            },
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
    fn every_name_of_the_contract_is_known() {
        let all = "NotAuthorized InvalidArgument InvalidStep StaleRevision NotFound NotOwner \
            KeyBusy KeyAbsent WrongKey NotAnIssuer NoLock AmbiguousIssuer ForeignCredentials \
            Revoked Unverified Unsupported PinRequired PinInvalid PinBlocked Interrupted \
            StoreFailed TokenFailed LimitExceeded Cancelled";
        let known: Vec<String> = ErrorName::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(known, all.split_whitespace().collect::<Vec<_>>());
        for name in ErrorName::ALL {
            assert_eq!(ErrorName::from_full_name(&name.full_name()).as_ref(), Some(name));
        }
    }

    #[test]
    fn errors_of_the_bus_are_told_apart() {
        let gone = Error::from(fdo::Error::ServiceUnknown("nobody".into()));
        assert!(matches!(&gone, Error::NotRunning(_)), "{gone:?}");
        assert!(gone.to_string().contains("systemctl start"), "{gone}");
        let spawn = Error::from(fdo::Error::SpawnChildExited("status 2".into()));
        assert!(matches!(&spawn, Error::NotRunning(text) if text == "status 2"), "{spawn:?}");
        let denied = Error::from(fdo::Error::AccessDenied("no".into()));
        assert_eq!(denied.dbus_name().as_deref(), Some("org.freedesktop.DBus.Error.AccessDenied"));
    }
}
