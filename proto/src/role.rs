//! The roles a certificate can give, and the kinds of Key that a job can make.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a certificate of a family says its holder is. Ordered: a later one ranks higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A gateway.
    Lock,
    /// A Sub Key whose private key lives in software.
    Soft,
    /// A Key that may access only the Locks it was given.
    Sub,
    /// A peer of the Master.
    Backup,
    /// The root of the family.
    Master,
}

impl Role {
    const ALL: [Self; 5] = [Self::Lock, Self::Soft, Self::Sub, Self::Backup, Self::Master];

    /// The word used in certificates, on the bus and by the commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Soft => "soft",
            Self::Sub => "sub",
            Self::Backup => "backup",
            Self::Master => "master",
        }
    }

    /// Whether a Key of this role holds an issuing key (slot 9C).
    pub const fn is_issuer(self) -> bool {
        matches!(self, Self::Master | Self::Backup)
    }
}

/// What a job makes of its candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A new family's Master Key.
    Master,
    /// A peer of the issuer.
    Backup,
    /// A Key for the selected Locks only.
    Sub,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Master, Self::Backup, Self::Sub];

    /// The word used on the bus and by the commands.
    pub const fn as_str(self) -> &'static str {
        self.role().as_str()
    }

    /// The role that the finished Key has.
    pub const fn role(self) -> Role {
        match self {
            Self::Master => Role::Master,
            Self::Backup => Role::Backup,
            Self::Sub => Role::Sub,
        }
    }
}

/// A word that names no role or kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|r| r.as_str() == word).ok_or_else(|| UnknownWord(word.into()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|k| k.as_str() == word).ok_or_else(|| UnknownWord(word.into()))
    }
}
