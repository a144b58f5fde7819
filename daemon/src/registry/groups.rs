//! Named groups of Locks: labels of this station, like names. A group belongs to a family; its Locks are in chunks.

use keywright_proto::Id;
use sha2::{Digest, Sha256};

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    layout::{Table, end_of},
    page::{Filter, Page, page, start_after},
    records::Group,
    view::View,
};

/// Locks in a chunk: with 16 bytes each it is one value of less than 7 KiB.
const CHUNK: usize = 400;

impl Registry {
    /// A group of a family.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn group(&self, family: Id, name: &str) -> Result<Option<Group>, RegistryError> {
        self.view()?.record(&Table::Groups.of(group_id(family, name)))
    }

    /// The Locks of a group, by id; none where there is no such group.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read; `Damaged` too where some of them are lost.
    pub fn group_locks(&self, family: Id, name: &str) -> Result<Option<Vec<Id>>, RegistryError> {
        let (view, group) = (self.view()?, group_id(family, name));
        let Some(record) = view.record::<Group>(&Table::Groups.of(group))? else { return Ok(None) };
        let mut locks = Vec::with_capacity(record.locks as usize);
        for chunk in view.all(Table::GroupLocks.of(group)) {
            locks.extend(codec::decode::<Vec<Id>>(&chunk?.1)?);
        }
        if locks.len() != record.locks as usize {
            return Err(RegistryError::damaged(format!("group {name:?} has lost some Locks")));
        }
        Ok(Some(locks))
    }

    /// Groups after a cursor, in no order that means anything: of a family, with this in their name.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn groups_page(
        &self,
        filter: &Filter,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Page<(Id, Group)>, RegistryError> {
        let view = self.view()?;
        let query = filter.query.as_ref().map(|query| query.to_lowercase());
        let wanted = |group: &Group| {
            filter.family.is_none_or(|family| family == group.family)
                && query.as_ref().is_none_or(|query| group.name.to_lowercase().contains(query))
        };
        let prefix = Table::Groups.key();
        let groups = view.scan(start_after(&prefix, after), end_of(&prefix)).map(|record| {
            let (key, payload) = record?;
            Ok((id_at_end(&key)?, codec::decode::<Group>(&payload)?))
        });
        page(groups.filter(|found| found.as_ref().map_or(true, |(_, group)| wanted(group))), limit)
    }
}

/// Puts a group with these Locks, in place of those that it had.
pub(super) fn put_group(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    name: String,
    mut locks: Vec<Id>,
) -> Result<(), RegistryError> {
    locks.sort_unstable();
    locks.dedup();
    let group = group_id(family, &name);
    let count = u32::try_from(locks.len()).unwrap_or(u32::MAX);
    changes.put(Table::Groups.of(group), &Group { family, name, locks: count })?;
    changes.remove_all(view, Table::GroupLocks.of(group))?;
    for chunk in locks.chunks(CHUNK) {
        let first = chunk.first().copied().unwrap_or(group);
        changes.put(Table::GroupLocks.of_two(group, first), &chunk)?;
    }
    Ok(())
}

/// Removes a group; its Locks are Locks as before.
pub(super) fn remove_group(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    name: &str,
) -> Result<(), RegistryError> {
    let group = group_id(family, name);
    changes.remove(Table::Groups.of(group));
    changes.remove_all(view, Table::GroupLocks.of(group))
}

/// A Lock that is removed leaves every group that it is in.
pub(super) fn remove_from_groups(
    view: &View<'_>,
    changes: &mut Changes,
    lock: Id,
) -> Result<(), RegistryError> {
    for record in view.all(Table::Groups.key()) {
        let (key, _) = record?;
        let group = id_at_end(&key)?;
        let prefix = Table::GroupLocks.of(group);
        let after = [&*prefix, lock.as_bytes(), &[0]].concat();
        let Some((chunk, _)) = view.last(prefix, after)? else { continue };
        // As the changes before this one in the same batch left it.
        let Some(mut locks) = changes.record::<Vec<Id>>(view, &chunk)? else { continue };
        let Ok(position) = locks.binary_search(&lock) else { continue };
        locks.remove(position);
        // A chunk is found by a Lock that it may have: its key stays, whatever its first Lock is.
        if locks.is_empty() {
            changes.remove(chunk.to_vec());
        } else {
            changes.put(chunk.to_vec(), &locks)?;
        }
        if let Some(record) = changes.record::<Group>(view, &key)? {
            let locks = record.locks.saturating_sub(1);
            changes.put(key.to_vec(), &Group { locks, ..record })?;
        }
    }
    Ok(())
}

/// Where a group is: names have any length, and keys of records do not.
fn group_id(family: Id, name: &str) -> Id {
    let hash: [u8; 32] =
        Sha256::new().chain_update(family.as_bytes()).chain_update(name).finalize().into();
    Id::of_hash(&hash)
}
