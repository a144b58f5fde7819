//! The records that the registry stores.
//!
//! They are stored without field names: whoever changes one follows the recipe in `schema`. Nothing here is secret: no
//! PIN, PUK or management key is ever written to disk.

use keywright_proto::{Id, Kind, Role};
use serde::{Deserialize, Serialize};

mod statement;

pub use statement::{LockEntry, Statement};

/// Seconds since 1970-01-01 UTC.
pub type UnixTime = u64;

/// A family whose root certificate this station has pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// The root certificate, DER. Never replaced.
    pub root: Vec<u8>,
    /// When it was pinned.
    pub pinned: UnixTime,
    /// How many Locks it has.
    pub locks: u32,
}

/// An issuing key (slot 9C) of a family: its certificates and its CRL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The family.
    pub family: Id,
    /// The chain that is shown and sent, DER: from its own CA certificate to the root. It may have other certificates,
    /// which are stored apart.
    pub chain: Vec<Vec<u8>>,
    /// Its newest CRL, DER.
    pub crl: Vec<u8>,
    /// Serial numbers that have to be added to its next CRL.
    pub to_revoke: Vec<Vec<u8>>,
}

/// A Key this station knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The access key (slot 9A), DER SubjectPublicKeyInfo.
    pub access_key: Vec<u8>,
    /// The last part of its object path.
    pub label: String,
    /// The name that people gave it. Only this station knows it.
    pub name: String,
    /// The family that is shown first.
    pub family: Id,
    /// The CHUID's GUID.
    pub guid: Option<[u8; 16]>,
    /// The token's serial number, or the GUID in hex where it has none.
    pub serial: String,
    /// The product name.
    pub model: String,
    /// When it was last plugged in here.
    pub last_seen: UnixTime,
    /// The factory PUK was tried on it. It is never tried again.
    pub puk_tried: bool,
}

/// The membership of a Key in a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The highest role that an access certificate gives it in this family.
    pub role: Role,
    /// The access certificate that is shown and sent, DER. It may have others, which are stored apart.
    pub certificate: Vec<u8>,
    /// The issuing key that signed it.
    pub issuer: Id,
    /// The PIV container that holds it on the token (5FC105 for the first family).
    pub container: u32,
    /// Its issuing key (slot 9C), DER SubjectPublicKeyInfo, where an access certificate of a Master or Backup shows one.
    pub issuing_key: Option<Vec<u8>>,
    /// It is revoked in this family and will never be admitted there again.
    pub revoked: bool,
}

impl Membership {
    /// The membership of a Key whose access certificate (DER) of this role was signed by the issuing key with this
    /// SubjectPublicKeyInfo (DER). A Master or Backup has that issuing key itself.
    pub fn new(role: Role, certificate: Vec<u8>, issuing_key: &[u8], container: u32) -> Self {
        Self {
            role,
            certificate,
            issuer: Id::of_spki(issuing_key),
            container,
            issuing_key: role.is_issuer().then(|| issuing_key.to_vec()),
            revoked: false,
        }
    }
}

/// A Lock of a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its identity key, DER SubjectPublicKeyInfo.
    pub identity_key: Vec<u8>,
    /// The name that people gave it.
    pub name: String,
    /// Its family.
    pub family: Id,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The issuing key that signed it.
    pub issuer: Id,
    /// Whether a message of it arrived lately.
    pub online: bool,
    /// When its last message arrived; before the first one, when it was added.
    pub last_seen: UnixTime,
}

/// A named group of Locks. Its id is a hash of its family and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The family that it belongs to.
    pub family: Id,
    /// The name that people gave it. Only this station knows it.
    pub name: String,
    /// How many Locks are in it.
    pub locks: u32,
}

/// Which Locks a job's statement covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Every Lock of the family, now and later (leaf `*`).
    All,
    /// This many Locks. They are listed as [`LockEntry`]s.
    Listed(u32),
}

/// A job whose write has begun. It is stored before the first change to a token, and removed by the commit that ends
/// the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The serialization's number.
    pub number: u64,
    /// What is being made.
    pub kind: Kind,
    /// The name reviewed for it.
    pub name: String,
    /// When the write began. Every certificate of the job is valid from then on.
    pub started: UnixTime,
    /// The family; `None` until a new Master's issuing key exists.
    pub family: Option<Id>,
    /// The issuing Key; `None` for a Master.
    pub issuer: Option<IntentIssuer>,
    /// The Key that is being made.
    pub candidate: IntentCandidate,
    /// The Locks reviewed for it. Listed ones are stored as [`LockEntry`]s under the job's number.
    pub scope: Scope,
    /// What is done so far.
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

