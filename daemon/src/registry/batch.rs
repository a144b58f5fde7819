//! Changes that belong together: [`Registry::commit`](super::Registry::commit) writes all of them or none.
//!
//! Each kind of record has its `put_…` and `remove_…` methods beside its read methods, in the module of its subject:
//! one method says under which keys the record is stored, and which watchers are called.

use serde::Serialize;

use super::{
    audit_log::{self, NewEvent},
    changes::Changes,
    error::RegistryError,
    records::UnixTime,
    view::View,
    watchers::Notices,
};

/// Turns one write into changed records. It sees what the writes before it in the batch changed.
type Write = Box<dyn FnOnce(&View<'_>, &mut Changes) -> Result<(), RegistryError> + Send>;

/// Changes to commit, applied in the order in which they were added.
#[derive(Default)]
#[must_use = "a batch is written by Registry::commit"]
pub struct Batch {
    writes: Vec<Write>,
    events: Vec<NewEvent>,
    /// What is known to change before the writes are applied.
    pub(super) notices: Notices,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.events.is_empty()
    }

    /// Appends an event to the audit log: its name, which is stable, and its fields as names and values.
    pub fn audit(
        &mut self,
        time: UnixTime,
        event: impl Into<String>,
        fields: Vec<(String, String)>,
    ) -> &mut Self {
        self.events.push(NewEvent { time, event: event.into(), fields });
        self
    }

    /// Adds a write.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&View<'_>, &mut Changes) -> Result<(), RegistryError> + Send + 'static,
    ) -> &mut Self {
        self.writes.push(Box::new(write));
        self
    }

    /// Adds the write of one record under one key; it replaces the record that is there.
    pub(super) fn put<T: Serialize + Send + 'static>(
        &mut self,
        key: Vec<u8>,
        record: T,
    ) -> &mut Self {
        self.write(move |_, changes| changes.put(key, &record))
    }

    /// Marks the batch as one that changes what stations exchange.
    pub(super) fn exchanged(&mut self) -> &mut Self {
        self.notices.signed_objects = true;
        self
    }

    /// Applies all writes, and tells what watchers are to be told once they are committed.
    pub(super) fn apply(
        self,
        view: &View<'_>,
        changes: &mut Changes,
    ) -> Result<Notices, RegistryError> {
        self.writes.into_iter().try_for_each(|write| write(view, changes))?;
        let audit_events = audit_log::append(view, changes, self.events)?;
        let certificates = std::mem::take(&mut changes.certificates);
        Ok(Notices { certificates, audit_events, ..self.notices })
    }
}
