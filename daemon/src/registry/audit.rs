//! The log of security-relevant events: each record holds the hash of the one before it.

use sha2::{Digest, Sha256};

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    layout::{Table, end_of, last_number},
    records::{Audit, UnixTime},
    view::View,
};

impl Registry {
    /// The newest `limit` events, the oldest of them first.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn audit_tail(&self, limit: usize) -> Result<Vec<Audit>, RegistryError> {
        let view = self.view()?;
        let after = next_position(&view)?;
        let first = after.saturating_sub(limit as u64);
        view.scan(Table::Audit.at(first), Table::Audit.at(after))
            .map(|record| codec::decode(&record?.1))
            .collect()
    }
}

/// An event to be logged: its place and the hash are found when it is committed.
pub(super) struct Event {
    pub(super) time: UnixTime,
    pub(super) event: String,
    pub(super) fields: Vec<(String, String)>,
}

/// Appends events.
pub(super) fn append(
    view: &View<'_>,
    changes: &mut Changes,
    events: Vec<Event>,
) -> Result<(), RegistryError> {
    if events.is_empty() {
        return Ok(());
    }
    let newest = newest(view)?;
    let first = newest.as_ref().map_or(0, |(position, _)| position + 1);
    let mut previous = newest.map_or([0; 32], |(_, payload)| Sha256::digest(payload).into());
    for (position, Event { time, event, mut fields }) in (first..).zip(events) {
        fields.sort();
        let payload = codec::encode(&Audit { time, event, fields, previous })?;
        previous = Sha256::digest(&payload).into();
        changes.put_bytes(Table::Audit.at(position), payload);
    }
    Ok(())
}

/// Follows the chain from the first event to the last.
pub(super) fn verify(view: &View<'_>) -> Result<(), RegistryError> {
    let mut previous = [0; 32];
    for (record, position) in view.all(Table::Audit.key()).zip(0..) {
        let (key, payload) = record?;
        let event: Audit = codec::decode(&payload)?;
        if last_number(&key) != Some(position) || event.previous != previous {
            return Err(RegistryError::damaged(format!("the audit log breaks at {position}")));
        }
        previous = Sha256::digest(&payload).into();
    }
    Ok(())
}

fn next_position(view: &View<'_>) -> Result<u64, RegistryError> {
    Ok(newest(view)?.map_or(0, |(position, _)| position + 1))
}

fn newest(view: &View<'_>) -> Result<Option<(u64, sled::IVec)>, RegistryError> {
    let prefix = Table::Audit.key();
    let end = end_of(&prefix);
    let newest = view.last(prefix, end)?;
    newest
        .map(|(key, payload)| match last_number(&key) {
            Some(position) => Ok((position, payload)),
            None => Err(RegistryError::damaged("an audit record's key is too short")),
        })
        .transpose()
}
