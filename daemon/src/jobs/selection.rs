//! The Locks that a new Key may access: what was selected, and what that means at Save.

use std::sync::Arc;

use keywright_proto::Id;
use keywright_rules::decision::Reason;

use super::Jobs;
use crate::{
    caller::Caller,
    error::Error,
    families::{Families, LockNames},
    keys::Keys,
    registry::records::LockEntry,
    serialization::wizard::{Selection, WizardEvent},
};

/// The Locks that a front-end selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChoice {
    /// All Locks of the family at Save.
    All,
    /// These Locks.
    These(LockNames),
}

impl Jobs {
    /// SelectLocks.
    pub fn select_locks(
        &mut self,
        number: u64,
        caller: &Caller,
        choice: &LockChoice,
        keys: &Keys,
        families: &Families,
    ) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(WizardEvent::SelectLocks)?;
        let (family, present) = (self.issuing_family(number, keys)?, keys.for_families());
        let (all, count, locks): (_, _, Arc<[LockEntry]>) = match choice {
            LockChoice::All => (true, families.lock_count(family, &present)?, Arc::default()),
            LockChoice::These(names) => {
                let entries = families.entries(family, names, &present)?;
                (false, u32::try_from(entries.len()).unwrap_or(u32::MAX), entries.into())
            }
        };
        let job = self.job_mut(number)?;
        job.wizard.select_locks(Selection { all, count })?;
        job.locks = locks;
        Ok(())
    }

    /// The family for which a serialization's issuer issues.
    pub(super) fn issuing_family(&self, number: u64, keys: &Keys) -> Result<Id, Error> {
        let issuer = self.map.get(&number).and_then(|job| job.issuer.as_ref());
        let family = issuer
            .and_then(|issuer| keys.get(issuer))
            .and_then(|key| key.claims.family.or_else(|| key.memberships.first().copied()));
        family.map(|(family, _)| family).ok_or(Error::Pair(Reason::NotAnIssuer))
    }

    /// A page of the selected Locks, for ListLocks.
    pub fn selected_locks(
        &self,
        number: u64,
        after: Option<Id>,
        limit: usize,
        keys: &Keys,
        families: &Families,
    ) -> Result<Vec<Id>, Error> {
        let job = self.job(number)?;
        if job.wizard.selection().all && job.locks.is_empty() {
            let family = self.issuing_family(number, keys)?;
            return families.locks_page(family, after, limit, &keys.for_families());
        }
        let start = after.map_or(0, |after| job.locks.partition_point(|e| e.lock <= after));
        let allowed = job.locks[start..].iter().filter(|entry| entry.allow);
        Ok(allowed.take(limit).map(|entry| entry.lock).collect())
    }

    /// The selected Locks.
    pub(super) fn selection(
        &self,
        number: u64,
        keys: &Keys,
        families: &Families,
    ) -> Result<Vec<LockEntry>, Error> {
        let job = self.job(number)?;
        if job.wizard.selection().all && job.locks.is_empty() {
            let family = self.issuing_family(number, keys)?;
            return families.lock_entries(family, &keys.for_families());
        }
        Ok(job.locks.iter().filter(|entry| entry.allow).copied().collect())
    }

    /// The Locks of the Key's newest statement that are not selected. The next statement has to deny them, because a
    /// Lock that it does not name goes on admitting the Key.
    pub(super) fn dropped(
        &self,
        number: u64,
        selected: &[LockEntry],
        keys: &Keys,
        families: &Families,
    ) -> Result<Vec<LockEntry>, Error> {
        let candidate = self.map.get(&number).and_then(|job| keys.get(&job.candidate));
        match candidate.and_then(|key| key.id) {
            Some(id) => families.dropped(id, self.issuing_family(number, keys)?, selected),
            None => Ok(Vec::new()),
        }
    }
}
