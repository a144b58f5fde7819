//! The newest statement on each Key, its Locks in chunks, and what Locks confirmed.

use keywright_proto::Id;

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    layout::{Table, end_of},
    page::{Page, page},
    records::{Confirmation, LockEntry, Scope, Statement},
    view::View,
};

/// Entries in a chunk: with 49 bytes each it is one value of less than 7 KiB.
const CHUNK: usize = 140;

/// A chunk's key and its entries.
type Chunk = (Vec<u8>, Vec<LockEntry>);

impl Registry {
    /// The newest statement on a Key in a family.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn statement(&self, key: Id, family: Id) -> Result<Option<Statement>, RegistryError> {
        self.view()?.record(&Table::Statements.of_two(key, family))
    }

    /// The Locks listed in that statement, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read; `Damaged` too where some of them are lost.
    pub fn statement_entries(&self, key: Id, family: Id) -> Result<Vec<LockEntry>, RegistryError> {
        let view = self.view()?;
        let statement: Option<Statement> = view.record(&Table::Statements.of_two(key, family))?;
        let entries = read_entries(&view, &Table::StatementEntries.of_two(key, family))?;
        match statement.map(|statement| statement.scope) {
            Some(Scope::Listed(count)) if count as usize != entries.len() => Err(
                RegistryError::damaged(format!("the statement on Key {key} has lost some Locks")),
            ),
            _ => Ok(entries),
        }
    }

    /// Those after an id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn statement_entries_page(
        &self,
        key: Id,
        family: Id,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Page<(Id, LockEntry)>, RegistryError> {
        let view = self.view()?;
        let prefix = Table::StatementEntries.of_two(key, family);
        let start = match after {
            Some(after) => chunk_of(&view, &prefix, after)?.map_or(prefix.clone(), |(key, _)| key),
            None => prefix.clone(),
        };
        let entries = view.scan(start, end_of(&prefix)).flat_map(|record| {
            match record.and_then(|(_, payload)| codec::decode::<Vec<LockEntry>>(&payload)) {
                Ok(chunk) => chunk.into_iter().map(|entry| Ok((entry.lock, entry))).collect(),
                Err(error) => vec![Err(error)],
            }
        });
        let wanted = entries.filter(|entry| {
            entry.as_ref().map_or(true, |(lock, _)| after.is_none_or(|after| *lock > after))
        });
        page(wanted, limit)
    }

    /// One of them.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn statement_entry(
        &self,
        key: Id,
        family: Id,
        lock: Id,
    ) -> Result<Option<LockEntry>, RegistryError> {
        let chunk = chunk_of(&self.view()?, &Table::StatementEntries.of_two(key, family), lock)?;
        Ok(chunk.and_then(|(_, entries)| {
            let position = entries.binary_search_by_key(&lock, |entry| entry.lock).ok()?;
            entries.get(position).copied()
        }))
    }

    /// All that Locks last confirmed about a Key, by Lock.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn confirmations(&self, key: Id) -> Result<Vec<(Id, Confirmation)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::Confirmations.of(key))
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }

    /// What a Lock last confirmed about a Key.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn confirmation(&self, key: Id, lock: Id) -> Result<Option<Confirmation>, RegistryError> {
        self.view()?.record(&Table::Confirmations.of_two(key, lock))
    }
}

/// Puts entries under a prefix, in place of those that were there.
pub(super) fn put_entries(
    view: &View<'_>,
    changes: &mut Changes,
    prefix: Vec<u8>,
    mut entries: Vec<LockEntry>,
) -> Result<(), RegistryError> {
    entries.sort_unstable();
    changes.remove_all(view, prefix.clone())?;
    for chunk in entries.chunks(CHUNK) {
        let first = chunk.first().map(|entry| *entry.lock.as_bytes()).unwrap_or_default();
        changes.put([&*prefix, &first].concat(), &chunk)?;
    }
    Ok(())
}

/// All entries under a prefix, sorted.
pub(super) fn read_entries(
    view: &View<'_>,
    prefix: &[u8],
) -> Result<Vec<LockEntry>, RegistryError> {
    let mut entries = Vec::new();
    for record in view.all(prefix.to_vec()) {
        entries.extend(codec::decode::<Vec<LockEntry>>(&record?.1)?);
    }
    Ok(entries)
}

/// The chunk that a Lock is in, if it is in any, with its key.
fn chunk_of(view: &View<'_>, prefix: &[u8], lock: Id) -> Result<Option<Chunk>, RegistryError> {
    let after = [prefix, lock.as_bytes(), &[0]].concat();
    let chunk = view.last(prefix.to_vec(), after)?;
    chunk.map(|(key, payload)| Ok((key.to_vec(), codec::decode(&payload)?))).transpose()
}
