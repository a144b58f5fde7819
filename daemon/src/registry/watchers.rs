//! Callbacks after a commit: which Keys have new statements, whose certificates changed, what was logged.

use std::{collections::BTreeSet, sync::OnceLock};

use keywright_proto::{Id, audit::LoggedEvent as AuditEvent};

use super::Registry;

/// Locks and CAs whose certificates a commit changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateChanges {
    /// Locks with a new certificate or another issuer.
    pub locks: BTreeSet<Id>,
    /// CAs with another chain: it is new for every Lock that such a CA certified.
    pub issuers: BTreeSet<Id>,
}

impl CertificateChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.issuers.is_empty()
    }
}

/// What a commit changed that a watcher waits for.
#[derive(Default)]
pub(super) struct Notices {
    /// Keys with a new statement or revocation.
    pub(super) statements: Vec<Id>,
    /// Something was written that stations exchange.
    pub(super) signed_objects: bool,
    /// Certificates that changed.
    pub(super) certificates: CertificateChanges,
    /// Events that were appended to the audit log.
    pub(super) audit_events: Vec<AuditEvent>,
}

type StatementWatcher = Box<dyn Fn(Vec<Id>) + Send + Sync>;
type SignedObjectWatcher = Box<dyn Fn() + Send + Sync>;
type CertificateWatcher = Box<dyn Fn(CertificateChanges) + Send + Sync>;
type AuditWatcher = Box<dyn Fn(&[AuditEvent]) + Send + Sync>;

/// The callbacks that are set so far, at most one of each kind.
#[derive(Default)]
pub(super) struct Watchers {
    statements: OnceLock<StatementWatcher>,
    signed_objects: OnceLock<SignedObjectWatcher>,
    certificates: OnceLock<CertificateWatcher>,
    audit_events: OnceLock<AuditWatcher>,
}

impl Watchers {
    /// Calls each watcher that a committed batch has something for.
    pub(super) fn notify(&self, notices: Notices) {
        let Notices { statements, signed_objects, certificates, audit_events } = notices;
        if let Some(watcher) = self.audit_events.get().filter(|_| !audit_events.is_empty()) {
            watcher(&audit_events);
        }
        if let Some(watcher) = self.statements.get().filter(|_| !statements.is_empty()) {
            watcher(statements);
        }
        if let Some(watcher) = self.signed_objects.get().filter(|_| signed_objects) {
            watcher();
        }
        if let Some(watcher) = self.certificates.get().filter(|_| !certificates.is_empty()) {
            watcher(certificates);
        }
    }
}

/// Each watcher is called after the commit, by the thread that committed. Only the first one of a kind is set.
impl Registry {
    /// Calls `watcher` with the Keys that have a new statement or revocation.
    pub fn watch_statements(&self, watcher: impl Fn(Vec<Id>) + Send + Sync + 'static) {
        let _ = self.0.watchers.statements.set(Box::new(watcher));
    }

    /// Calls `watcher` when something was written that stations exchange.
    pub fn watch_signed_objects(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.watchers.signed_objects.set(Box::new(watcher));
    }

    /// Calls `watcher` with the Locks and CAs whose certificates changed.
    pub fn watch_certificates(&self, watcher: impl Fn(CertificateChanges) + Send + Sync + 'static) {
        let _ = self.0.watchers.certificates.set(Box::new(watcher));
    }

    /// Calls `watcher` with the events that were appended to the audit log.
    pub fn watch_audit_events(&self, watcher: impl Fn(&[AuditEvent]) + Send + Sync + 'static) {
        let _ = self.0.watchers.audit_events.set(Box::new(watcher));
    }
}