/// The Key that an [`Intent`] makes: how it is recognized when it is plugged in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentCandidate {
    /// The last part of its object path.
    pub label: String,
    /// Its access key before the job, if it had one, DER SubjectPublicKeyInfo.
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

/// The progress of a job, from which it is resumed after an interruption. A field is stored before the step that it
/// announces, or right after the step whose result it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentMade {
    /// The token was checked for foreign keys and objects: those without a certificate are this job's own from now on.
    pub looked: bool,
    /// The access key generated, DER SubjectPublicKeyInfo.
    pub access_key: Option<Vec<u8>>,
    /// The issuing key generated, DER SubjectPublicKeyInfo.
    pub issuing_key: Option<Vec<u8>>,
    /// Serial numbers chosen for the certificates of this job: access first, CA second.
    pub serials: Vec<Vec<u8>>,
    /// The CA certificate, signed.
    pub ca_certificate: Option<Vec<u8>>,
    /// The access certificate, signed.
    pub access_certificate: Option<Vec<u8>>,
    /// The container of the access certificate.
    pub container: Option<u32>,
    /// The new CA's first CRL, signed.
    pub crl: Option<Vec<u8>>,
    /// The statement's version, chosen before it is signed.
    pub version: Option<u64>,
    /// The seed from which the salts of its leaves are derived.
    pub salt_seed: [u8; 32],
    /// The statement, signed.
    pub statement: Option<Vec<u8>>,
    /// A new PIN was about to be set.
    pub pin_begun: bool,
    /// A new management key was about to be set.
    pub management_key_begun: bool,
    /// The factory PUK was about to be tried.
    pub puk_begun: bool,
    /// The PUK was replaced.
    pub puk_replaced: bool,
}

/// What a rolled-back job left on a token, by the token's GUID. The next job on that token may replace it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// A key in slot 9A that has no right, DER SubjectPublicKeyInfo.
    pub access_key: Option<Vec<u8>>,
    /// A key in slot 9C that has no right, DER SubjectPublicKeyInfo.
    pub issuing_key: Option<Vec<u8>>,
    /// The factory PUK was tried on it.
    pub puk_tried: bool,
}

/// An event of the audit log, by its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When it happened.
    pub time: UnixTime,
    /// Its name, which is stable: `key-made`, `lock-added`, `family-pinned`…
    pub event: String,
    /// Names and values of its fields, sorted.
    pub fields: Vec<(String, String)>,
    /// The hash of the event before it, as `keywright_proto::audit` takes it.
    pub previous: [u8; 32],
}

/// The extent of the audit log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditExtent {
    /// The position of the oldest event.
    pub first: u64,
    /// The size of all records in bytes.
    pub bytes: u64,
}

/// A Lock's newest confirmation about a Key. It makes a right `active`, or ends `removing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The version of the confirmed statement; `None` for a revocation.
    pub version: Option<u64>,
    /// Whether the Lock admits the Key now.
    pub allow: bool,
    /// When the confirmation was made.
    pub time: UnixTime,
}

/// A revocation that this station has received, whether it is in force or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The Key that is revoked.
    pub key: Id,
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// The seed from which the salt of its leaf is derived.
    pub salt_seed: [u8; 32],
    /// When this station first saw it. The delay before the revocation of a senior Key is in force begins then.
    pub first_seen: UnixTime,
    /// The reason that a person gave at this station; empty if the revocation came from elsewhere.
    pub reason: String,
}

/// A Lock's newest confirmation about a Key as the Lock signed it, to be passed on to other stations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedConfirmation {
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// The newest version that the Lock has ever reported for the Key.
    pub newest_version: u64,
}

/// A right that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRight {
    /// The Lock.
    pub lock: Id,
    /// When the first statement of the current unbroken run of denials was signed.
    pub since: UnixTime,
}

/// The removal of a Lock from its family that this station has received, whether it is in force or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRemoval {
    /// The Lock.
    pub lock: Id,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// The COSE_Sign1.
    pub cose: Vec<u8>,
    /// When this station first saw it.
    pub first_seen: UnixTime,
}

/// Which statement has a certain digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementRef {
    /// The Key.
    pub key: Id,
    /// The family.
    pub family: Id,
    /// Its version; `None` for a revocation.
    pub version: Option<u64>,
}

/// A Lock without its certificate, for lists and searches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSummary {
    /// The name that people gave it. It is the first field, because a search decodes only this one.
    pub name: String,
    /// Its family.
    pub family: Id,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// See [`Lock::online`].
    pub online: bool,
    /// See [`Lock::last_seen`].
    pub last_seen: UnixTime,
}
