//! A word of the bus. A newer daemon may send one that is not known here: it is kept as it came.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// A word that is known here, or another one of a newer daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<T> {
    /// A word that this version knows.
    Known(T),
    /// Another word, as it came; empty before the daemon has sent any.
    Unknown(String),
}

impl<T: Copy> Word<T> {
    /// What it means, where that is known here.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T: Copy + Into<&'static str>> Word<T> {
    /// The word on the bus.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => (*value).into(),
            Self::Unknown(word) => word,
        }
    }
}

impl<T: FromStr> From<&str> for Word<T> {
    fn from(word: &str) -> Self {
        word.parse().map_or_else(|_| Self::Unknown(word.to_owned()), Self::Known)
    }
}

impl<T: FromStr> From<String> for Word<T> {
    fn from(word: String) -> Self {
        word.parse().map_or_else(|_| Self::Unknown(word), Self::Known)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: Copy + Into<&'static str>> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Copy + Into<&'static str>> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}
