//! Groups of Locks: SetGroup, RemoveGroup, and what a group stands for where Locks are selected. A group is a label of this
//! station, like a name: nothing of it is signed or exported, and it is looked up when a call names it, not later.

use std::collections::BTreeSet;

use keywright_proto::Id;

use super::{Reply, Station, selection::too_many, serializations::checked};
use crate::{
    audit::AuditEvent,
    error::Error,
    registry::{Batch, Filter, records::LockEntry},
};

/// The most groups of a station.
const MOST_GROUPS: usize = 1_000;

/// Locks as a caller names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockNames {
    /// By id.
    pub ids: Vec<Id>,
    /// By the name of a group.
    pub groups: Vec<String>,
}

impl LockNames {
    /// Nothing is named.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.groups.is_empty()
    }
}

impl Station {
    /// SetGroup.
    pub fn set_group(
        &mut self,
        family: Id,
        name: String,
        add: &LockNames,
        remove: &LockNames,
        reply: Reply<u32>,
    ) {
        let result = self.change_group(family, name, add, remove);
        reply.answer(self, result);
    }

    fn change_group(
        &self,
        family: Id,
        name: String,
        add: &LockNames,
        remove: &LockNames,
    ) -> Result<u32, Error> {
        checked(&name)?;
        self.group_may_change(family)?;
        let before = self.registry.group_locks(family, &name)?;
        if before.is_none() {
            let all = self.registry.groups_page(&Filter::default(), None, MOST_GROUPS)?;
            if all.items.len() == MOST_GROUPS {
                return Err(Error::LimitExceeded(format!(
                    "there are {MOST_GROUPS} groups already, and no more can be; remove one first"
                )));
            }
        }
        let mut locks: BTreeSet<Id> = before.clone().unwrap_or_default().into_iter().collect();
        locks.extend(self.named(family, add)?.into_iter().map(|entry| entry.lock));
        for id in &remove.ids {
            locks.remove(id);
        }
        for group in &remove.groups {
            let members = self.members(family, group)?;
            locks.retain(|lock| members.binary_search(lock).is_err());
        }
        too_many(locks.len())?;
        let count = locks.len();
        if before.is_none_or(|before| !before.iter().eq(&locks)) {
            let mut batch = Batch::new();
            batch.put_group(family, name.clone(), locks.into_iter().collect());
            self.log(&mut batch, &AuditEvent::GroupChanged { family, group: name, locks: count });
            self.registry.commit(batch)?;
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// RemoveGroup.
    pub fn remove_group(&mut self, family: Id, name: String, reply: Reply<()>) {
        let result = self.drop_group(family, name);
        reply.answer(self, result);
    }

    fn drop_group(&self, family: Id, name: String) -> Result<(), Error> {
        self.group_may_change(family)?;
        self.registry.group(family, &name)?.ok_or_else(|| no_group(&name))?;
        let mut batch = Batch::new();
        batch.remove_group(family, name.clone());
        self.log(&mut batch, &AuditEvent::GroupRemoved { family, group: name });
        Ok(self.registry.commit(batch)?)
    }

    /// As for names: whoever changes what a group stands for has a Master or Backup of its family here.
    fn group_may_change(&self, family: Id) -> Result<(), Error> {
        let missing = || Error::NotFound(format!("family {family}"));
        self.registry.family(family)?.ok_or_else(missing)?;
        self.issuer_is_here([family])
    }

    /// The Locks that are named, sorted: each id has to be one of the family's and be named once, and each group be there.
    /// What is both in a group and named, or in two groups, is there once.
    pub(super) fn named(&self, family: Id, names: &LockNames) -> Result<Vec<LockEntry>, Error> {
        too_many(names.ids.len())?;
        let mut entries = Vec::with_capacity(names.ids.len());
        for id in &names.ids {
            let entry = self.lock_entry(family, *id)?;
            entries.push(entry.ok_or_else(|| Error::NotFound(format!("Lock {id}")))?);
        }
        entries.sort_by_key(|entry| entry.lock);
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].lock == pair[1].lock) {
            return Err(Error::InvalidArgument(format!(
                "Lock {} is named twice; name each once",
                twice[0].lock
            )));
        }
        for group in &names.groups {
            for lock in self.members(family, group)? {
                entries.extend(self.registry.lock_entry(family, lock)?);
            }
        }
        entries.sort_by_key(|entry| entry.lock);
        entries.dedup_by_key(|entry| entry.lock);
        too_many(entries.len())?;
        Ok(entries)
    }

    fn members(&self, family: Id, group: &str) -> Result<Vec<Id>, Error> {
        self.registry.group_locks(family, group)?.ok_or_else(|| no_group(group))
    }
}

fn no_group(name: &str) -> Error {
    Error::NotFound(format!("group \"{name}\" in this family"))
}
