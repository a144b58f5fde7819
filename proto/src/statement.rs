//! Statements: an issuing key (slot 9C) allows or denies one Key at any number of Locks, or revokes it.

use minicbor::{Decoder, Encoder};

use crate::{
    Certificate, PublicKey, Unsigned,
    certificate::CertificateError,
    chain::{ChainError, verify_chain},
    cose::{self, Received},
    profile::MAX_CAS,
    tree::{Hash, MAX_LEAVES, TreeHead},
};

/// The longest statement, in bytes.
pub const MAX_STATEMENT: usize = 16 * 1024;
/// Versions are below this: the integers that every language holds exactly.
pub const VERSION_LIMIT: u64 = 1 << 53;
/// How far a version may be ahead of a Lock's clock, in milliseconds: 24 hours.
pub const PARK_AHEAD_MS: u64 = 24 * 3_600_000;
/// A year, in milliseconds: how far ahead the clock of an honest station may be.
const YEAR_MS: u64 = 366 * 24 * 3_600_000;

/// A statement to be signed.
#[derive(Debug, Clone)]
pub struct Statement<'a> {
    /// The Key: its access key (slot 9A).
    pub subject: &'a PublicKey,
    /// None: a revocation, final for this key. Else see [`next_version`].
    pub version: Option<u64>,
    /// The Locks.
    pub tree: TreeHead,
    /// In the revocation of a Master or Backup: its issuing key. None in every other statement.
    pub revokes: Option<RevokedIssuer>,
}

/// The issuing key (slot 9C) that the revocation of a Master or Backup revokes. It is signed, because a Lock that sees a
/// revoked access key (9A) cannot always know which issuing key belongs to it. [`crate::trust`] applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevokedIssuer {
    /// The issuing key: SHA-256 of its SubjectPublicKeyInfo.
    pub issuing_key: Hash,
    /// Denials that this issuing key signed stay in effect up to this version, until a trusted key signs something newer.
    /// See [`denials_until`].
    pub denials_until: u64,
}

/// A statement whose signature and chain were verified. Whether its signer is trusted is for [`crate::trust`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedStatement {
    /// The Key: its access key (slot 9A).
    pub subject: PublicKey,
    /// None: a revocation.
    pub version: Option<u64>,
    /// The Locks.
    pub tree: TreeHead,
    /// In the revocation of a Master or Backup: its issuing key.
    pub revokes: Option<RevokedIssuer>,
    /// Names the statement in confirmations: SHA-256 of what its signature covers, so that it does not depend on the random
    /// part of the signature.
    pub digest: Hash,
    /// The signer's CA certificate first, the family's root last.
    pub chain: Vec<Certificate>,
}

impl VerifiedStatement {
    /// The issuing key that signed it.
    pub fn signer(&self) -> Option<&PublicKey> {
        self.chain.first().map(Certificate::public_key)
    }
}

/// Why a statement is not made or does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not a COSE_Sign1 of a statement in its one encoding, or over [`MAX_STATEMENT`].
    #[error("not a Keywright statement, or longer than {MAX_STATEMENT} bytes")]
    Malformed,
    /// A certificate of its x5chain is not one of ours.
    #[error("certificate {0} of the statement: {1}")]
    Certificate(usize, CertificateError),
    /// Its chain does not verify.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its signer is no CA of the family.
    #[error("the statement's signer is not a CA; only a Master or Backup makes statements")]
    NotACa,
    /// The signature is wrong.
    #[error("the statement's signature is wrong")]
    BadSignature,
    /// It was made for another family.
    #[error("the statement names another family than its chain")]
    OtherFamily,
    /// Its version or tree is out of bounds.
    #[error("the statement's version or number of leaves is out of bounds")]
    OutOfBounds,
    /// No version is left above the newest known one.
    #[error("no version is left; the rights of this Key cannot be changed any more")]
    NoVersionLeft,
}

/// The version of a Key's next statement: above every known one, and at least Unix time in milliseconds, so that stations
/// that do not know of each other hardly ever choose the same.
///
/// # Errors
/// [`StatementError::NoVersionLeft`] where it would not be below [`VERSION_LIMIT`].
pub fn next_version(newest_known: Option<u64>, now_ms: u64) -> Result<u64, StatementError> {
    let above = newest_known.map_or(Some(0), |newest| newest.checked_add(1));
    let version = above.map(|above| above.max(now_ms));
    version.filter(|version| *version < VERSION_LIMIT).ok_or(StatementError::NoVersionLeft)
}

