//! The Lock's identity: a P-256 key that it makes at first start and never gives away, and the request made with it.

use std::{io, path::Path};

use keywright_proto::{PublicKey, Unsigned, csr};
use p256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};

use crate::{
    error::Error,
    files::{self, Readers},
};

/// The private key, PKCS#8 in PEM, so that other programs of this machine can serve TLS with it.
pub const KEY: &str = "identity.key";
const MAX_KEY: usize = 4096;

/// The identity key.
pub struct Identity {
    key: SigningKey,
    public: PublicKey,
}

impl Identity {
    /// Reads the key of this state directory, or makes it: the first start.
    ///
    /// # Errors
    /// A key that is damaged is never replaced: the Lock would be another one.
    pub fn load_or_create(state: &Path) -> Result<Self, Error> {
        let path = state.join(KEY);
        match files::read(&path, MAX_KEY) {
            Ok(pem) => {
                let pem = String::from_utf8(pem).unwrap_or_default();
                let key = SigningKey::from_pkcs8_pem(&pem);
                key.ok().and_then(Self::from_key).ok_or_else(|| Error::Damaged {
                    path,
                    what: "no P-256 key in PKCS#8".into(),
                    next: "bring it back from a backup; without it this is another Lock",
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(&path),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    fn create(path: &Path) -> Result<Self, Error> {
        let broken = |what: &str| Error::System(format!("no identity key could be made: {what}"));
        let key = loop {
            let mut secret = p256::FieldBytes::default();
            getrandom::fill(&mut secret).map_err(|error| broken(&error.to_string()))?;
            // Fails where the number is not below the order of the curve: once in 2^32 times.
            if let Ok(key) = SigningKey::from_bytes(&secret) {
                break key;
            }
        };
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| broken(&error.to_string()))?;
        files::replace(path, pem.as_bytes(), Readers::Owner).map_err(Error::file(path))?;
        Self::from_key(key).ok_or_else(|| broken("it has no public key"))
    }

    fn from_key(key: SigningKey) -> Option<Self> {
        let point = key.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_sec1_point(point.as_bytes()).ok()?;
        Some(Self { key, public })
    }

    /// The public key: what the Lock is.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs and puts together.
    ///
    /// # Errors
    /// Only where the arithmetic fails, which it does not.
    pub fn sign(&self, unsigned: Unsigned) -> Result<Vec<u8>, Error> {
        let broken = |what: String| Error::System(format!("cannot sign: {what}"));
        let signature: Signature =
            self.key.sign_prehash(&unsigned.digest()).map_err(|error| broken(error.to_string()))?;
        unsigned.assemble(signature.to_der().as_bytes()).map_err(|error| broken(error.to_string()))
    }

    /// The PKCS#10 request for `keywrightctl lock add`, PEM.
    ///
    /// # Errors
    /// As [`Identity::sign`].
    pub fn request(&self) -> Result<String, Error> {
        let broken = |error: csr::CsrError| Error::System(error.to_string());
        let request = self.sign(csr::request(&self.public).map_err(broken)?)?;
        csr::to_pem(&request).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use keywright_proto::read_csr;

    use super::*;

    #[test]
    fn made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public(), again.public());
        assert_eq!(read_csr(&again.request().unwrap()).unwrap(), *first.public());
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY), "garbage").unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(Error::Damaged { .. })));
        assert_eq!(fs::read(dir.path().join(KEY)).unwrap(), b"garbage");
    }
}
