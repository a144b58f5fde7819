//! The removal of a Lock from its family, signed by an issuing key (slot 9C). It is final for the Lock's identity key.
//!
//! It is for the stations of the family: they no longer list the Lock, nor name it in statements. The Lock itself goes on
//! admitting Keys by its statements.

use minicbor::{Decoder, Encoder};

use crate::{
    Certificate, Unsigned,
    chain::{ChainError, verify_chain},
    cose::{self, Received},
    statement::{StatementError, parse_chain},
    tree::Hash,
};

/// The longest removal, in bytes.
pub const MAX_REMOVAL: usize = 16 * 1024;

/// A removal whose signature and chain were verified. Whether its signer is trusted is for [`crate::trust`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The Lock: SHA-256 of its identity key's SubjectPublicKeyInfo.
    pub lock: Hash,
    /// The signer's CA certificate first, the family's root last.
    pub chain: Vec<Certificate>,
}

/// Why a removal is not made or does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// Not a COSE_Sign1 of a removal in its one encoding, or over [`MAX_REMOVAL`].
    #[error("not the removal of a Lock, or longer than {MAX_REMOVAL} bytes")]
    Malformed,
    /// A certificate of its x5chain is not one of ours.
    #[error("the removal of a Lock: {0}")]
    Certificate(#[from] StatementError),
    /// Its chain does not verify.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its signer is no CA of the family.
    #[error("the signer is not a CA; only a Master or Backup removes Locks")]
    NotACa,
    /// The signature is wrong.
    #[error("the removal's signature is wrong")]
    BadSignature,
    /// It was made for another family.
    #[error("the removal names another family than its chain")]
    OtherFamily,
}

/// The removal of a Lock, to be signed by the issuing key whose CA certificate is first in `chain`; the family's
/// root is last.
///
/// # Errors
/// A signer that is no CA, or a chain that makes it too long.
pub fn removal(lock: &Hash, chain: &[Certificate]) -> Result<Unsigned, RemovalError> {
    let ([signer, ..], [.., root]) = (chain, chain) else { return Err(ChainError::Empty.into()) };
    if chain.iter().any(|certificate| !certificate.is_ca()) {
        return Err(RemovalError::NotACa);
    }
    let ders: Vec<_> = chain.iter().map(|certificate| certificate.der().to_vec()).collect();
    // What CBOR, the payload and the signature add is far below 512 bytes.
    if ders.iter().map(Vec::len).sum::<usize>() + 512 > MAX_REMOVAL {
        return Err(RemovalError::Malformed);
    }
    let payload = encode(lock, &root.public_key().hash()).ok_or(RemovalError::Malformed)?;
    Ok(cose::unsigned(signer.public_key().clone(), cose::LOCK_REMOVAL, &ders, payload))
}

/// Verifies a removal up to the family's pinned root certificate (DER), whatever root comes with it.
///
/// # Errors
/// Says what is wrong with it.
pub fn verify_removal(bytes: &[u8], pinned_root: &[u8]) -> Result<Removal, RemovalError> {
    let received =
        Received::parse(bytes, cose::LOCK_REMOVAL, MAX_REMOVAL).ok_or(RemovalError::Malformed)?;
    let chain = parse_chain(&received.chain)?;
    verify_chain(&chain, pinned_root, None)?;
    let (Some(signer), Some(root)) = (chain.first(), chain.last()) else {
        return Err(ChainError::Empty.into());
    };
    if !signer.is_ca() {
        return Err(RemovalError::NotACa);
    }
    received.verify(signer.public_key()).map_err(|_| RemovalError::BadSignature)?;
    let (lock, family) = decode(&received.payload).ok_or(RemovalError::Malformed)?;
    if family != root.public_key().hash() {
        return Err(RemovalError::OtherFamily);
    }
    Ok(Removal { lock, chain })
}

/// The Lock that a removal names, and the key hash of its signer. Nothing is verified: for removals that were verified
/// before.
pub fn claimed_removal(bytes: &[u8]) -> Option<(Hash, Hash)> {
    let received = Received::parse(bytes, cose::LOCK_REMOVAL, MAX_REMOVAL)?;
    let signer = Certificate::parse(received.chain.first()?).ok()?.public_key().hash();
    Some((decode(&received.payload)?.0, signer))
}

/// The signer's chain of a removal. Nothing is verified: for removals that were verified before.
pub(crate) fn claimed_chain(bytes: &[u8]) -> Option<Vec<Certificate>> {
    let received = Received::parse(bytes, cose::LOCK_REMOVAL, MAX_REMOVAL)?;
    parse_chain(&received.chain).ok()
}

fn encode(lock: &Hash, family: &Hash) -> Option<Vec<u8>> {
    let mut e = Encoder::new(Vec::new());
    e.map(2).ok()?.u8(1).ok()?.bytes(lock).ok()?.u8(2).ok()?.bytes(family).ok()?;
    Some(e.into_writer())
}

fn decode(payload: &[u8]) -> Option<(Hash, Hash)> {
    let mut d = Decoder::new(payload);
    (d.map().ok()?? == 2 && d.u8().ok()? == 1).then_some(())?;
    let lock = d.bytes().ok()?.try_into().ok()?;
    (d.u8().ok()? == 2).then_some(())?;
    let family = d.bytes().ok()?.try_into().ok()?;
    (encode(&lock, &family)? == payload).then_some((lock, family))
}
