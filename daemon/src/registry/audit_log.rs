//! The audit log: security-relevant events, each with the hash of the one before it (`keywright_proto::audit`).
//!
//! The log is bounded. When it is full, the oldest events are removed and an event says so.

use keywright_proto::audit::{self, FIRST, Hash, NOTHING, TRIMMED};

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    layout::{Table, end_of, number_at_end},
    records::{AuditExtent, AuditRecord, UnixTime},
    view::View,
};

/// The largest size of the log, in bytes of records.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// How many bytes are removed when the log is full.
const TRIM_BYTES: u64 = 1024 * 1024;

impl Registry {
    /// The newest `limit` events, the oldest of them first.
    pub fn audit_tail(&self, limit: usize) -> Result<Vec<audit::LoggedEvent>, RegistryError> {
        let view = self.view()?;
        let after = newest(&view)?.map_or(0, |event| event.position + 1);
        events(&view, after.saturating_sub(limit as u64), limit)
    }

    /// At most `limit` events from this position on, or from the oldest one if that was removed.
    pub fn audit_page(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<audit::LoggedEvent>, RegistryError> {
        events(&self.view()?, from, limit)
    }
}

/// An event to append. Its position and hash are set when it is committed.
pub(super) struct NewEvent {
    pub(super) time: UnixTime,
    pub(super) event: String,
    pub(super) fields: Vec<(String, String)>,
}

/// Appends events, and removes the oldest ones if the log is full. Returns what was appended.
pub(super) fn append(
    view: &View<'_>,
    changes: &mut Changes,
    events: Vec<NewEvent>,
) -> Result<Vec<audit::LoggedEvent>, RegistryError> {
    append_within(view, changes, events, MAX_BYTES, TRIM_BYTES)
}

/// Appends events to a log that holds at most `full` bytes and, when it is full, is trimmed by `dropped` bytes.
pub(super) fn append_within(
    view: &View<'_>,
    changes: &mut Changes,
    events: Vec<NewEvent>,
    full: u64,
    dropped: u64,
) -> Result<Vec<audit::LoggedEvent>, RegistryError> {
    let Some(time) = events.last().map(|event| event.time) else { return Ok(Vec::new()) };
    let mut chain = Chain::after(newest(view)?);
    let mut extent: AuditExtent =
        changes.record(view, &Table::AuditExtent.key())?.unwrap_or_default();
    for event in events {
        extent.bytes += chain.append(changes, event)?;
    }
    if extent.bytes > full {
        let fields = trim(view, changes, &mut extent, full.saturating_sub(dropped))?;
        extent.bytes += chain.append(changes, NewEvent { time, event: TRIMMED.into(), fields })?;
    }
    changes.put(Table::AuditExtent.key(), &extent)?;
    Ok(chain.appended)
}

/// Removes the oldest events until at most `keep` bytes are left. Returns the fields of the event that says so.
fn trim(
    view: &View<'_>,
    changes: &mut Changes,
    extent: &mut AuditExtent,
    keep: u64,
) -> Result<Vec<(String, String)>, RegistryError> {
    let before = extent.first;
    for record in view.all(Table::Audit.key()) {
        if extent.bytes <= keep {
            break;
        }
        let (key, payload) = record?;
        extent.bytes = extent.bytes.saturating_sub(payload.len() as u64);
        extent.first = number_at_end(&key)? + 1;
        changes.remove(key.to_vec());
    }
    let dropped = extent.first - before;
    Ok(vec![(FIRST.into(), extent.first.to_string()), ("dropped".into(), dropped.to_string())])
}

/// The end of the chain, to which events are appended.
struct Chain {
    position: u64,
    previous: Hash,
    appended: Vec<audit::LoggedEvent>,
}

impl Chain {
    fn after(newest: Option<audit::LoggedEvent>) -> Self {
        let (position, previous) =
            newest.map_or((0, NOTHING), |event| (event.position + 1, event.hash()));
        Self { position, previous, appended: Vec::new() }
    }

    /// Appends one event and returns the length of its record.
    fn append(&mut self, changes: &mut Changes, event: NewEvent) -> Result<u64, RegistryError> {
        let NewEvent { time, event, mut fields } = event;
        fields.sort();
        let (position, previous) = (self.position, self.previous);
        let event = audit::LoggedEvent { position, time, event, fields, previous };
        let length = put(changes, &event)?;
        (self.position, self.previous) = (position + 1, event.hash());
        self.appended.push(event);
        Ok(length)
    }
}

fn put(changes: &mut Changes, event: &audit::LoggedEvent) -> Result<u64, RegistryError> {
    let audit::LoggedEvent { position, time, event, fields, previous } = event.clone();
    let payload = codec::encode(&AuditRecord { time, event, fields, previous })?;
    let length = payload.len() as u64;
    changes.put_bytes(Table::Audit.at(position), payload);
    Ok(length)
}

fn events(
    view: &View<'_>,
    from: u64,
    limit: usize,
) -> Result<Vec<audit::LoggedEvent>, RegistryError> {
    let end = end_of(&Table::Audit.key());
    let records = view.scan(Table::Audit.at(from), end).take(limit);
    records.map(|record| record.and_then(|(key, payload)| event(&key, &payload))).collect()
}

fn newest(view: &View<'_>) -> Result<Option<audit::LoggedEvent>, RegistryError> {
    let prefix = Table::Audit.key();
    let end = end_of(&prefix);
    view.last(prefix, end)?.map(|(key, payload)| event(&key, &payload)).transpose()
}

fn event(key: &[u8], payload: &[u8]) -> Result<audit::LoggedEvent, RegistryError> {
    let AuditRecord { time, event, fields, previous } = codec::decode(payload)?;
    Ok(audit::LoggedEvent { position: number_at_end(key)?, time, event, fields, previous })
}
