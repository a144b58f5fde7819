//! Statements on a Key that are kept beside the newest one: each still says something about some Lock that no newer
//! statement of its signer says.

use keywright_proto::{Id, statement};

use super::{
    Batch, Registry,
    changes::Changes,
    chunks::read_list,
    codec,
    error::RegistryError,
    layout::Table,
    records::{LockEntry, Statement},
    statement_digests::index_digest,
    statements::put_entries,
    view::View,
};

/// A statement and the Locks that it lists.
pub type StatementWithEntries = (Statement, Vec<LockEntry>);

impl Registry {
    /// The statements on a Key that are kept beside the newest one.
    pub fn older_statements(
        &self,
        key: Id,
        family: Id,
    ) -> Result<Vec<StatementWithEntries>, RegistryError> {
        let view = self.view()?;
        let prefix = Table::OlderStatements.of_two(key, family);
        let found = view.all(prefix.clone()).collect::<Result<Vec<_>, _>>()?;
        found
            .into_iter()
            .map(|(stored, payload)| {
                let digest = stored.get(prefix.len()..).unwrap_or_default();
                let entries = Table::OlderEntries.with(&[&prefix[1..], digest]);
                Ok((codec::decode(&payload)?, read_list(&view, entries)?))
            })
            .collect()
    }

    /// All statements on a Key that are kept, the newest first; revocations are kept apart.
    pub fn all_statements(
        &self,
        key: Id,
        family: Id,
    ) -> Result<Vec<StatementWithEntries>, RegistryError> {
        let mut all = Vec::new();
        if let Some(newest) = self.statement(key, family)? {
            all.push((newest, self.statement_entries(key, family)?));
        }
        all.extend(self.older_statements(key, family)?);
        Ok(all)
    }

    /// Whether statements on a Key are kept beside the newest one.
    pub fn has_older_statements(&self, key: Id, family: Id) -> Result<bool, RegistryError> {
        self.view()?.has_any(Table::OlderStatements.of_two(key, family))
    }
}

impl Batch {
    /// Puts the statements on a Key that are kept beside the newest one; they replace those that are there.
    pub fn put_older_statements(
        &mut self,
        key: Id,
        family: Id,
        statements: Vec<StatementWithEntries>,
    ) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            changes.remove_all(view, Table::OlderStatements.of_two(key, family))?;
            changes.remove_all(view, Table::OlderEntries.of_two(key, family))?;
            statements.into_iter().try_for_each(|(statement, entries)| {
                put_older_statement(view, changes, (key, family), &statement, entries)
            })
        })
    }
}

/// Puts one of them, by its digest. One that cannot be parsed has no digest and is left out.
fn put_older_statement(
    view: &View<'_>,
    changes: &mut Changes,
    (key, family): (Id, Id),
    statement: &Statement,
    entries: Vec<LockEntry>,
) -> Result<(), RegistryError> {
    let Some(digest) = statement::digest(&statement.cose) else { return Ok(()) };
    let ids: [&[u8]; 3] = [key.as_bytes(), family.as_bytes(), &digest];
    changes.put(Table::OlderStatements.with(&ids), statement)?;
    index_digest(changes, key, family, statement.version, &statement.cose)?;
    put_entries(view, changes, Table::OlderEntries.with(&ids), entries)
}
