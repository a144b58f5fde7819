//! Encodes records as bytes and decodes them.
//!
//! A stored value is `version byte · bincode payload · CRC32`. The checksum covers the record's key too, so that a
//! value under the wrong key is noticed.

use serde::{Serialize, de::DeserializeOwned};
use sled::IVec;

use super::error::RegistryError;

/// The largest record, in bytes of its encoding.
pub(super) const LIMIT: usize = 4 * 1024 * 1024;

/// The version of the stored form above, not of the record in it: whoever changes a record changes the registry's
/// format number instead, see [`super::schema`].
pub(super) const VERSION: u8 = 1;

const CRC_LEN: usize = 4;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, RegistryError> {
    let payload = bincode::serde::encode_to_vec(record, config())
        .map_err(|error| RegistryError::Unstorable { what: error.to_string() })?;
    // bincode checks the limit only when it decodes.
    if payload.len() <= LIMIT {
        Ok(payload)
    } else {
        Err(RegistryError::Unstorable { what: format!("it has {} bytes", payload.len()) })
    }
}

/// Decodes a record. Bytes left over are an error; bincode alone would accept them.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, RegistryError> {
    let (record, read) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|error| RegistryError::damaged(format!("unreadable record: {error}")))?;
    if read == payload.len() {
        Ok(record)
    } else {
        Err(RegistryError::damaged("a record is longer than its contents"))
    }
}

/// Decodes only the first field of a record, which is a string.
pub(super) fn leading_text(payload: &[u8]) -> Result<&str, RegistryError> {
    bincode::serde::borrow_decode_from_slice(payload, config())
        .map(|(text, _)| text)
        .map_err(|error| RegistryError::damaged(format!("unreadable record: {error}")))
}

/// Makes the stored form of a payload.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(1 + payload.len() + CRC_LEN);
    sealed.push(VERSION);
    sealed.extend_from_slice(payload);
    let crc = checksum(key, &sealed);
    sealed.extend_from_slice(&crc.to_be_bytes());
    sealed
}

/// Checks a stored form and takes the payload out of it.
pub(super) fn unseal(key: &[u8], sealed: &IVec) -> Result<IVec, RegistryError> {
    let (body, crc) = sealed
        .split_last_chunk::<CRC_LEN>()
        .ok_or_else(|| RegistryError::damaged("a record is too short"))?;
    if checksum(key, body) != u32::from_be_bytes(*crc) {
        return Err(RegistryError::damaged(format!("checksum of record {}", hex::encode(key))));
    }
    match body.first() {
        Some(&VERSION) => Ok(sealed.subslice(1, body.len() - 1)),
        _ => {
            Err(RegistryError::damaged(format!("record {} has no known version", hex::encode(key))))
        }
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u64).unwrap();
        assert_eq!(decode::<u64>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(matches!(decode::<u64>(&bytes), Err(RegistryError::Damaged { .. })));
    }

    #[test]
    fn claimed_length_above_the_limit_is_refused() {
        let bytes = encode(&(LIMIT as u64 + 1)).unwrap();
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(RegistryError::Damaged { .. })));
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let sealed = seal(b"key", b"payload");
        assert_eq!(&*unseal(b"key", &sealed.clone().into()).unwrap(), b"payload");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &flipped.into()).is_err(), "bit {bit}");
        }
        assert!(unseal(b"another key", &sealed.into()).is_err());
    }
}
