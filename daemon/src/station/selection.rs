//! Which Locks a new Key may access: what was selected, and what that means at Save.

use std::sync::Arc;

use keywright_proto::Id;

use super::{Caller, LockNames, Reply, Station, rights::in_force};
use crate::{
    decision::Reason,
    error::Error,
    registry::{Filter, records::LockEntry},
    serialization::wizard::{Event, Selection},
};

/// How many Locks one statement may be about (contract section 4).
const MOST_LOCKS: usize = 100_000;

/// Which Locks a front-end selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChoice {
    /// All that the family has at Save.
    All,
    /// These.
    These(LockNames),
}

impl Station {
    /// SelectLocks.
    pub fn select_locks(
        &mut self,
        number: u64,
        caller: Caller,
        choice: LockChoice,
        reply: Reply<()>,
    ) {
        let result = self.choose_locks(number, &caller, &choice);
        self.answered(number, &caller, result, reply);
    }

    fn choose_locks(
        &mut self,
        number: u64,
        caller: &Caller,
        choice: &LockChoice,
    ) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(Event::SelectLocks)?;
        let family = self.issuing_family(number)?;
        let (all, entries) = match choice {
            LockChoice::All => {
                let count = self.lock_count(family)?;
                let job = self.job(number)?;
                job.locks = Arc::default();
                return Ok(job.wizard.select_locks(Selection { all: true, count })?);
            }
            LockChoice::These(names) => (false, self.entries(family, names)?),
        };
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let job = self.job(number)?;
        job.wizard.select_locks(Selection { all, count })?;
        job.locks = entries.into();
        Ok(())
    }

    /// The chosen Locks, sorted: at least one.
    pub(super) fn entries(&self, family: Id, names: &LockNames) -> Result<Vec<LockEntry>, Error> {
        let entries = self.named(family, names)?;
        if entries.is_empty() {
            return Err(Error::InvalidArgument(
                "no Lock is selected; name at least one, a group that has one, or all".into(),
            ));
        }
        Ok(entries)
    }

    /// The family that a serialization's issuer issues for.
    pub(super) fn issuing_family(&self, number: u64) -> Result<Id, Error> {
        let issuer = self.serializations.get(&number).and_then(|job| job.issuer.as_ref());
        let family = issuer
            .and_then(|issuer| self.keys.get(issuer))
            .and_then(|key| key.claims.family.or_else(|| key.memberships.first().copied()));
        family.map(|(family, _)| family).ok_or(Error::Pair(Reason::NotAnIssuer))
    }

    /// A page of the Locks that are selected, for ListLocks.
    pub fn selected_locks(
        &mut self,
        number: u64,
        after: Option<Id>,
        limit: u32,
        reply: Reply<Vec<Id>>,
    ) {
        let result = self.selected_page(number, after, limit as usize);
        reply.answer(self, result);
    }

    fn selected_page(
        &self,
        number: u64,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Vec<Id>, Error> {
        let job = self.serializations.get(&number);
        let job = job.ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        if job.wizard.selection().all && job.locks.is_empty() {
            let filter = Filter { family: Some(self.issuing_family(number)?), query: None };
            let page = self.registry.locks_page(&filter, after, limit)?;
            let mut found: Vec<Id> = page.items.into_iter().map(|(lock, _)| lock).collect();
            if found.is_empty() {
                let carried = self.carried(self.issuing_family(number)?).into_iter();
                let later = carried.map(|entry| entry.lock);
                found = later.filter(|lock| after.is_none_or(|after| *lock > after)).collect();
                found.truncate(limit);
            }
            return Ok(found);
        }
        let start = after.map_or(0, |after| job.locks.partition_point(|e| e.lock <= after));
        let allowed = job.locks[start..].iter().filter(|entry| entry.allow);
        Ok(allowed.take(limit).map(|entry| entry.lock).collect())
    }

    /// The Locks that are selected now.
    pub(super) fn selection(&self, number: u64) -> Result<Vec<LockEntry>, Error> {
        let job = self.serializations.get(&number);
        let job = job.ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        if job.wizard.selection().all && job.locks.is_empty() {
            return self.lock_entries(self.issuing_family(number)?);
        }
        Ok(job.locks.iter().filter(|entry| entry.allow).copied().collect())
    }

    /// The Locks of the Key's newest statement that are not among these. They have to be denied: a
    /// Lock of which the next statement said nothing would go on admitting the Key.
    pub(super) fn dropped(
        &self,
        number: u64,
        selected: &[LockEntry],
    ) -> Result<Vec<LockEntry>, Error> {
        let candidate = self.serializations.get(&number).map(|job| &job.candidate);
        let key = candidate.and_then(|candidate| self.keys.get(candidate));
        let Some(id) = key.and_then(|key| key.id) else { return Ok(Vec::new()) };
        let family = self.issuing_family(number)?;
        let words = self.moment().words(&self.registry, id, family)?;
        let mut entries = in_force(&words, true);
        self.forget_removed(family, &mut entries)?;
        let mut known: Vec<LockEntry> = entries.into_values().collect();
        known.retain(|known| selected.binary_search_by_key(&known.lock, |e| e.lock).is_err());
        Ok(known)
    }
}

pub(super) fn too_many(count: usize) -> Result<(), Error> {
    if count > MOST_LOCKS {
        return Err(Error::LimitExceeded(format!(
            "{count} Locks are more than the {MOST_LOCKS} that one Key can be given at once; select fewer"
        )));
    }
    Ok(())
}
