//! The newest statement on each Key in each family, and the Locks that it lists.

use keywright_proto::Id;

use super::{
    Batch, Registry,
    changes::Changes,
    chunks::{chunk_of, find_item, put_list, read_list},
    codec,
    error::RegistryError,
    layout::{Table, end_of},
    page::{Page, page},
    records::{LockEntry, Statement},
    removed_rights::update_removed_rights,
    statement_digests::index_digest,
    view::View,
};

impl Registry {
    /// The newest statement on a Key in a family.
    pub fn statement(&self, key: Id, family: Id) -> Result<Option<Statement>, RegistryError> {
        self.view()?.record(&Table::Statements.of_two(key, family))
    }

    /// The Locks that the newest statement lists, by id. `Damaged` too if some of them are lost.
    pub fn statement_entries(&self, key: Id, family: Id) -> Result<Vec<LockEntry>, RegistryError> {
        let view = self.view()?;
        let statement: Option<Statement> = view.record(&Table::Statements.of_two(key, family))?;
        let entries: Vec<_> = read_list(&view, Table::StatementEntries.of_two(key, family))?;
        match statement {
            Some(statement) if statement.listed as usize != entries.len() => Err(
                RegistryError::damaged(format!("the statement on Key {key} has lost some Locks")),
            ),
            _ => Ok(entries),
        }
    }

    /// At most `limit` of the Locks that the newest statement lists, after the id `after`.
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
            Some(after) => chunk_of(&view, prefix.clone(), after)?
                .map_or_else(|| prefix.clone(), |(key, _)| key.to_vec()),
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

    /// What the newest statement lists for one Lock.
    pub fn statement_entry(
        &self,
        key: Id,
        family: Id,
        lock: Id,
    ) -> Result<Option<LockEntry>, RegistryError> {
        find_item(&self.view()?, Table::StatementEntries.of_two(key, family), lock)
    }
}

impl Batch {
    /// Puts the newest statement on a Key in a family with the Locks that it lists (each at most once). It replaces
    /// the statement that is there, with its Locks.
    pub fn put_statement(
        &mut self,
        key: Id,
        family: Id,
        statement: Statement,
        entries: Vec<LockEntry>,
    ) -> &mut Self {
        self.notices.statements.push(key);
        self.exchanged().write(move |view, changes| {
            changes.put(Table::Statements.of_two(key, family), &statement)?;
            index_digest(changes, key, family, statement.version, &statement.cose)?;
            update_removed_rights(view, changes, key, family, statement.issued, &entries)?;
            put_entries(view, changes, Table::StatementEntries.of_two(key, family), entries)
        })
    }
}

/// Puts entries under a prefix; they replace those that are there.
pub(super) fn put_entries(
    view: &View<'_>,
    changes: &mut Changes,
    prefix: Vec<u8>,
    mut entries: Vec<LockEntry>,
) -> Result<(), RegistryError> {
    entries.sort_unstable();
    put_list(view, changes, prefix, &entries)
}
