//! Locks. Lists and searches read a summary each, and leave the certificates alone.

use keywright_proto::Id;
use sha2::{Digest, Sha256};
use sled::IVec;

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    layout::{Table, end_of},
    page::{Filter, Page, Query, page, start_after},
    records::{Lock, LockEntry, LockSummary},
    view::View,
};

impl Registry {
    /// A Lock.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn lock(&self, lock: Id) -> Result<Option<Lock>, RegistryError> {
        self.view()?.record(&Table::Locks.of(lock))
    }

    /// Locks after an id, in the order of ids.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn locks_page(
        &self,
        filter: &Filter,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Page<(Id, LockSummary)>, RegistryError> {
        let view = self.view()?;
        let query = Query::new(filter);
        let families = match filter.family {
            Some(family) => vec![family],
            None => view
                .all(Table::Families.key())
                .map(|record| id_at_end(&record?.0))
                .collect::<Result<_, _>>()?,
        };
        let mut ranges: Vec<_> = families
            .into_iter()
            .map(|family| {
                let prefix = Table::LocksByFamily.of(family);
                let range = view.scan(start_after(&prefix, after), end_of(&prefix));
                range
                    .map(|record| record.and_then(|(key, lock)| Ok((id_at_end(&key)?, lock))))
                    .peekable()
            })
            .collect();
        // Merged by id. An error counts as the least, so that it is met at once.
        let merged = std::iter::from_fn(|| {
            let firsts = ranges.iter_mut().enumerate().filter_map(|(number, range)| {
                Some((range.peek()?.as_ref().ok().map(|(id, _)| *id), number))
            });
            let (_, number) = firsts.min()?;
            ranges.get_mut(number)?.next()
        });
        let found = merged.filter_map(|record| summary_if(record, &query).transpose());
        page(found, limit)
    }

    /// Every Lock of a family, as entries that allow.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn lock_entries(&self, family: Id) -> Result<Vec<LockEntry>, RegistryError> {
        let view = self.view()?;
        view.all(Table::LocksByFamily.of(family))
            .map(|record| {
                let (key, payload) = record?;
                Ok(entry(id_at_end(&key)?, &codec::decode(&payload)?))
            })
            .collect()
    }

    /// One Lock of a family, as an entry that allows.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn lock_entry(&self, family: Id, lock: Id) -> Result<Option<LockEntry>, RegistryError> {
        Ok(self.lock_summary(family, lock)?.map(|summary| entry(lock, &summary)))
    }

    /// What lists show of a Lock of this family.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn lock_summary(&self, family: Id, lock: Id) -> Result<Option<LockSummary>, RegistryError> {
        self.view()?.record(&Table::LocksByFamily.of_two(family, lock))
    }
}

/// Puts a Lock and its summary.
pub(super) fn put_lock(
    view: &View<'_>,
    changes: &mut Changes,
    id: Id,
    lock: &Lock,
) -> Result<(), RegistryError> {
    if let Some(old) = changes.record::<Lock>(view, &Table::Locks.of(id))? {
        changes.remove(Table::LocksByFamily.of_two(old.family, id));
    }
    let summary = LockSummary {
        family: lock.family,
        name: lock.name.clone(),
        key_hash: Sha256::digest(&lock.identity_key).into(),
        online: lock.online,
        last_seen: lock.last_seen,
    };
    changes.put(Table::LocksByFamily.of_two(lock.family, id), &summary)?;
    changes.put(Table::Locks.of(id), lock)
}

/// A Lock's summary, decoded only if its name or id is what is looked for.
fn summary_if(
    record: Result<(Id, IVec), RegistryError>,
    query: &Query,
) -> Result<Option<(Id, LockSummary)>, RegistryError> {
    let (id, payload) = record?;
    if query.is_empty() || query.matches(id, codec::leading_text(&payload)?) {
        Ok(Some((id, codec::decode(&payload)?)))
    } else {
        Ok(None)
    }
}

fn entry(lock: Id, summary: &LockSummary) -> LockEntry {
    LockEntry { lock, key_hash: summary.key_hash, allow: true }
}