/// [`RevokedIssuer::denials_until`] of a revocation that is signed now: the greatest of Unix time in milliseconds and all
/// versions known of that issuing key. Versions more than a year ahead are ignored: no honest clock made them, and they
/// would leave none for the statements that have to be re-issued.
pub fn denials_until(versions_by_issuer: impl IntoIterator<Item = u64>, now_ms: u64) -> u64 {
    let known = versions_by_issuer.into_iter().filter(|version| is_plausible(*version, now_ms));
    known.fold(now_ms, u64::max).min(VERSION_LIMIT - 2)
}

/// Whether an honest station can have chosen this version: it is at most a year ahead of the clock.
pub fn is_plausible(version: u64, now_ms: u64) -> bool {
    version <= now_ms.saturating_add(YEAR_MS)
}

/// Whether a Lock parks a statement, that is, keeps it and does not act on it yet: its version is more than 24 hours ahead
/// of the Lock's clock. A Lock whose clock is not set (none) parks nothing.
pub fn is_parked(version: u64, now_ms: Option<u64>) -> bool {
    now_ms.is_some_and(|now| version > now.saturating_add(PARK_AHEAD_MS))
}

impl Statement<'_> {
    /// The statement, to be signed by the issuing key whose CA certificate is first in `chain`; the
    /// family's root is last.
    ///
    /// # Errors
    /// A signer that is no CA, bounds that are not kept, or a chain that makes it too long.
    pub fn unsigned(&self, chain: &[Certificate]) -> Result<Unsigned, StatementError> {
        let [signer, ..] = chain else { return Err(ChainError::Empty.into()) };
        let [.., root] = chain else { return Err(ChainError::Empty.into()) };
        if chain.iter().any(|certificate| !certificate.is_ca()) {
            return Err(StatementError::NotACa);
        }
        let payload = encode(self, root).ok_or(StatementError::OutOfBounds)?;
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.der().to_vec()).collect();
        // What CBOR and the signature add is far below 512 bytes.
        if chain.iter().map(Vec::len).sum::<usize>() + payload.len() + 512 > MAX_STATEMENT {
            return Err(StatementError::OutOfBounds);
        }
        Ok(cose::unsigned(signer.public_key().clone(), cose::STATEMENT, &chain, payload))
    }
}

/// Verifies a statement up to the family's pinned root certificate (DER), whatever root comes with it.
///
/// # Errors
/// Says what is wrong with it.
pub fn verify_statement(
    bytes: &[u8],
    pinned_root: &[u8],
) -> Result<VerifiedStatement, StatementError> {
    let received =
        Received::parse(bytes, cose::STATEMENT, MAX_STATEMENT).ok_or(StatementError::Malformed)?;
    let chain = parse_chain(&received.chain)?;
    verify_chain(&chain, pinned_root, None)?;
    let (Some(signer), Some(root)) = (chain.first(), chain.last()) else {
        return Err(ChainError::Empty.into());
    };
    if !signer.is_ca() {
        return Err(StatementError::NotACa);
    }
    received.verify(signer.public_key()).map_err(|_| StatementError::BadSignature)?;
    let (family, statement) = decode(&received.payload).ok_or(StatementError::Malformed)?;
    if family != root.public_key().hash() {
        return Err(StatementError::OtherFamily);
    }
    let (subject, version, tree, revokes) = statement;
    let statement = Statement { subject: &subject, version, tree, revokes };
    match encode(&statement, root) {
        None => return Err(StatementError::OutOfBounds),
        Some(payload) if payload != received.payload => return Err(StatementError::Malformed),
        Some(_) => {}
    }
    Ok(VerifiedStatement { subject, version, tree, revokes, digest: received.digest, chain })
}

/// The digest of a statement ([`VerifiedStatement::digest`]); none where it is not a statement in its one encoding.
/// Nothing is verified.
pub fn digest(bytes: &[u8]) -> Option<Hash> {
    Some(Received::parse(bytes, cose::STATEMENT, MAX_STATEMENT)?.digest)
}

/// The contents of a statement that was verified before; [`claimed`] verifies nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The key hash of its signer.
    pub signer: Hash,
    /// The key hash of the Key's access key.
    pub subject: Hash,
    /// See [`VerifiedStatement::version`].
    pub version: Option<u64>,
    /// See [`VerifiedStatement::revokes`].
    pub revokes: Option<RevokedIssuer>,
    /// See [`VerifiedStatement::digest`].
    pub digest: Hash,
}

