//! What is kept in the log, and in whose name.

use std::collections::BTreeMap;

use keywright_proto::Id;

use super::{Reply, Station, keys::Key, view::Label};
use crate::{
    audit::{
        ACTION, AuditEvent, MAX_LOCKS_PER_EVENT, NOT_AUTHORIZED, NOT_VERIFIED, Token, UID, WHAT,
        denials::DenialKey,
    },
    clock,
    error::Error,
    registry::Batch,
    serialization::wizard::Step,
    token::TokenError,
};

/// How many of the newest events are looked through for refusals, once after a start.
const LOOKED_THROUGH: usize = 1_000;

/// What Locks confirmed of a Key, allowed or denied: one event for many.
pub(super) type Confirmed = BTreeMap<(Id, bool), Vec<Id>>;

/// What was brought and not believed.
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

impl Station {
    /// Has an event logged with a batch, in the name of whoever asked for what is being done.
    pub(super) fn log(&self, batch: &mut Batch, event: &AuditEvent) {
        batch.audit(clock::unix_seconds(), event.word(), event.fields(self.asked_by));
    }

    /// Logs an event of which nothing else is kept. It has happened by then: where the disk refuses it, only the daemon's
    /// own log tells of it.
    pub(super) fn note_event(&self, event: &AuditEvent) {
        let mut batch = Batch::new();
        self.log(&mut batch, event);
        if let Err(error) = self.registry.commit(batch) {
            tracing::error!(?event, %error, "an event could not be logged");
        }
    }

    /// Logs what Locks confirmed.
    pub(super) fn log_confirmed(&self, batch: &mut Batch, confirmed: Confirmed) {
        for ((key, allow), locks) in confirmed {
            for locks in locks.chunks(MAX_LOCKS_PER_EVENT) {
                self.log(batch, &AuditEvent::RightsConfirmed { key, allow, locks: locks.to_vec() });
            }
        }
    }

    /// The token of a Key, as the log names it.
    pub(super) fn token(&self, label: &Label) -> Token {
        self.keys.get(label).map(Key::token).unwrap_or_default()
    }

    /// The token that a job makes something of.
    pub(super) fn token_of(&self, number: u64) -> Token {
        let candidate = self.serializations.get(&number).map(|job| &job.candidate);
        candidate.map(|label| self.token(label)).unwrap_or_default()
    }

    /// Logs that a token refused a PIN or a code, where that is what its error says.
    pub(super) fn note_refused(&self, token: Token, error: &TokenError) {
        let event = match error {
            TokenError::PinRefused { retries: 0 } | TokenError::PinBlocked => {
                AuditEvent::PinBlocked { token }
            }
            TokenError::PinRefused { retries } => {
                AuditEvent::PinRefused { token, retries: *retries }
            }
            TokenError::CodeRefused { retries } => {
                AuditEvent::CodeRefused { token, retries: *retries }
            }
            TokenError::CodeBlocked => AuditEvent::CodeBlocked { token },
            _ => return,
        };
        self.note_event(&event);
    }

    /// A call was refused because its caller may not make it.
    pub fn refused_call(&mut self, uid: Option<u32>, action: &str) {
        if let Some(((uid, action), calls)) = self.refused(uid, action) {
            self.asked_by = uid;
            self.note_event(&AuditEvent::NotAuthorized { action, calls });
        }
    }

    /// Papers were refused because they do not verify.
    pub fn refused_papers(&mut self, uid: Option<u32>, what: Brought) {
        if let Some(((uid, what), calls)) = self.refused(uid, what.word()) {
            self.asked_by = uid;
            self.note_event(&AuditEvent::NotVerified { what, calls });
        }
    }

    fn refused(&mut self, uid: Option<u32>, what: &str) -> Option<(DenialKey, u64)> {
        if self.denials.is_none() {
            self.denials = Some(Default::default());
            self.recall_refusals();
        }
        self.denials.get_or_insert_default().refused(uid, what, clock::unix_seconds())
    }

    /// A daemon that is started again and again logs no more refusals than one that stays.
    fn recall_refusals(&mut self) {
        let newest = self.registry.audit_tail(LOOKED_THROUGH).unwrap_or_else(|error| {
            tracing::error!(%error, "the log cannot be read");
            Vec::new()
        });
        let denials = self.denials.get_or_insert_default();
        for event in newest {
            let what = match event.event.as_str() {
                NOT_AUTHORIZED => event.field(ACTION),
                NOT_VERIFIED => event.field(WHAT),
                _ => continue,
            };
            let uid = event.field(UID).and_then(|uid| uid.parse().ok());
            denials.written(uid, what.unwrap_or_default(), event.time);
        }
    }

    /// A family is about to be given away. Nothing is where that cannot be logged.
    pub fn log_export(&mut self, family: Id, reply: Reply<()>) {
        let mut batch = Batch::new();
        self.log(&mut batch, &AuditEvent::FamilyExported { family });
        let logged = self.registry.commit(batch).map_err(Error::from);
        reply.answer(self, logged);
    }

    /// Logs that a job was called off, if anything had been saved of it.
    pub(super) fn note_cancelled(&self, number: u64, step: Step) {
        if matches!(step, Step::Pins | Step::AwaitingKey | Step::Writing) {
            let token = self.token_of(number);
            self.note_event(&AuditEvent::JobCancelled { serialization: number, token });
        }
    }
}

impl Key {
    /// As the log names it.
    pub(super) fn token(&self) -> Token {
        Token { key: self.id, serial: self.serial.clone(), port: self.port.clone() }
    }
}
