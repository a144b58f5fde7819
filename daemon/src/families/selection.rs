//! Resolves Locks as callers name them, and what a selection of them means for a Key.

use keywright_proto::{Effect, Id};

use super::{Families, Present, statements::in_force};
use crate::{
    error::Error,
    registry::{Filter, records::LockEntry},
};

/// The most Locks in one statement.
const MOST_LOCKS: usize = 100_000;

/// The most bytes of warnings in a review about rights that are not copied: those of some 50,000 Locks. The bus
/// disconnects a peer that sends 32 MiB at once.
const MOST_NAMED: usize = 4 << 20;

/// Locks as a caller names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockNames {
    /// Ids of Locks.
    pub ids: Vec<Id>,
    /// Names of groups.
    pub groups: Vec<String>,
}

impl LockNames {
    /// Whether no Lock and no group is named.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.groups.is_empty()
    }
}

impl Families {
    /// The named Locks, sorted. At least one has to be named.
    ///
    /// # Errors
    /// `InvalidArgument`: none, or one twice. `NotFound`: no such Lock or group in the family. `LimitExceeded`.
    pub fn entries(
        &self,
        family: Id,
        names: &LockNames,
        present: &Present<'_>,
    ) -> Result<Vec<LockEntry>, Error> {
        let entries = self.named(family, names, present)?;
        if entries.is_empty() {
            return Err(Error::InvalidArgument(
                "no Lock is selected; name at least one, a group that has one, or all".into(),
            ));
        }
        Ok(entries)
    }

    /// The named Locks, sorted; may be empty. Each id has to belong to the family and be named once, and each group has
    /// to exist. A Lock that is both in a group and named, or in two groups, is returned once.
    pub(super) fn named(
        &self,
        family: Id,
        names: &LockNames,
        present: &Present<'_>,
    ) -> Result<Vec<LockEntry>, Error> {
        too_many(names.ids.len())?;
        let mut entries = Vec::with_capacity(names.ids.len());
        for id in &names.ids {
            let known = self.registry.lock_entry(family, *id)?;
            let carried = || self.carried(family, present).into_iter().find(|e| e.lock == *id);
            let entry = known.or_else(carried);
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
            for lock in self.locks_in(family, group)? {
                entries.extend(self.registry.lock_entry(family, lock)?);
            }
        }
        entries.sort_by_key(|entry| entry.lock);
        entries.dedup_by_key(|entry| entry.lock);
        too_many(entries.len())?;
        Ok(entries)
    }

    /// Every Lock of a family: those in the registry, or if there are none, those on the card of a plugged-in Key.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn lock_entries(&self, family: Id, present: &Present<'_>) -> Result<Vec<LockEntry>, Error> {
        let known = self.registry.lock_entries(family)?;
        Ok(if known.is_empty() { self.carried(family, present) } else { known })
    }

    /// The number of these Locks.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn lock_count(&self, family: Id, present: &Present<'_>) -> Result<u32, Error> {
        let known = self.registry.family(family)?.map_or(0, |family| family.locks);
        let carried = || u32::try_from(self.carried(family, present).len()).unwrap_or(u32::MAX);
        Ok(if known == 0 { carried() } else { known })
    }

    /// A page of these Locks, by id.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn locks_page(
        &self,
        family: Id,
        after: Option<Id>,
        limit: usize,
        present: &Present<'_>,
    ) -> Result<Vec<Id>, Error> {
        let filter = Filter { family: Some(family), query: None };
        let page = self.registry.locks_page(&filter, after, limit)?;
        let found: Vec<Id> = page.items.into_iter().map(|(lock, _)| lock).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let carried = self.carried(family, present).into_iter().map(|entry| entry.lock);
        let later = carried.filter(|lock| after.is_none_or(|after| *lock > after));
        Ok(later.take(limit).collect())
    }

    /// The Locks of a Key's newest statement that are not among the selected ones. `selected` is sorted. The next
    /// statement has to deny them, because a Lock that it does not name goes on admitting the Key.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn dropped(
        &self,
        key: Id,
        family: Id,
        selected: &[LockEntry],
    ) -> Result<Vec<LockEntry>, Error> {
        let statements = self.moment().statements(&self.registry, key, family)?;
        let mut entries = in_force(&statements, true);
        self.forget_removed(family, &mut entries)?;
        let mut known: Vec<LockEntry> = entries.into_values().collect();
        known.retain(|known| selected.binary_search_by_key(&known.lock, |e| e.lock).is_err());
        Ok(known)
    }

    /// The rights of a Key in a family, one by one, as warnings of a review: a Backup Key of this Key in another family
    /// does not get them.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn not_copied(&self, key: Id, family: Id) -> Result<Vec<(String, String)>, Error> {
        let statements = self.moment().statements(&self.registry, key, family)?;
        let removed = self.registry.removed_locks(family)?;
        let allowed = statements.locks(&self.registry, family)?.into_iter().filter(|lock| {
            removed.iter().all(|(removed, _)| removed != lock)
                && statements
                    .in_effect_at(*lock)
                    .is_some_and(|(newest, _)| newest.effect == Effect::Allow)
        });
        let warning = |text| ("right-not-copied".to_owned(), text);
        let (mut named, mut bytes, mut more) = (Vec::new(), 0, 0_u32);
        for lock in allowed {
            if bytes > MOST_NAMED {
                more += 1;
                continue;
            }
            let known = self.registry.lock_summary(family, lock)?;
            let name = known.map(|known| known.name).unwrap_or_default();
            let text = format!("Lock \"{name}\" ({lock}) of family {family}");
            bytes += text.len();
            named.push(warning(text));
        }
        if more > 0 {
            let text = format!("{more} more Locks of family {family}; ListRights has all");
            named.push(warning(text));
        }
        Ok(named)
    }
}

/// Refuses more Locks than one statement may have.
///
/// # Errors
/// `LimitExceeded`.
pub fn too_many(count: usize) -> Result<(), Error> {
    if count > MOST_LOCKS {
        return Err(Error::LimitExceeded(format!(
            "{count} Locks are more than the {MOST_LOCKS} that one Key can be given at once; select fewer"
        )));
    }
    Ok(())
}
