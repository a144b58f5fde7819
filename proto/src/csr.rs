//! Certification requests (PKCS#10, RFC 2986), by which a Lock or a Soft Key gives its public key.

use der::{Decode, Encode, pem};
use x509_cert::{
    name::Name,
    request::{CertReq, CertReqInfo, Version},
    spki::SubjectPublicKeyInfoOwned,
};

use crate::{PublicKey, Unsigned, unsigned::SignedDer};

/// What a request says in PEM.
pub const LABEL: &str = "CERTIFICATE REQUEST";

/// The longest request, in bytes of PEM.
pub const MAX_CSR: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Over [`MAX_CSR`].
    #[error("the request has more than {MAX_CSR} bytes")]
    TooLarge,
    /// No PKCS#10 in PEM.
    #[error("not a PKCS#10 request in PEM (-----BEGIN CERTIFICATE REQUEST-----)")]
    NotACsr,
    /// Another key than P-256.
    #[error(
        "the request's key is not P-256; make one with: openssl ecparam -name prime256v1 -genkey"
    )]
    UnsupportedKey,
    /// Not signed by its own key with ECDSA and SHA-256.
    #[error("the request is not signed by its own key with ECDSA and SHA-256")]
    BadSignature,
    /// Could not be encoded.
    #[error("the request could not be encoded")]
    Encoding,
}

/// A request for this key, to be signed by it. It names nobody: whoever issues ignores the name.
///
/// # Errors
/// [`CsrError::Encoding`].
pub fn request(key: &PublicKey) -> Result<Unsigned, CsrError> {
    let public_key = SubjectPublicKeyInfoOwned::from_der(key.spki_der());
    let info = CertReqInfo {
        version: Version::V1,
        subject: Name::default(),
        public_key: public_key.map_err(|_| CsrError::UnsupportedKey)?,
        attributes: Default::default(),
    };
    let info = info.to_der().map_err(|_| CsrError::Encoding)?;
    Ok(Unsigned::x509(key.clone(), info))
}

/// A signed request as text.
///
/// # Errors
/// [`CsrError::Encoding`].
pub fn to_pem(request: &[u8]) -> Result<String, CsrError> {
    pem::encode_string(LABEL, pem::LineEnding::LF, request).map_err(|_| CsrError::Encoding)
}

/// Reads a request and returns its key, which the request's own signature proves. Everything else in it is ignored.
///
/// # Errors
/// Says what is wrong with it.
pub fn read_csr(text: &str) -> Result<PublicKey, CsrError> {
    if text.len() > MAX_CSR {
        return Err(CsrError::TooLarge);
    }
    let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|_| CsrError::NotACsr)?;
    if !matches!(label, LABEL | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::NotACsr);
    }
    let request = CertReq::from_der(&der).map_err(|_| CsrError::NotACsr)?;
    let spki = request.info.public_key.to_der().map_err(|_| CsrError::UnsupportedKey)?;
    let key = PublicKey::from_spki_der(&spki).map_err(|_| CsrError::UnsupportedKey)?;
    let signed = SignedDer::parse(&der, MAX_CSR).ok_or(CsrError::BadSignature)?;
    signed.verify(&key).map_err(|_| CsrError::BadSignature)?;
    Ok(key)
}
