//! The Lock's identity: a P-256 key made at the first start that never leaves the machine, and its PKCS#10 request.

use std::path::Path;

use keywright_proto::{PublicKey, Unsigned, csr};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    files::{self, Readers},
};

/// The private key, PKCS#8 in PEM, so that other programs of this machine can serve TLS with it.
pub const KEY: &str = "identity.key";
const MAX_KEY: usize = 4096;

/// The Lock's identity key.
pub struct Identity {
    key: SigningKey,
    public: PublicKey,
}

impl Identity {
    /// Reads the identity key of this state directory, or creates it at the first start.
    ///
    /// # Errors
    /// The key is damaged. It is never replaced, because that would make the machine another Lock.
    pub fn load_or_create(state: &Path) -> Result<Self, Error> {
        let path = state.join(KEY);
        if let Some(known) = Self::load(&path)? {
            return Ok(known);
        }
        let pem = new_key()?;
        // If several processes start at once, one creates the key and all of them read that one from the disk.
        files::create(&path, pem.as_bytes(), Readers::Owner).map_err(Error::file(&path))?;
        Self::load(&path)?.ok_or_else(|| broken("it was removed meanwhile"))
    }

    fn load(path: &Path) -> Result<Option<Self>, Error> {
        let pem = files::read_if_exists(path, MAX_KEY).map_err(Error::file(path))?;
        let Some(pem) = pem else { return Ok(None) };
        let pem = String::from_utf8(pem).unwrap_or_default();
        let key = SigningKey::from_pkcs8_pem(&pem).ok().and_then(Self::from_key);
        key.map(Some).ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            what: "no P-256 key in PKCS#8".into(),
            next: "restore it from a backup; without it this machine is another Lock",
        })
    }

    fn from_key(key: SigningKey) -> Option<Self> {
        let point = key.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_sec1_point(point.as_bytes()).ok()?;
        Some(Self { key, public })
    }

    /// The public key, which identifies the Lock.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a structure and assembles it with the signature.
    pub fn sign(&self, unsigned: Unsigned) -> Result<Vec<u8>, Error> {
        let broken = |what: String| Error::System(format!("cannot sign: {what}"));
        let signature: Signature =
            self.key.sign_prehash(&unsigned.digest()).map_err(|error| broken(error.to_string()))?;
        unsigned.assemble(signature.to_der().as_bytes()).map_err(|error| broken(error.to_string()))
    }

    /// The PKCS#10 request for `keywrightctl lock add`, PEM.
    pub fn request(&self) -> Result<String, Error> {
        let broken = |error: csr::CsrError| Error::System(error.to_string());
        let request = self.sign(csr::request(&self.public).map_err(broken)?)?;
        csr::to_pem(&request).map_err(broken)
    }
}

/// A random key, PKCS#8 in PEM.
fn new_key() -> Result<Zeroizing<String>, Error> {
    let key = loop {
        let mut secret = p256::FieldBytes::default();
        getrandom::fill(&mut secret).map_err(|error| broken(&error.to_string()))?;
        // Fails if the number is not below the order of the curve: once in 2^32 times.
        if let Ok(key) = SigningKey::from_bytes(&secret) {
            break key;
        }
    };
    key.to_pkcs8_pem(LineEnding::LF).map_err(|error| broken(&error.to_string()))
}

fn broken(what: &str) -> Error {
    Error::System(format!("cannot create the identity key: {what}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, sync::Barrier, thread};

    use keywright_proto::read_csr;

    use super::*;

    #[test]
    fn identity_key_is_created_once_and_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public(), again.public());
        assert_eq!(read_csr(&again.request().unwrap()).unwrap(), *first.public());
    }

    #[test]
    fn concurrent_first_starts_share_one_identity_key() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let at_once = Barrier::new(4);
            let start = || {
                at_once.wait();
                Identity::load_or_create(dir.path()).unwrap().public().clone()
            };
            let keys: Vec<_> = thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            let kept = Identity::load_or_create(dir.path()).unwrap();
            assert!(keys.iter().all(|key| key == kept.public()));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn damaged_identity_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY), "garbage").unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(Error::Damaged { .. })));
        assert_eq!(fs::read(dir.path().join(KEY)).unwrap(), b"garbage");
    }
}
