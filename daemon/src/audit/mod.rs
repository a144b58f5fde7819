//! The events of the audit log, with their names and fields. Both are stable, because other programs search for them:
//! `docs/formats.md` lists them, and a test compares that list with this module.
//!
//! A field is an id, a number, a fixed word, or a label that everybody may read. No event has a field for a PIN or a
//! key, or for the length of one.

pub mod denials;
#[cfg(test)]
mod tests;

use keywright_proto::{ErrorName, Id, Kind, Role};

/// Field of the user who asked for what happened; absent if nobody did.
pub const UID: &str = "uid";

/// One event names at most this many Locks.
pub const MAX_LOCKS_PER_EVENT: usize = 64;

/// A token as events name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// The Key's id; a blank token has none.
    pub key: Option<Id>,
    /// Its serial number, or its GUID in hex.
    pub serial: String,
    /// Where it is plugged in.
    pub port: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are named as in the log, and docs/formats.md says what they are"
)]
pub enum AuditEvent {
    FamilyPinned { family: Id },
    FamilyExported { family: Id },
    FamilyImported { family: Id, new: usize },
    IssuerFound { family: Id, issuer: Id, by: &'static str },
    JobSaved { serialization: u64, kind: Kind, issuer: Option<Id>, token: Token, locks: usize },
    JobFailed { serialization: u64, error: ErrorName, token: Token },
    JobInterrupted { serialization: u64, error: ErrorName, token: Token },
    JobCancelled { serialization: u64, token: Token },
    JobRolledBack { serialization: u64, kind: Kind },
    KeyMade { family: Id, key: Id, kind: Role, locks: usize, serialization: Option<u64> },
    KeyRenamed { key: Id, name: String },
    KeyRevoked { family: Id, key: Id, reason: String },
    KeyJudged { family: Id, key: Id, revoked: bool },
    SignedAnew { family: Id, papers: usize },
    KeyNotGenuine { token: Token },
    LockAdded { family: Id, lock: Id, name: String },
    LockRemoved { family: Id, lock: Id },
    LockJudged { family: Id, lock: Id, removed: bool },
    LockRenamed { lock: Id, name: String },
    RightsChanged { family: Id, key: Id, allowed: usize, denied: usize },
    RightsConfirmed { key: Id, allow: bool, locks: Vec<Id> },
    PinRefused { token: Token, retries: u8 },
    PinBlocked { token: Token },
    PinChanged { token: Token },
    PinUnblocked { token: Token },
    CodeRefused { token: Token, retries: Option<u8> },
    CodeBlocked { token: Token },
    CodeTaken { serialization: u64, token: Token },
    WrongKey { serialization: u64, token: Token },
    NotAuthorized { action: String, calls: u64 },
    NotVerified { what: String, calls: u64 },
    GroupChanged { family: Id, group: String, locks: usize },
    GroupRemoved { family: Id, group: String },
    LossAcknowledged { path: String },
}

impl AuditEvent {
    /// Its name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FamilyPinned { .. } => "family-pinned",
            Self::FamilyExported { .. } => "family-exported",
            Self::FamilyImported { .. } => "family-imported",
            Self::IssuerFound { .. } => "issuer-found",
            Self::JobSaved { .. } => "job-saved",
            Self::JobFailed { .. } => "job-failed",
            Self::JobInterrupted { .. } => "job-interrupted",
            Self::JobCancelled { .. } => "job-cancelled",
            Self::JobRolledBack { .. } => "job-rolled-back",
            Self::KeyMade { .. } => "key-made",
            Self::KeyRenamed { .. } => "key-renamed",
            Self::KeyRevoked { .. } => "key-revoked",
            Self::KeyJudged { .. } => "key-judged",
            Self::SignedAnew { .. } => "signed-anew",
            Self::KeyNotGenuine { .. } => "key-not-genuine",
            Self::LockAdded { .. } => "lock-added",
            Self::LockRemoved { .. } => "lock-removed",
            Self::LockJudged { .. } => "lock-judged",
            Self::LockRenamed { .. } => "lock-renamed",
            Self::RightsChanged { .. } => "rights-changed",
            Self::RightsConfirmed { .. } => "rights-confirmed",
            Self::PinRefused { .. } => "pin-refused",
            Self::PinBlocked { .. } => "pin-blocked",
            Self::PinChanged { .. } => "pin-changed",
            Self::PinUnblocked { .. } => "pin-unblocked",
            Self::CodeRefused { .. } => "code-refused",
            Self::CodeBlocked { .. } => "code-blocked",
            Self::CodeTaken { .. } => "code-taken",
            Self::WrongKey { .. } => "wrong-key",
            Self::NotAuthorized { .. } => NOT_AUTHORIZED,
            Self::NotVerified { .. } => NOT_VERIFIED,
            Self::GroupChanged { .. } => "group-changed",
            Self::GroupRemoved { .. } => "group-removed",
            Self::LossAcknowledged { .. } => "loss-acknowledged",
        }
    }

    /// Its fields, with the user id of who asked for it.
    pub fn fields(&self, uid: Option<u32>) -> Vec<(String, String)> {
        let mut fields = Fields(Vec::new());
        match self {
            Self::FamilyPinned { family } | Self::FamilyExported { family } => {
                fields.put("family", family)
            }
            Self::FamilyImported { family, new } => fields.put("family", family).put("new", new),
            Self::IssuerFound { family, issuer, by } => {
                fields.put("family", family).put("issuer", issuer).put("by", by)
            }
            Self::JobSaved { serialization, kind, issuer, token, locks } => fields
                .put("serialization", serialization)
                .put("kind", kind)
                .put_some("issuer", issuer)
                .token(token)
                .put("locks", locks),
            Self::JobFailed { serialization, error, token }
            | Self::JobInterrupted { serialization, error, token } => {
                fields.put("serialization", serialization).put("error", error.as_str()).token(token)
            }
            Self::JobCancelled { serialization, token }
            | Self::CodeTaken { serialization, token }
            | Self::WrongKey { serialization, token } => {
                fields.put("serialization", serialization).token(token)
            }
            Self::JobRolledBack { serialization, kind } => {
                fields.put("serialization", serialization).put("kind", kind)
            }
            Self::KeyMade { family, key, kind, locks, serialization } => fields
                .put("family", family)
                .put("key", key)
                .put("kind", kind)
                .put("locks", locks)
                .put_some("serialization", serialization),
            Self::KeyRenamed { key, name } => fields.put("key", key).put("name", name),
            Self::KeyRevoked { family, key, reason } => {
                fields.put("family", family).put("key", key).put("reason", reason)
            }
            Self::KeyJudged { family, key, revoked } => {
                fields.put("family", family).put("key", key).put("revoked", revoked)
            }
            Self::LockJudged { family, lock, removed } => {
                fields.put("family", family).put("lock", lock).put("removed", removed)
            }
            Self::SignedAnew { family, papers } => {
                fields.put("family", family).put("papers", papers)
            }
            Self::LockAdded { family, lock, name } => {
                fields.put("family", family).put("lock", lock).put("name", name)
            }
            Self::LockRemoved { family, lock } => fields.put("family", family).put("lock", lock),
            Self::LockRenamed { lock, name } => fields.put("lock", lock).put("name", name),
            Self::RightsChanged { family, key, allowed, denied } => fields
                .put("family", family)
                .put("key", key)
                .put("allowed", allowed)
                .put("denied", denied),
            Self::RightsConfirmed { key, allow, locks } => {
                let ids: Vec<_> = locks.iter().map(Id::to_string).collect();
                fields.put("key", key).put("allow", allow).put("lock", ids.join(" "))
            }
            Self::PinRefused { token, retries } => fields.token(token).put("retries", retries),
            Self::CodeRefused { token, retries } => {
                fields.token(token).put_some("retries", retries)
            }
            Self::PinBlocked { token }
            | Self::PinChanged { token }
            | Self::PinUnblocked { token }
            | Self::CodeBlocked { token }
            | Self::KeyNotGenuine { token } => fields.token(token),
            Self::GroupChanged { family, group, locks } => {
                fields.put("family", family).put("group", group).put("locks", locks)
            }
            Self::GroupRemoved { family, group } => {
                fields.put("family", family).put("group", group)
            }
            Self::LossAcknowledged { path } => fields.put("path", path),
            Self::NotAuthorized { action, calls } => fields.put(ACTION, action).put("calls", calls),
            Self::NotVerified { what, calls } => fields.put(WHAT, what).put("calls", calls),
        };
        fields.put_some(UID, &uid);
        fields.0
    }
}

/// Name of the event that counts refused calls, see [`denials`].
pub const NOT_AUTHORIZED: &str = "not-authorized";
/// Field of the polkit action that was refused.
pub const ACTION: &str = "action";
/// Name of the event that counts signed objects that do not verify, see [`denials`].
pub const NOT_VERIFIED: &str = "not-verified";
/// Field that says where they came from.
pub const WHAT: &str = "what";

struct Fields(Vec<(String, String)>);

impl Fields {
    fn put(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    fn put_some(&mut self, name: &str, value: &Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.put(name, value.to_string());
        }
        self
    }

    fn token(&mut self, token: &Token) -> &mut Self {
        self.put_some("key", &token.key).put("serial", &token.serial).put("port", &token.port)
    }
}
