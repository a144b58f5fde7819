//! Since when each removed right has been denied: a Lock may take its time to confirm a removal, and people are told
//! how long it has been due.

use std::collections::BTreeMap;

use keywright_proto::Id;

use super::{
    Registry,
    changes::Changes,
    chunks::{find_item, put_list, read_list},
    error::RegistryError,
    layout::Table,
    records::{LockEntry, RemovedRight, UnixTime},
    view::View,
};

impl Registry {
    /// When the current unbroken run of denials for this right began.
    pub fn right_removed_since(
        &self,
        key: Id,
        family: Id,
        lock: Id,
    ) -> Result<Option<UnixTime>, RegistryError> {
        let removed: Option<RemovedRight> =
            find_item(&self.view()?, Table::RemovedRights.of_two(key, family), lock)?;
        Ok(removed.map(|removed| removed.since))
    }
}

/// Takes a new statement into account: a right that it denies and that was not denied before is removed since
/// `issued`.
pub(super) fn update_removed_rights(
    view: &View<'_>,
    changes: &mut Changes,
    key: Id,
    family: Id,
    issued: UnixTime,
    entries: &[LockEntry],
) -> Result<(), RegistryError> {
    let prefix = Table::RemovedRights.of_two(key, family);
    let known: Vec<RemovedRight> = read_list(view, prefix.clone())?;
    let before: BTreeMap<Id, UnixTime> =
        known.into_iter().map(|removed| (removed.lock, removed.since)).collect();
    let mut since = before.clone();
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
    let removed: Vec<_> =
        since.into_iter().map(|(lock, since)| RemovedRight { lock, since }).collect();
    put_list(view, changes, prefix, &removed)
}
