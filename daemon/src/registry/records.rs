//! What the registry keeps. A change of any of these is a new version with a migration.
//!
//! Nothing here is secret: no PIN, no PUK, no management key is ever written to disk.

use keywright_proto::{Id, Kind, Role};
use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 UTC.
pub type UnixTime = u64;

/// A family whose root this station has pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// The whole root certificate, DER. Never replaced.
    pub root: Vec<u8>,
    /// When it was pinned.
    pub pinned: UnixTime,
    /// How many Locks it has.
    pub locks: u32,
}

/// An issuing key (slot 9C) of a family: its certificate and what it publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The family.
    pub family: Id,
    /// CA certificates, DER: its own first, the root last.
    pub chain: Vec<Vec<u8>>,
    /// Its newest CRL, DER.
    pub crl: Vec<u8>,
    /// Serial numbers that its next CRL has to list.
    pub to_revoke: Vec<Vec<u8>>,
}

/// A Key this station knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The access key (slot 9A), DER SubjectPublicKeyInfo.
    pub access_key: Vec<u8>,
    /// The last part of its object path.
    pub label: String,
    /// What people call it; a label of this station.
    pub name: String,
    /// The family and role shown first.
    pub family: Id,
    /// See `family`.
    pub role: Role,
    /// The issuing key (slot 9C), DER SubjectPublicKeyInfo, on Master and Backup Keys.
    pub issuing_key: Option<Vec<u8>>,
    /// The CHUID's GUID.
    pub guid: Option<[u8; 16]>,
    /// The token's serial number, or the GUID in hex where it has none.
    pub serial: String,
    /// The product name.
    pub model: String,
    /// When it was last plugged in here.
    pub last_seen: UnixTime,
    /// Never admitted again.
    pub revoked: bool,
    /// The factory PUK was offered to it once (and never is again).
    pub puk_tried: bool,
}

/// What a family says of a Key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The role in this family.
    pub role: Role,
    /// The access certificate, DER.
    pub certificate: Vec<u8>,
    /// The issuing key that signed it.
    pub issuer: Id,
    /// The PIV container that holds it on the token (5FC105 for the first family).
    pub container: u32,
}

/// A Lock of a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its identity key, DER SubjectPublicKeyInfo.
    pub identity_key: Vec<u8>,
    /// What people call it.
    pub name: String,
    /// Its family.
    pub family: Id,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The issuing key that signed it.
    pub issuer: Id,
    /// Heard of lately.
    pub online: bool,
    /// When it was last heard of; when it was added, until then.
    pub last_seen: UnixTime,
}

/// A group of Locks, by a hash of its family and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The family that it belongs to.
    pub family: Id,
    /// What people call it; a label of this station.
    pub name: String,
    /// How many Locks are in it.
    pub locks: u32,
}

/// Which Locks a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Every Lock of the family, present and future (leaf `*`).
    All,
    /// So many Locks, listed in [`LockEntry`] chunks.
    Listed(u32),
}

/// The newest statement on a Key in a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// None: a revocation.
    pub version: Option<u64>,
    /// The COSE_Sign1, as it is given to Locks.
    pub cose: Vec<u8>,
    /// What the salts of its leaves are derived from.
    pub salt_seed: [u8; 32],
    /// Its Locks.
    pub scope: Scope,
    /// How many of the listed ones it allows; the others it denies.
    pub allowed: u32,
    /// When it was signed.
    pub issued: UnixTime,
}

/// One Lock in a statement. Entries are kept sorted by `lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockEntry {
    /// The Lock's id.
    pub lock: Id,
    /// SHA-256 of the Lock's SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// Allowed, or denied.
    pub allow: bool,
}

/// A job whose write has begun: written before the first change to a token, removed with the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The serialization's number.
    pub number: u64,
    /// What is being made.
    pub kind: Kind,
    /// The name reviewed for it.
    pub name: String,
    /// When the write began; every certificate of the job starts here.
    pub started: UnixTime,
    /// The family; none before a Master's own issuing key exists.
    pub family: Option<Id>,
    /// The issuing Key; none for a Master.
    pub issuer: Option<IntentIssuer>,
    /// The Key that is being made.
    pub candidate: IntentCandidate,
    /// The Locks reviewed for it; listed ones are in the intent's [`LockEntry`] chunks.
    pub scope: Scope,
    /// What exists so far.
    pub made: IntentMade,
}

/// The issuing Key of an [`Intent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentIssuer {
    /// The last part of its object path.
    pub label: String,
    /// Its access key, DER SubjectPublicKeyInfo.
    pub access_key: Vec<u8>,
    /// Its issuing key, DER SubjectPublicKeyInfo.
    pub issuing_key: Vec<u8>,
    /// Where it was plugged in.
    pub port: String,
}

