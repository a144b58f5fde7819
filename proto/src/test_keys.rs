//! Software keys for unit tests.

use p256::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};

use crate::PublicKey;

/// A fixed key; its signatures are deterministic (RFC 6979).
pub struct TestKey(SigningKey);

impl TestKey {
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).unwrap())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_sec1_point(self.0.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
    }

    pub fn sign(&self, digest: &[u8; 32]) -> Vec<u8> {
        let signature: Signature = self.0.sign_prehash(digest).unwrap();
        signature.to_der().as_bytes().to_vec()
    }
}
