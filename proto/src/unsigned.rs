//! Signs in two steps, because private keys never leave their token: the object is made without its signature, the token
//! signs its digest, and [`Unsigned::assemble`] adds the signature.

use coset::{CoseSign1, TaggedCborSerializable};
use der::{Any, Decode, Encode, asn1::BitString};
use p256::ecdsa::Signature;
use sha2::{Digest, Sha256};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::{PublicKey, public_key::BadSignature};

/// ecdsa-with-SHA256, whose parameters are absent (RFC 5758, 3.2).
pub(crate) const ECDSA_WITH_SHA256: AlgorithmIdentifierOwned = AlgorithmIdentifierOwned {
    oid: der::oid::ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
    parameters: None,
};

/// A certificate, CRL, statement or confirmation that lacks its signature.
#[derive(Debug, Clone)]
pub struct Unsigned {
    signer: PublicKey,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// The DER of a TBSCertificate or TBSCertList.
    X509(Vec<u8>),
    /// Boxed: it is much larger than the other.
    Cose(Box<CoseSign1>),
}

/// Why a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// It is not the signer's signature over [`Unsigned::digest`].
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// The result could not be encoded.
    #[error("the signed object could not be encoded")]
    Encoding,
}

impl Unsigned {
    pub(crate) const fn x509(signer: PublicKey, tbs: Vec<u8>) -> Self {
        Self { signer, form: Form::X509(tbs) }
    }

    pub(crate) fn cose(signer: PublicKey, message: CoseSign1) -> Self {
        Self { signer, form: Form::Cose(Box::new(message)) }
    }

    /// The key that has to sign.
    pub const fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// SHA-256 of what is to be signed: what a token is given for P-256.
    pub fn digest(&self) -> [u8; 32] {
        match &self.form {
            Form::X509(tbs) => Sha256::digest(tbs).into(),
            Form::Cose(message) => Sha256::digest(message.tbs_data(b"")).into(),
        }
    }

    /// Puts in the token's signature: DER, as a token answers it (SP 800-73-4 part 2, 3.2.4).
    /// Returns the DER certificate or CRL, or the tagged COSE_Sign1.
    ///
    /// # Errors
    /// [`AssembleError::BadSignature`] where the signature is not one of [`Unsigned::signer`]: a
    /// token that only claims to hold that key gets nowhere.
    pub fn assemble(self, signature_der: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let signature = Signature::from_der(signature_der).map_err(|_| BadSignature)?;
        self.signer.verify_signature(&self.digest(), &signature)?;
        match self.form {
            Form::X509(tbs) => signed_der(&tbs, signature_der).map_err(|_| AssembleError::Encoding),
            Form::Cose(mut message) => {
                message.signature = signature.to_bytes().to_vec();
                message.to_tagged_vec().map_err(|_| AssembleError::Encoding)
            }
        }
    }
}

/// SIGNED{…} of X.509: the content, the algorithm, the signature.
fn signed_der(tbs: &[u8], signature: &[u8]) -> der::Result<Vec<u8>> {
    vec![
        Any::from_der(tbs)?,
        Any::encode_from(&ECDSA_WITH_SHA256)?,
        Any::encode_from(&BitString::from_bytes(signature)?)?,
    ]
    .to_der()
}

/// A SIGNED{…} of X.509 in its parts.
pub(crate) struct SignedDer {
    /// The signed content, DER.
    pub(crate) tbs: Vec<u8>,
    signature: Vec<u8>,
}

impl SignedDer {
    /// Takes it apart; anything but ecdsa-with-SHA256 is none. `length` is the most it may have.
    pub(crate) fn parse(der: &[u8], length: usize) -> Option<Self> {
        if der.len() > length {
            return None;
        }
        let [tbs, algorithm, signature] =
            <[Any; 3]>::try_from(Vec::<Any>::from_der(der).ok()?).ok()?;
        if algorithm != Any::encode_from(&ECDSA_WITH_SHA256).ok()? {
            return None;
        }
        let signature = signature.decode_as::<BitString>().ok()?.as_bytes()?.to_vec();
        Some(Self { tbs: tbs.to_der().ok()?, signature })
    }

    pub(crate) fn verify(&self, signer: &PublicKey) -> Result<(), BadSignature> {
        signer.verify_prehash(&Sha256::digest(&self.tbs).into(), &self.signature)
    }
}
