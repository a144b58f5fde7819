//! The audit log: what happened, and who asked for it.

use std::collections::BTreeMap;

use keywright_base::clock;
use keywright_proto::Id;

use super::{Asker, AuditEvent, Families};
use crate::{
    audit::{
        ACTION, MAX_LOCKS_PER_EVENT, NOT_AUTHORIZED, NOT_VERIFIED, Token, UID, WHAT,
        denials::Denials,
    },
    error::Error,
    registry::{Batch, Registry},
    serialization::order::Failure,
};

/// How many of the newest events are searched for refusals, once after a start.
const SEARCHED: usize = 1_000;

/// Locks that confirmed an effect for a Key, by Key and whether it is allowed: one event for many Locks.
pub(super) type ConfirmedLocks = BTreeMap<(Id, bool), Vec<Id>>;

/// The source of an object that did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// A file for ImportFamily.
    Import,
    /// A confirmation for ApplyConfirmation.
    Confirmation,
    /// Messages from the link.
    Link,
}

impl Brought {
    /// The name of this source in the log.
    const fn word(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Confirmation => "confirmation",
            Self::Link => "link",
        }
    }
}

impl Families {
    /// Logs an event in the same commit as a batch.
    pub fn log(&self, batch: &mut Batch, event: &AuditEvent, by: Asker) {
        batch.audit(clock::unix_seconds(), event.name(), event.fields(by.0));
    }

    /// Logs an event that changes nothing else in the registry. If the disk fails, the event appears only in the
    /// daemon's own log.
    pub fn note_event(&self, event: &AuditEvent, by: Asker) {
        let mut batch = Batch::new();
        self.log(&mut batch, event, by);
        if let Err(error) = self.registry.commit(batch) {
            tracing::error!(?event, %error, "an event could not be logged");
        }
    }

    /// Logs the confirmations of Locks.
    pub(super) fn log_confirmed(&self, batch: &mut Batch, confirmed: ConfirmedLocks, by: Asker) {
        for ((key, allow), locks) in confirmed {
            for locks in locks.chunks(MAX_LOCKS_PER_EVENT) {
                let event = AuditEvent::RightsConfirmed { key, allow, locks: locks.to_vec() };
                self.log(batch, &event, by);
            }
        }
    }

    /// Logs that a family is about to be exported. Nothing is exported if this fails.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub fn log_export(&self, family: Id, by: Asker) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.log(&mut batch, &AuditEvent::FamilyExported { family }, by);
        Ok(self.registry.commit(batch)?)
    }

    /// Notes and logs that somebody knows of a registry that was set aside.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub fn acknowledge_loss(&self, by: Asker) -> Result<(), Error> {
        let Some(path) = self.registry.lost() else { return Ok(()) };
        let mut batch = Batch::new();
        let path = path.display().to_string();
        self.log(&mut batch, &AuditEvent::LossAcknowledged { path }, by);
        self.registry.commit(batch)?;
        Ok(self.registry.acknowledge_loss()?)
    }

    /// The error for a signature that failed. Logs a token that does not hold the keys that its certificates claim.
    pub fn failure(&self, token: Token, called: &str, why: Failure, by: Asker) -> Error {
        if matches!(why, Failure::NotGenuine(_)) {
            self.note_event(&AuditEvent::KeyNotGenuine { token }, by);
        }
        Error::failed(called, why)
    }
}

/// The calls and objects that were refused lately. Their log entries are rate-limited, so that nobody can fill the
/// disk.
#[derive(Debug, Default)]
pub struct RefusedCalls {
    /// `None` before the first refusal since the start.
    lately: Option<Denials>,
}

impl RefusedCalls {
    /// Logs a call whose caller was not authorized.
    pub fn refused_call(&mut self, families: &Families, uid: Option<u32>, action: &str) {
        let event = |action, calls| AuditEvent::NotAuthorized { action, calls };
        self.refused(families, uid, action, event);
    }

    /// Logs signed objects that do not verify.
    pub fn refused_objects(&mut self, families: &Families, uid: Option<u32>, what: Brought) {
        let event = |what, calls| AuditEvent::NotVerified { what, calls };
        self.refused(families, uid, what.word(), event);
    }

    fn refused(
        &mut self,
        families: &Families,
        uid: Option<u32>,
        what: &str,
        event: impl FnOnce(String, u64) -> AuditEvent,
    ) {
        let lately = self.lately.get_or_insert_with(|| recalled(&families.registry));
        if let Some(((uid, what), calls)) = lately.refused(uid, what, clock::unix_seconds()) {
            families.note_event(&event(what, calls), Asker(uid));
        }
    }
}

/// Reads the refusals that are logged already, so that the rate limit holds across restarts of the daemon.
fn recalled(registry: &Registry) -> Denials {
    let newest = registry.audit_tail(SEARCHED).unwrap_or_else(|error| {
        tracing::error!(%error, "the log cannot be read");
        Vec::new()
    });
    let mut denials = Denials::default();
    for event in newest {
        let what = match event.event.as_str() {
            NOT_AUTHORIZED => event.field(ACTION),
            NOT_VERIFIED => event.field(WHAT),
            _ => continue,
        };
        let uid = event.field(UID).and_then(|uid| uid.parse().ok());
        denials.written(uid, what.unwrap_or_default(), event.time);
    }
    denials
}
