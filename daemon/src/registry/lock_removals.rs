//! Locks that left their family: the signed removals, and the records of Locks that are removed.

use keywright_proto::{Id, claimed_removal};
use sha2::{Digest, Sha256};

use super::{
    Batch, Registry,
    changes::Changes,
    error::RegistryError,
    groups::remove_from_groups,
    layout::Table,
    locks::put_lock,
    records::{Lock, LockRemoval},
    view::View,
};

impl Registry {
    /// The removals of Locks that this station has received in a family, whether they are in force or not.
    pub fn lock_removals(&self, family: Id) -> Result<Vec<LockRemoval>, RegistryError> {
        self.view()?.records(Table::LockRemovals.of(family))
    }

    /// The removals of one Lock that this station has received, whether they are in force or not.
    pub fn removals_of_lock(
        &self,
        family: Id,
        lock: Id,
    ) -> Result<Vec<LockRemoval>, RegistryError> {
        self.view()?.records(Table::LockRemovals.of_two(family, lock))
    }

    /// The Locks of a family that are removed, by id.
    pub fn removed_locks(&self, family: Id) -> Result<Vec<(Id, Lock)>, RegistryError> {
        self.view()?.records_by_id(Table::RemovedLocks.of(family))
    }

    /// A Lock that is removed.
    pub fn removed_lock(&self, family: Id, lock: Id) -> Result<Option<Lock>, RegistryError> {
        self.view()?.record(&Table::RemovedLocks.of_two(family, lock))
    }
}

impl Batch {
    /// Puts the removal of a Lock, by its signer. If one by the same signer is there already, nothing changes. The
    /// Lock stays on the lists until [`Batch::set_lock_removed`].
    pub fn put_lock_removal(&mut self, family: Id, removal: LockRemoval) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let signer = claimed_removal(&removal.cose).map(|(_, signer)| signer);
            let signer = signer.unwrap_or_else(|| Sha256::digest(&removal.cose).into());
            let fields: [&[u8]; 3] = [family.as_bytes(), removal.lock.as_bytes(), &signer];
            let place = Table::LockRemovals.with(&fields);
            match changes.get(view, &place)? {
                Some(_) => Ok(()),
                None => changes.put(place, &removal),
            }
        })
    }

    /// Takes a Lock off the lists and out of every group, or puts it back on the lists. Nothing changes where that is
    /// so already. The caller keeps the family's count of Locks.
    pub fn set_lock_removed(&mut self, family: Id, lock: Id, removed: bool) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            if removed {
                take_off_lists(view, changes, family, lock)
            } else {
                put_back(view, changes, family, lock)
            }
        })
    }
}

fn take_off_lists(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    lock: Id,
) -> Result<(), RegistryError> {
    let Some(record) = changes.record::<Lock>(view, &Table::Locks.of(lock))? else {
        return Ok(());
    };
    changes.remove(Table::Locks.of(lock));
    changes.remove(Table::LocksByFamily.of_two(family, lock));
    remove_from_groups(view, changes, lock)?;
    changes.put(Table::RemovedLocks.of_two(family, lock), &record)
}

fn put_back(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    lock: Id,
) -> Result<(), RegistryError> {
    let place = Table::RemovedLocks.of_two(family, lock);
    let Some(record) = changes.record::<Lock>(view, &place)? else { return Ok(()) };
    changes.remove(place);
    put_lock(view, changes, lock, &record).map(drop)
}
