//! Groups of Locks: SetGroup and RemoveGroup. A group is a label of this station, like a name: it is neither signed nor
//! exported. A call that names a group means its members at that time.

use std::collections::BTreeSet;

use keywright_proto::Id;

use super::{Asker, AuditEvent, Families, LockNames, Present, checked, too_many};
use crate::{
    error::Error,
    registry::{Batch, Filter},
};

/// The most groups in the registry.
const MOST_GROUPS: usize = 1_000;

impl Families {
    /// SetGroup: adds Locks to a group and removes others; makes the group if it does not exist. Returns the number of
    /// members.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`, `LimitExceeded`; `KeyAbsent`: no Master or Backup Key of the family is plugged in.
    pub fn set_group(
        &self,
        family: Id,
        name: String,
        add: &LockNames,
        remove: &LockNames,
        present: &Present<'_>,
        by: Asker,
    ) -> Result<u32, Error> {
        checked(&name)?;
        self.group_may_change(family, present)?;
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
        locks.extend(self.named(family, add, present)?.into_iter().map(|entry| entry.lock));
        for id in &remove.ids {
            locks.remove(id);
        }
        for group in &remove.groups {
            let members = self.locks_in(family, group)?;
            locks.retain(|lock| members.binary_search(lock).is_err());
        }
        too_many(locks.len())?;
        let count = locks.len();
        if before.is_none_or(|before| !before.iter().eq(&locks)) {
            let mut batch = Batch::new();
            batch.put_group(family, name.clone(), locks.into_iter().collect());
            let event = AuditEvent::GroupChanged { family, group: name, locks: count };
            self.log(&mut batch, &event, by);
            self.registry.commit(batch)?;
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// RemoveGroup.
    ///
    /// # Errors
    /// `NotFound`; `KeyAbsent`: no Master or Backup Key of the family is plugged in.
    pub fn remove_group(
        &self,
        family: Id,
        name: String,
        present: &Present<'_>,
        by: Asker,
    ) -> Result<(), Error> {
        self.group_may_change(family, present)?;
        self.registry.group(family, &name)?.ok_or_else(|| no_group(&name))?;
        let mut batch = Batch::new();
        batch.remove_group(family, name.clone());
        self.log(&mut batch, &AuditEvent::GroupRemoved { family, group: name }, by);
        Ok(self.registry.commit(batch)?)
    }

    /// Checks that a Master or Backup Key of the family is plugged in, as for names.
    fn group_may_change(&self, family: Id, present: &Present<'_>) -> Result<(), Error> {
        let missing = || Error::NotFound(format!("family {family}"));
        self.registry.family(family)?.ok_or_else(missing)?;
        present.has_issuer_of([family])
    }

    /// The Locks in a group, by id.
    pub(super) fn locks_in(&self, family: Id, group: &str) -> Result<Vec<Id>, Error> {
        self.registry.group_locks(family, group)?.ok_or_else(|| no_group(group))
    }
}

fn no_group(name: &str) -> Error {
    Error::NotFound(format!("group \"{name}\" in this family"))
}
