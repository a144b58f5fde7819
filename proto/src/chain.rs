//! Verifies certificate chains up to the pinned root.

use crate::{Certificate, Id, Role, profile::MAX_CAS};

/// Why a chain does not verify. Positions count from 0, the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate at all.
    #[error("the chain is empty")]
    Empty,
    /// More CA certificates than a chain may have.
    #[error("the chain has more than {MAX_CAS} CA certificates")]
    TooLong,
    /// The last certificate is not, byte for byte, the pinned root.
    #[error("the chain does not end at the pinned root of the family")]
    NotPinned,
    /// The pinned certificate is not the self-signed root of the family that it names.
    #[error("the pinned certificate is not the root of its family")]
    NotARoot,
    /// An end entity stands where a CA has to be.
    #[error("certificate {0} of the chain is not a CA certificate")]
    NotACa(usize),
    /// Its issuer's name or key identifier is not the next certificate's.
    #[error("certificate {0} of the chain was not issued by the one after it")]
    WrongIssuer(usize),
    /// Its signature is not by the next certificate's key.
    #[error("the signature of certificate {0} of the chain is wrong")]
    BadSignature(usize),
    /// Its pathLenConstraint is not below the next certificate's.
    #[error("certificate {0} of the chain is a CA that its issuer was not allowed to make")]
    PathLen(usize),
    /// Its URI names another family than the root.
    #[error("certificate {0} of the chain belongs to another family")]
    OtherFamily(usize),
    /// A Master's access certificate that the root did not issue, or a Backup's that it did: each
    /// has its own CA to issue it.
    #[error("the leaf's role is master or backup, but it was not issued by a CA of its own")]
    Role,
    /// Not valid at the given time.
    #[error("certificate {0} of the chain is not valid at this time")]
    Expired(usize),
}

/// Verifies a chain, leaf first, root last and included; returns the family. The leaf may be a CA.
///
/// [`Certificate::parse`] has checked uses and key identifiers. `at` is a time in Unix seconds; none skips validity. For
/// revocation see [`crate::trust`].
///
/// # Errors
/// Says which certificate is wrong, and why.
pub fn verify_chain(
    leaf_first: &[Certificate],
    pinned_root: &[u8],
    at: Option<u64>,
) -> Result<Id, ChainError> {
    let (root, below) = leaf_first.split_last().ok_or(ChainError::Empty)?;
    if root.der() != pinned_root {
        return Err(ChainError::NotPinned);
    }
    bounded(leaf_first)?;
    let family = root.family();
    if !root.is_ca() || family != root.public_key().id() || issued(below.len(), root, root).is_err()
    {
        return Err(ChainError::NotARoot);
    }
    verify_below(leaf_first, 1)?;
    if let Some(position) = leaf_first.iter().position(|certificate| {
        at.is_some_and(|at| at < certificate.not_before() || at > certificate.not_after())
    }) {
        return Err(ChainError::Expired(position));
    }
    Ok(family)
}

/// Like [`verify_chain`], where the last `verified` certificates (1 at least) are the end of a chain that was verified up
/// to the pinned root just now: their signatures are not verified again.
pub(crate) fn verify_below(leaf_first: &[Certificate], verified: usize) -> Result<(), ChainError> {
    if verified == 0 {
        return Err(ChainError::NotPinned);
    }
    bounded(leaf_first)?;
    let new = leaf_first.len().saturating_sub(verified);
    for (position, pair) in leaf_first.windows(2).enumerate().take(new) {
        let [subject, issuer] = pair else { continue };
        link(position, subject, issuer)?;
    }
    match leaf_first.split_first() {
        Some((leaf, above)) => has_own_ca(leaf, above.len()),
        None => Err(ChainError::Empty),
    }
}

fn bounded(leaf_first: &[Certificate]) -> Result<(), ChainError> {
    let cas = leaf_first.iter().filter(|certificate| certificate.is_ca()).count();
    if cas > MAX_CAS { Err(ChainError::TooLong) } else { Ok(()) }
}

/// Verifies that a certificate may precede a chain that was verified before. This costs one signature.
pub(crate) fn verify_next(
    certificate: &Certificate,
    above: &[Certificate],
) -> Result<(), ChainError> {
    link(0, certificate, above.first().ok_or(ChainError::Empty)?)?;
    has_own_ca(certificate, above.len())
}

/// Verifies the self-signed root certificate of a CA: it has the CA's name and key.
pub(crate) fn verify_own_root(root: &Certificate, ca: &Certificate) -> Result<(), ChainError> {
    if !root.is_ca()
        || root.public_key() != ca.public_key()
        || root.subject_der() != ca.subject_der()
        || root.path_len() > ca.path_len()
    {
        return Err(ChainError::NotARoot);
    }
    if root.family() != ca.family() {
        return Err(ChainError::OtherFamily(0));
    }
    issued(0, root, root)
}

/// A Master's access certificate is issued by the root, a Backup's by another CA.
fn has_own_ca(leaf: &Certificate, cas: usize) -> Result<(), ChainError> {
    match leaf.role() {
        Some(Role::Master) if cas != 1 => Err(ChainError::Role),
        Some(Role::Backup) if cas < 2 => Err(ChainError::Role),
        _ => Ok(()),
    }
}

fn link(position: usize, subject: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
    let Some(room) = issuer.path_len() else {
        return Err(ChainError::NotACa(position + 1));
    };
    // Stricter than RFC 5280, 6.1.4: the lowest CA counts as well, so the limit holds for what a
    // CA could still issue and not only for the chain that is shown.
    if subject.path_len().is_some_and(|path_len| path_len >= room) {
        return Err(ChainError::PathLen(position));
    }
    if subject.family() != issuer.family() {
        return Err(ChainError::OtherFamily(position));
    }
    issued(position, subject, issuer)
}

fn issued(position: usize, subject: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
    if subject.issuer_der() != issuer.subject_der()
        || *subject.authority_key_identifier() != issuer.public_key().key_identifier()
    {
        return Err(ChainError::WrongIssuer(position));
    }
    subject.verify_signature(issuer.public_key()).map_err(|_| ChainError::BadSignature(position))
}
