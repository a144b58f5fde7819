//! The log of what happened, and in whose name.

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

/// Locks that confirmed something of a Key, allowed or denied: one event for many.
pub(super) type Confirmed = BTreeMap<(Id, bool), Vec<Id>>;

/// Something that was brought here and did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// A file for ImportFamily.
    Import,
    /// A confirmation for ApplyConfirmation.
    Confirmation,
    /// Messages of the link.
    Link,
}

impl Brought {
    /// Its word in the log.
    const fn word(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Confirmation => "confirmation",
            Self::Link => "link",
        }
    }
}

impl Families {
    /// Has an event logged with a batch.
    pub fn log(&self, batch: &mut Batch, event: &AuditEvent, by: Asker) {
        batch.audit(clock::unix_seconds(), event.name(), event.fields(by.0));
    }

    /// Logs an event of which nothing else is kept. It has happened by then: where the disk refuses it, only the daemon's
    /// own log tells of it.
    pub fn note_event(&self, event: &AuditEvent, by: Asker) {
        let mut batch = Batch::new();
        self.log(&mut batch, event, by);
        if let Err(error) = self.registry.commit(batch) {
            tracing::error!(?event, %error, "an event could not be logged");
        }
    }

    /// Logs what Locks confirmed.
    pub(super) fn log_confirmed(&self, batch: &mut Batch, confirmed: Confirmed, by: Asker) {
        for ((key, allow), locks) in confirmed {
            for locks in locks.chunks(MAX_LOCKS_PER_EVENT) {
                let event = AuditEvent::RightsConfirmed { key, allow, locks: locks.to_vec() };
                self.log(batch, &event, by);
            }
        }
    }

    /// Logs that a family is about to be exported. Nothing is exported where that cannot be logged.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub fn log_export(&self, family: Id, by: Asker) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.log(&mut batch, &AuditEvent::FamilyExported { family }, by);
        Ok(self.registry.commit(batch)?)
    }

    /// The error for a signature that failed. A token that is not what it claims to be is logged.
    pub fn failure(&self, token: Token, called: &str, why: Failure, by: Asker) -> Error {
        if matches!(why, Failure::NotGenuine(_)) {
            self.note_event(&AuditEvent::KeyNotGenuine { token }, by);
        }
        Error::failed(called, why)
    }
}

/// Calls and objects that were refused lately: so few of them are logged that nobody can fill the disk.
#[derive(Debug, Default)]
pub struct RefusedCalls {
    /// None before the first one since the start.
    lately: Option<Denials>,
}

impl RefusedCalls {
    /// A call was refused because its caller may not make it.
    pub fn refused_call(&mut self, families: &Families, uid: Option<u32>, action: &str) {
        let event = |action, calls| AuditEvent::NotAuthorized { action, calls };
        self.refused(families, uid, action, event);
    }

    /// Signed objects were refused because they do not verify.
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

/// The refusals that the log has already: a daemon that is started again and again logs no more of them than one that
/// stays.
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
