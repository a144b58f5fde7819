//! Locks. Lists and searches read only a summary of each, without its certificate.

use keywright_proto::Id;
use sha2::{Digest, Sha256};
use sled::IVec;

use super::{
    Batch, Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    layout::{Table, end_of, id_at_end},
    page::{Filter, Page, Query, page, start_after},
    records::{Lock, LockEntry, LockSummary},
    view::View,
};

impl Registry {
    /// A Lock.
    pub fn lock(&self, lock: Id) -> Result<Option<Lock>, RegistryError> {
        self.view()?.record(&Table::Locks.of(lock))
    }

    /// Locks after the id `after`, in the order of ids.
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
        // Merged by id. An error sorts first, so that it ends the page at once.
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

    /// An allowing entry for every Lock of a family, by id.
    pub fn lock_entries(&self, family: Id) -> Result<Vec<LockEntry>, RegistryError> {
        let view = self.view()?;
        view.all(Table::LocksByFamily.of(family))
            .map(|record| {
                let (key, payload) = record?;
                Ok(allowing_entry(id_at_end(&key)?, &codec::decode(&payload)?))
            })
            .collect()
    }

    /// An allowing entry for one Lock of a family.
    pub fn lock_entry(&self, family: Id, lock: Id) -> Result<Option<LockEntry>, RegistryError> {
        Ok(self.lock_summary(family, lock)?.map(|summary| allowing_entry(lock, &summary)))
    }

    /// What lists show of one Lock of a family.
    pub fn lock_summary(&self, family: Id, lock: Id) -> Result<Option<LockSummary>, RegistryError> {
        self.view()?.record(&Table::LocksByFamily.of_two(family, lock))
    }
}

impl Batch {
    /// Puts a Lock. Its family is there, or was put before it.
    pub fn put_lock(&mut self, id: Id, lock: Lock) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let old = put_lock(view, changes, id, &lock)?;
            let is_same =
                |old: &Lock| old.certificate == lock.certificate && old.issuer == lock.issuer;
            if !old.as_ref().is_some_and(is_same) {
                changes.certificates.locks.insert(id);
            }
            Ok(())
        })
    }
}

/// Puts a Lock and its summary, and answers the record that was there before.
pub(super) fn put_lock(
    view: &View<'_>,
    changes: &mut Changes,
    id: Id,
    lock: &Lock,
) -> Result<Option<Lock>, RegistryError> {
    let old = changes.record::<Lock>(view, &Table::Locks.of(id))?;
    if let Some(old) = &old {
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
    changes.put(Table::Locks.of(id), lock)?;
    Ok(old)
}

/// A Lock's summary, if it matches the query. It is decoded only then.
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

fn allowing_entry(lock: Id, summary: &LockSummary) -> LockEntry {
    LockEntry { lock, key_hash: summary.key_hash, allow: true }
}
