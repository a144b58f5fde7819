//! What was taken away: rights, with the time of the first statement that did it, and Locks that left their family.

use std::collections::BTreeMap;

use keywright_proto::{Id, claimed_removal};
use sha2::{Digest, Sha256};

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    groups::remove_from_groups,
    layout::{Table, end_of},
    locks::put_lock,
    records::{Lock, LockEntry, LockRemoval, RemovedRight, Statement, UnixTime},
    statements::read_entries,
    view::View,
};

/// Entries in a chunk: with at most 25 bytes each it is one value of less than 4 KiB.
const CHUNK: usize = 140;

impl Registry {
    /// When a right was removed that a statement denies: the time of the first one in a row that did.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn right_removed_since(
        &self,
        key: Id,
        family: Id,
        lock: Id,
    ) -> Result<Option<UnixTime>, RegistryError> {
        let view = self.view()?;
        let prefix = Table::RemovedRights.of_two(key, family);
        let after = [&*prefix, lock.as_bytes(), &[0]].concat();
        let Some((_, payload)) = view.last(prefix, after)? else { return Ok(None) };
        let chunk: Vec<RemovedRight> = codec::decode(&payload)?;
        let place = chunk.binary_search_by_key(&lock, |removed| removed.lock).ok();
        Ok(place.and_then(|place| chunk.get(place)).map(|removed| removed.since))
    }

    /// Every removal of a Lock that was heard of in a family, whether it counts or not.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn lock_removals(&self, family: Id) -> Result<Vec<LockRemoval>, RegistryError> {
        let view = self.view()?;
        view.all(Table::LockRemovals.of(family)).map(|record| codec::decode(&record?.1)).collect()
    }

    /// The same for one Lock.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn removals_of_lock(
        &self,
        family: Id,
        lock: Id,
    ) -> Result<Vec<LockRemoval>, RegistryError> {
        let view = self.view()?;
        let all = view.all(Table::LockRemovals.of_two(family, lock));
        all.map(|record| codec::decode(&record?.1)).collect()
    }

    /// The Locks that are removed, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn removed_locks(&self, family: Id) -> Result<Vec<(Id, Lock)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::RemovedLocks.of(family))
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }

    /// Whether some are.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn has_removed_locks(&self, family: Id) -> Result<bool, RegistryError> {
        let prefix = Table::RemovedLocks.of(family);
        Ok(self.view()?.last(prefix.clone(), end_of(&prefix))?.is_some())
    }

    /// A Lock that is removed.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn removed_lock(&self, family: Id, lock: Id) -> Result<Option<Lock>, RegistryError> {
        self.view()?.record(&Table::RemovedLocks.of_two(family, lock))
    }
}

/// Notes what a new statement removes. A right that one before it had removed keeps its time.
pub(super) fn update_removed_rights(
    view: &View<'_>,
    changes: &mut Changes,
    key: Id,
    family: Id,
    issued: UnixTime,
    entries: &[LockEntry],
) -> Result<(), RegistryError> {
    let prefix = Table::RemovedRights.of_two(key, family);
    let mut since = BTreeMap::new();
    for record in view.all(prefix.clone()) {
        let chunk: Vec<RemovedRight> = codec::decode(&record?.1)?;
        since.extend(chunk.into_iter().map(|removed| (removed.lock, removed.since)));
    }
    let before = since.clone();
    for entry in entries {
        if entry.allow {
            since.remove(&entry.lock);
        } else {
            since.entry(entry.lock).or_insert(issued);
        }
    }
    if since == before {
        return Ok(());
    }
    changes.remove_all(view, prefix.clone())?;
    let removed: Vec<_> =
        since.into_iter().map(|(lock, since)| RemovedRight { lock, since }).collect();
    for chunk in removed.chunks(CHUNK) {
        let first = chunk.first().map(|removed| *removed.lock.as_bytes()).unwrap_or_default();
        changes.put([&*prefix, &first].concat(), &chunk)?;
    }
    Ok(())
}

/// Puts the removal of a Lock; one that is there stays as it is.
pub(super) fn put_lock_removal(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    removal: &LockRemoval,
) -> Result<(), RegistryError> {
    let signer = claimed_removal(&removal.cose).map(|(_, signer)| signer);
    let signer = signer.unwrap_or_else(|| Sha256::digest(&removal.cose).into());
    let fields: [&[u8]; 3] = [family.as_bytes(), removal.lock.as_bytes(), &signer];
    let place = Table::LockRemovals.with(&fields);
    match changes.get(view, &place)? {
        Some(_) => Ok(()),
        None => changes.put(place, removal),
    }
}

/// Takes a Lock off the lists, or puts it back.
pub(super) fn set_lock_removed(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    lock: Id,
    removed: bool,
) -> Result<(), RegistryError> {
    let (shown, kept) = (Table::Locks.of(lock), Table::RemovedLocks.of_two(family, lock));
    if removed {
        let Some(record) = changes.record::<Lock>(view, &shown)? else { return Ok(()) };
        changes.remove(shown);
        changes.remove(Table::LocksByFamily.of_two(family, lock));
        remove_from_groups(view, changes, lock)?;
        return changes.put(kept, &record);
    }
    let Some(record) = changes.record::<Lock>(view, &kept)? else { return Ok(()) };
    changes.remove(kept);
    put_lock(view, changes, lock, &record)
}

/// Format 2 did not keep when rights were removed: of those that are, the statement's time is all that is known.
pub(super) fn add_removed_rights(
    view: &View<'_>,
    changes: &mut Changes,
) -> Result<(), RegistryError> {
    for record in view.all(Table::Statements.key()) {
        let (place, payload) = record?;
        let statement: Statement = codec::decode(&payload)?;
        let fields = place.get(1..).unwrap_or_default();
        let (Some(key), Some(family)) = (fields.first_chunk(), fields.last_chunk()) else {
            return Err(RegistryError::damaged("a statement's key is too short"));
        };
        let (key, family) = (Id::from_bytes(*key), Id::from_bytes(*family));
        let entries = read_entries(view, &Table::StatementEntries.of_two(key, family))?;
        update_removed_rights(view, changes, key, family, statement.issued, &entries)?;
    }
    Ok(())
}
