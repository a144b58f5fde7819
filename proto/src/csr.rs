//! Certification requests (PKCS#10, RFC 2986): how a Lock or a Soft Key brings its public key.

use der::{Decode, Encode, pem};
use x509_cert::request::CertReq;

use crate::{PublicKey, unsigned::SignedDer};

/// The longest request, in bytes of PEM.
pub const MAX_CSR: usize = 16 * 1024;

/// Why a request is not taken.
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
}

/// Reads a request and answers its key, which is proven by the request's own signature. Whatever
/// else the request asks for is ignored.
///
/// # Errors
/// Says what is wrong with it.
pub fn read_csr(text: &str) -> Result<PublicKey, CsrError> {
    if text.len() > MAX_CSR {
        return Err(CsrError::TooLarge);
    }
    let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|_| CsrError::NotACsr)?;
    if !matches!(label, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::NotACsr);
    }
    let request = CertReq::from_der(&der).map_err(|_| CsrError::NotACsr)?;
    let spki = request.info.public_key.to_der().map_err(|_| CsrError::UnsupportedKey)?;
    let key = PublicKey::from_spki_der(&spki).map_err(|_| CsrError::UnsupportedKey)?;
    let signed = SignedDer::parse(&der, MAX_CSR).ok_or(CsrError::BadSignature)?;
    signed.verify(&key).map_err(|_| CsrError::BadSignature)?;
    Ok(key)
}