/// The Key that an [`Intent`] makes: by what it can be known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentCandidate {
    /// The last part of its object path.
    pub label: String,
    /// Its access key where it had one before, DER SubjectPublicKeyInfo.
    pub access_key: Option<Vec<u8>>,
    /// The CHUID's GUID before the job.
    pub guid_before: Option<[u8; 16]>,
    /// The random GUID that the job gives a blank token.
    pub guid: Option<[u8; 16]>,
    /// The USB serial number.
    pub usb_serial: Option<String>,
    /// Where it was plugged in.
    pub port: String,
    /// The product name.
    pub model: String,
    /// The token's serial number, or the GUID in hex.
    pub serial: String,
}

/// What an interrupted job finds done. Each field is on disk before the step that it announces,
/// or right after the step whose result it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentMade {
    /// The closer look passed: from here on, keys and objects without a certificate are this job's own.
    pub looked: bool,
    /// The access key generated, DER SubjectPublicKeyInfo.
    pub access_key: Option<Vec<u8>>,
    /// The issuing key generated, DER SubjectPublicKeyInfo.
    pub issuing_key: Option<Vec<u8>>,
    /// Serial numbers fixed for the certificates of this job: access first, CA second.
    pub serials: Vec<Vec<u8>>,
    /// The CA certificate, signed.
    pub ca_certificate: Option<Vec<u8>>,
    /// The access certificate, signed.
    pub access_certificate: Option<Vec<u8>>,
    /// The container of the access certificate.
    pub container: Option<u32>,
    /// The new CA's first CRL, signed.
    pub crl: Option<Vec<u8>>,
    /// The statement's version, fixed before it is signed.
    pub version: Option<u64>,
    /// What the salts of its leaves are derived from.
    pub salt_seed: [u8; 32],
    /// The statement, signed.
    pub statement: Option<Vec<u8>>,
    /// A new PIN was about to be set.
    pub pin_begun: bool,
    /// A new management key was about to be set.
    pub management_key_begun: bool,
    /// The factory PUK was about to be offered.
    pub puk_begun: bool,
    /// The PUK was replaced.
    pub puk_replaced: bool,
}

/// What a rolled-back job left on a token, by the token's GUID: reused by the next job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// A key without right, DER SubjectPublicKeyInfo (slot 9A).
    pub access_key: Option<Vec<u8>>,
    /// The same for slot 9C.
    pub issuing_key: Option<Vec<u8>>,
    /// The factory PUK was offered to it once.
    pub puk_tried: bool,
}

/// A security-relevant event, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub time: UnixTime,
    /// What, as a stable word: `key-made`, `lock-added`, `family-pinned`…
    pub event: String,
    /// To what: field names and values, sorted.
    pub fields: Vec<(String, String)>,
    /// The hash of the event before it, as `keywright_proto::audit` takes it.
    pub previous: [u8; 32],
}

/// What is left of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditExtent {
    /// The position of the oldest event.
    pub first: u64,
    /// How many bytes all records have.
    pub bytes: u64,
}

/// A Lock's newest confirmation about a Key: what makes a right `active`, or ends `removing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The statement's version; none for a revocation.
    pub version: Option<u64>,
    /// What the Lock does now: allow, or deny.
    pub allow: bool,
    /// When the confirmation was made.
    pub time: UnixTime,
}

/// A revocation that this station has heard, whether it counts or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The Key that is revoked.
    pub key: Id,
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// What the salt of its leaf is derived from.
    pub salt_seed: [u8; 32],
    /// When this station first saw it: the delay of a senior's revocation begins then.
    pub first_seen: UnixTime,
    /// Why, as a person said it here; empty where it was heard of.
    pub reason: String,
}

/// What a Lock said, as it signed it: beside [`Confirmation`], to be handed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedConfirmation {
    /// The COSE_Sign1 of the newest confirmation.
    pub cose: Vec<u8>,
    /// The newest version that the Lock has ever reported for the Key.
    pub newest_version: u64,
}

/// A right that was removed, and when the first statement of those that deny it now was signed, or heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRight {
    /// The Lock.
    pub lock: Id,
    /// See above.
    pub since: UnixTime,
}

/// The removal of a Lock that this station has heard, whether it counts or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRemoval {
    /// The Lock.
    pub lock: Id,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// When this station first heard of it.
    pub first_seen: UnixTime,
}

/// Which statement has a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementRef {
    /// The Key.
    pub key: Id,
    /// The family.
    pub family: Id,
    /// Its version; none for a revocation.
    pub version: Option<u64>,
}

/// A Lock without its certificate: what lists and searches read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSummary {
    /// What people call it. First, because a search decodes only this.
    pub name: String,
    /// Its family.
    pub family: Id,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// Heard of lately.
    pub online: bool,
    /// See [`Lock::last_seen`].
    pub last_seen: UnixTime,
}
