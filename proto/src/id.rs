//! Ids: short labels for Keys, families and Locks.
//!
//! An id is a label for people and paths. Every decision compares whole public keys.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first 16 bytes of SHA-256 over a DER SubjectPublicKeyInfo; shown as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id([u8; 16]);

/// A text that is not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lower-case hexadecimal digits")]
pub struct NotAnId;

impl Id {
    /// The id of the key whose DER SubjectPublicKeyInfo is given.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(spki_der)[..16]);
        Self(id)
    }

    /// The id of the key whose DER SubjectPublicKeyInfo has this SHA-256.
    pub fn of_hash(spki_sha256: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&spki_sha256[..16]);
        Self(id)
    }

    /// An id from its raw bytes, as records store it.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(NotAnId);
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| NotAnId)?;
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let id = Id::of_spki(b"some key");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "00", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &"g".repeat(32)] {
            assert_eq!(bad.parse::<Id>(), Err(NotAnId), "{bad:?}");
        }
    }
}
