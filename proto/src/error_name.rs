//! The names of the errors that the daemon answers: `org.keywright1.Error.*`.

use std::{fmt, str::FromStr};

use crate::{bus::ERROR_PREFIX, role::UnknownWord};

macro_rules! error_names {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The name of a D-Bus error. The text beside it says what happened and what to do next.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorName { $($(#[$doc])* $name,)* }

        impl ErrorName {
            /// Every name, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The last part of the D-Bus error name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The whole D-Bus error name.
            pub const fn full(self) -> &'static str {
                match self { $(Self::$name => concat!("org.keywright1.Error.", stringify!($name)),)* }
            }
        }
    };
}

error_names! {
    /// polkit, or the bus the caller is on, does not allow it.
    NotAuthorized,
    /// An argument is out of range, malformed, or does not fit the others.
    InvalidArgument,
    /// The serialization is at another step.
    InvalidStep,
    /// The answers were changed after the revision that was reviewed.
    StaleRevision,
    /// There is no such object or record.
    NotFound,
    /// Another front-end drives this serialization.
    NotOwner,
    /// Another program uses the token.
    KeyBusy,
    /// The Key is not plugged in.
    KeyAbsent,
    /// Another Key is where this one should be.
    WrongKey,
    /// The Key may not make Keys or serialize Locks.
    NotAnIssuer,
    /// The family has no Lock yet.
    NoLock,
    /// More than one Key could be the issuer.
    AmbiguousIssuer,
    /// The token holds keys or certificates that Keywright did not make.
    ForeignCredentials,
    /// The Key was revoked.
    Revoked,
    /// The family's root is not known to be genuine on this station.
    Unverified,
    /// The token, or this version, cannot do it.
    Unsupported,
    /// A PIN has to be given first.
    PinRequired,
    /// The token refused the PIN.
    PinInvalid,
    /// No PIN tries are left.
    PinBlocked,
    /// The job was interrupted and can be taken up again.
    Interrupted,
    /// The registry could not be read or written.
    StoreFailed,
    /// The token broke the protocol or did not answer.
    TokenFailed,
    /// A limit of size or number is exceeded.
    LimitExceeded,
    /// It was cancelled.
    Cancelled,
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorName {
    type Err = UnknownWord;

    /// Reads the whole D-Bus name or its last part.
    fn from_str(name: &str) -> Result<Self, UnknownWord> {
        let last = name.strip_prefix(ERROR_PREFIX).unwrap_or(name);
        let found = Self::ALL.iter().find(|known| known.as_str() == last);
        found.copied().ok_or_else(|| UnknownWord(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_read_back() {
        for name in ErrorName::ALL {
            assert_eq!(name.full().parse(), Ok(*name));
            assert_eq!(name.full(), format!("{ERROR_PREFIX}{name}"));
        }
        assert!("org.freedesktop.DBus.Error.Failed".parse::<ErrorName>().is_err());
    }
}
