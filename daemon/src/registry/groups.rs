//! Named groups of Locks: labels that only this station knows. A group belongs to one family.

use keywright_proto::Id;
use sha2::{Digest, Sha256};

use super::{
    Batch, Registry,
    changes::Changes,
    chunks::{chunk_of, put_list, read_list},
    codec,
    error::RegistryError,
    layout::{Table, end_of, id_at_end},
    page::{Filter, Page, page, start_after},
    records::Group,
    view::View,
};

impl Registry {
    /// A group of a family.
    pub fn group(&self, family: Id, name: &str) -> Result<Option<Group>, RegistryError> {
        self.view()?.record(&Table::Groups.of(group_id(family, name)))
    }

    /// The Locks of a group, by id; `None` if there is no such group. `Damaged` too if some of them are lost.
    pub fn group_locks(&self, family: Id, name: &str) -> Result<Option<Vec<Id>>, RegistryError> {
        let (view, group) = (self.view()?, group_id(family, name));
        let Some(record) = view.record::<Group>(&Table::Groups.of(group))? else { return Ok(None) };
        let locks: Vec<Id> = read_list(&view, Table::GroupLocks.of(group))?;
        if locks.len() != record.locks as usize {
            return Err(RegistryError::damaged(format!("group {name:?} has lost some Locks")));
        }
        Ok(Some(locks))
    }

    /// Groups that match the filter, in the order of their ids, which are hashes.
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

impl Batch {
    /// Puts a group of a family with these Locks; they replace those that it has.
    pub fn put_group(&mut self, family: Id, name: String, mut locks: Vec<Id>) -> &mut Self {
        self.write(move |view, changes| {
            locks.sort_unstable();
            locks.dedup();
            let group = group_id(family, &name);
            let count = u32::try_from(locks.len()).unwrap_or(u32::MAX);
            changes.put(Table::Groups.of(group), &Group { family, name, locks: count })?;
            put_list(view, changes, Table::GroupLocks.of(group), &locks)
        })
    }

    /// Removes a group. Its Locks stay.
    pub fn remove_group(&mut self, family: Id, name: String) -> &mut Self {
        self.write(move |view, changes| {
            let group = group_id(family, &name);
            changes.remove(Table::Groups.of(group));
            changes.remove_all(view, Table::GroupLocks.of(group))
        })
    }
}

/// Takes a Lock out of every group that it is in.
pub(super) fn remove_from_groups(
    view: &View<'_>,
    changes: &mut Changes,
    lock: Id,
) -> Result<(), RegistryError> {
    for record in view.all(Table::Groups.key()) {
        let (key, _) = record?;
        let group = id_at_end(&key)?;
        let chunk = chunk_of(view, Table::GroupLocks.of(group), lock)?;
        let Some((chunk, _)) = chunk else { continue };
        // As earlier writes of the same batch left it.
        let Some(mut locks) = changes.record::<Vec<Id>>(view, &chunk)? else { continue };
        let Ok(position) = locks.binary_search(&lock) else { continue };
        locks.remove(position);
        // Its key stays even if its first Lock goes: a chunk is found by the last key that is not after a Lock.
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

/// The id of a group, a hash: names have any length, and keys of records do not.
fn group_id(family: Id, name: &str) -> Id {
    let hash: [u8; 32] =
        Sha256::new().chain_update(family.as_bytes()).chain_update(name).finalize().into();
    Id::of_hash(&hash)
}
