//! P-256 public keys, as certificates, tokens and statements carry them.

use std::fmt;

use p256::{
    ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier},
    pkcs8::{DecodePublicKey, EncodePublicKey},
};
use sha2::{Digest, Sha256};

use crate::Id;

/// A P-256 public key.
#[derive(Clone)]
pub struct PublicKey {
    spki: Vec<u8>,
    key: VerifyingKey,
}

/// Why bytes are not a public key that Keywright accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a DER SubjectPublicKeyInfo of an uncompressed P-256 point.
    #[error("not a P-256 SubjectPublicKeyInfo with an uncompressed point")]
    NotP256Spki,
    /// Not an uncompressed point on P-256.
    #[error("not an uncompressed point on P-256")]
    NotAPoint,
}

/// A signature that does not verify, or is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature was not made by the expected key over these bytes")]
pub struct BadSignature;

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5480). Only its one canonical encoding is taken, so
    /// that an id and a hash always belong to one key.
    ///
    /// # Errors
    /// [`PublicKeyError::NotP256Spki`].
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let key =
            VerifyingKey::from_public_key_der(spki).map_err(|_| PublicKeyError::NotP256Spki)?;
        let key = Self::from_key(key).ok_or(PublicKeyError::NotP256Spki)?;
        if key.spki != spki {
            return Err(PublicKeyError::NotP256Spki);
        }
        Ok(key)
    }

    /// Reads an uncompressed point (65 bytes, SEC 1), as a token's GENERATE returns it in tag 86
    /// (SP 800-73-4 part 2, 3.3.2).
    ///
    /// # Errors
    /// [`PublicKeyError::NotAPoint`].
    pub fn from_sec1_point(point: &[u8]) -> Result<Self, PublicKeyError> {
        if point.len() != 65 {
            return Err(PublicKeyError::NotAPoint);
        }
        let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| PublicKeyError::NotAPoint)?;
        Self::from_key(key).ok_or(PublicKeyError::NotAPoint)
    }

    fn from_key(key: VerifyingKey) -> Option<Self> {
        let spki = key.to_public_key_der().ok()?.into_vec();
        Some(Self { spki, key })
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The id. It is a label: decisions compare whole keys or hashes.
    pub fn id(&self) -> Id {
        Id::of_spki(&self.spki)
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// The key identifier of SKI and AKI extensions: the leftmost 160 bits of SHA-256 over the subjectPublicKey
    /// (RFC 7093, section 2, method 1).
    pub fn key_identifier(&self) -> [u8; 20] {
        let mut identifier = [0; 20];
        let hash = Sha256::digest(self.key.to_sec1_point(false).as_bytes());
        identifier.copy_from_slice(&hash[..20]);
        identifier
    }

    /// Verifies a DER ECDSA signature (RFC 3279, 2.2.3) over a SHA-256 digest.
    ///
    /// # Errors
    /// [`BadSignature`] where it is malformed or made by another key or over another digest.
    pub fn verify_prehash(
        &self,
        digest: &[u8; 32],
        signature_der: &[u8],
    ) -> Result<(), BadSignature> {
        let signature = Signature::from_der(signature_der).map_err(|_| BadSignature)?;
        self.verify_signature(digest, &signature)
    }

    pub(crate) fn verify_signature(
        &self,
        digest: &[u8; 32],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        self.key.verify_prehash(digest, signature).map_err(|_| BadSignature)
    }

    pub(crate) const fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_keys::TestKey;

    #[test]
    fn a_point_and_its_spki_are_one_key() {
        let key = TestKey::new(1);
        let public = key.public();
        let point = &public.spki_der()[26..];
        assert_eq!(PublicKey::from_sec1_point(point), Ok(public.clone()));
        assert_eq!(PublicKey::from_spki_der(public.spki_der()), Ok(public.clone()));
        assert_ne!(public, TestKey::new(2).public());
        assert_eq!(public.id().as_bytes(), &public.hash()[..16]);
    }

    #[test]
    fn takes_no_other_encoding() {
        let spki = TestKey::new(1).public().spki_der().to_vec();
        let mut trailing = spki.clone();
        trailing.push(0);
        let mut off_curve = spki.clone();
        off_curve[90] ^= 1;
        let point = &spki[26..];
        let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
        let head = [&[0x30, 0x39], &spki[2..23], &[0x03, 0x22, 0]].concat();
        let compressed_spki = [&head[..], &compressed].concat();
        for bad in [&b""[..], &spki[..90], &trailing, &off_curve, &compressed_spki] {
            assert_eq!(PublicKey::from_spki_der(bad), Err(PublicKeyError::NotP256Spki));
        }
        for bad in [&b""[..], &[0], &point[..64], &off_curve[26..], &compressed] {
            assert_eq!(PublicKey::from_sec1_point(bad), Err(PublicKeyError::NotAPoint));
        }
    }

    #[test]
    fn verifies_only_its_own_signature_over_the_digest() {
        let key = TestKey::new(1);
        let signature = key.sign(&[7; 32]);
        assert_eq!(key.public().verify_prehash(&[7; 32], &signature), Ok(()));
        assert_eq!(key.public().verify_prehash(&[8; 32], &signature), Err(BadSignature));
        let other = TestKey::new(2).public();
        assert_eq!(other.verify_prehash(&[7; 32], &signature), Err(BadSignature));
        assert_eq!(key.public().verify_prehash(&[7; 32], b""), Err(BadSignature));
    }
}