/// Reads a statement without verifying anything.
pub fn claimed(bytes: &[u8]) -> Option<Claimed> {
    let received = Received::parse(bytes, cose::STATEMENT, MAX_STATEMENT)?;
    let signer = Certificate::parse(received.chain.first()?).ok()?.public_key().hash();
    let (_, (subject, version, _, revokes)) = decode(&received.payload)?;
    Some(Claimed { signer, subject: subject.hash(), version, revokes, digest: received.digest })
}

/// Reads the certificates of a chain: at most [`MAX_CAS`], and an access certificate before them.
pub(crate) fn parse_chain(chain: &[Vec<u8>]) -> Result<Vec<Certificate>, StatementError> {
    if chain.len() > MAX_CAS + 1 {
        return Err(ChainError::TooLong.into());
    }
    let certificates = chain.iter().enumerate().map(|(position, der)| {
        Certificate::parse(der).map_err(|error| StatementError::Certificate(position, error))
    });
    certificates.collect()
}

/// Keys of the payload's map.
const SUBJECT: u8 = 1;
const FAMILY: u8 = 2;
const VERSION: u8 = 3;
const SIZE: u8 = 4;
const ROOT: u8 = 5;
const ISSUING_KEY: u8 = 6;
const DENIALS_UNTIL: u8 = 7;

/// The payload in deterministic CBOR; none where a bound is not kept.
fn encode(statement: &Statement<'_>, root: &Certificate) -> Option<Vec<u8>> {
    let Statement { subject, version, tree, revokes } = statement;
    if version.is_some_and(|version| version >= VERSION_LIMIT)
        || revokes.is_some_and(|issuer| issuer.denials_until >= VERSION_LIMIT)
        || (version.is_some() && revokes.is_some())
        || !(1..=MAX_LEAVES).contains(&tree.size)
    {
        return None;
    }
    let mut e = Encoder::new(Vec::new());
    e.map(4 + u64::from(version.is_some()) + 2 * u64::from(revokes.is_some())).ok()?;
    e.u8(SUBJECT).ok()?.bytes(subject.spki_der()).ok()?;
    e.u8(FAMILY).ok()?.bytes(&root.public_key().hash()).ok()?;
    if let Some(version) = version {
        e.u8(VERSION).ok()?.u64(*version).ok()?;
    }
    e.u8(SIZE).ok()?.u64(tree.size).ok()?;
    e.u8(ROOT).ok()?.bytes(&tree.root).ok()?;
    if let Some(issuer) = revokes {
        e.u8(ISSUING_KEY).ok()?.bytes(&issuer.issuing_key).ok()?;
        e.u8(DENIALS_UNTIL).ok()?.u64(issuer.denials_until).ok()?;
    }
    Some(e.into_writer())
}

/// A payload without its family.
type Contents = (PublicKey, Option<u64>, TreeHead, Option<RevokedIssuer>);

/// Reads a payload: the family, and the rest. The caller checks that the encoding is the deterministic one.
fn decode(payload: &[u8]) -> Option<(Hash, Contents)> {
    let mut d = Decoder::new(payload);
    let entries = d.map().ok()??;
    let key = |d: &mut Decoder<'_>, expected: u8| (d.u8().ok()? == expected).then_some(());
    key(&mut d, SUBJECT)?;
    let subject = PublicKey::from_spki_der(d.bytes().ok()?).ok()?;
    key(&mut d, FAMILY)?;
    let family = d.bytes().ok()?.try_into().ok()?;
    let version = if entries == 5 {
        key(&mut d, VERSION)?;
        Some(d.u64().ok()?)
    } else {
        None
    };
    key(&mut d, SIZE)?;
    let size = d.u64().ok()?;
    key(&mut d, ROOT)?;
    let root = d.bytes().ok()?.try_into().ok()?;
    let revokes = if entries == 6 {
        key(&mut d, ISSUING_KEY)?;
        let issuing_key = d.bytes().ok()?.try_into().ok()?;
        key(&mut d, DENIALS_UNTIL)?;
        Some(RevokedIssuer { issuing_key, denials_until: d.u64().ok()? })
    } else {
        None
    };
    Some((family, (subject, version, TreeHead { size, root }, revokes)))
}
