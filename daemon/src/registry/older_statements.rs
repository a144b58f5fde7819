//! What is said beside the newest statement on a Key: older ones of other signers, revocations, the
//! Locks' own words, and by which statement's digest they are found.

use keywright_proto::{Id, statement, tree::Hash};

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    layout::{Table, end_of},
    records::{LockEntry, Revocation, SignedConfirmation, Statement, StatementRef},
    statements::{put_entries, read_entries},
    view::View,
};

/// A statement and its Locks.
pub type StatementWithEntries = (Statement, Vec<LockEntry>);

impl Registry {
    /// Statements on a Key that still count for something beside the newest one, with their Locks.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
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
                Ok((codec::decode(&payload)?, read_entries(&view, &entries)?))
            })
            .collect()
    }

    /// Whether there are any.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn has_older_statements(&self, key: Id, family: Id) -> Result<bool, RegistryError> {
        let prefix = Table::OlderStatements.of_two(key, family);
        Ok(self.view()?.last(prefix.clone(), end_of(&prefix))?.is_some())
    }

    /// The revocations in a family, whether they count or not.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn revocations(&self, family: Id) -> Result<Vec<Revocation>, RegistryError> {
        let view = self.view()?;
        view.all(Table::Revocations.of(family)).map(|record| codec::decode(&record?.1)).collect()
    }

    /// The root certificates that issuing keys of a family signed for themselves once its Master was revoked, by the
    /// id of the issuing key.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn roots(&self, family: Id) -> Result<Vec<(Id, Vec<u8>)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::Roots.of(family))
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }

    /// What a Lock last said about a Key, as it signed it.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn signed_confirmation(
        &self,
        key: Id,
        lock: Id,
    ) -> Result<Option<SignedConfirmation>, RegistryError> {
        self.view()?.record(&Table::SignedConfirmations.of_two(key, lock))
    }

    /// All that Locks last said about a Key, by Lock.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn signed_confirmations(
        &self,
        key: Id,
    ) -> Result<Vec<(Id, SignedConfirmation)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::SignedConfirmations.of(key))
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }

    /// The statement with this digest, of those that were ever put here.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn statement_by_digest(
        &self,
        digest: &Hash,
    ) -> Result<Option<StatementRef>, RegistryError> {
        self.view()?.record(&Table::Digests.with(&[digest]))
    }
}

/// Notes by which digest a statement is found.
pub(super) fn index_digest(
    changes: &mut Changes,
    key: Id,
    family: Id,
    version: Option<u64>,
    cose: &[u8],
) -> Result<(), RegistryError> {
    match statement::digest(cose) {
        Some(digest) => {
            changes.put(Table::Digests.with(&[&digest]), &StatementRef { key, family, version })
        }
        None => Ok(()),
    }
}

/// Puts a statement beside the newest one.
pub(super) fn put_older_statements(
    view: &View<'_>,
    changes: &mut Changes,
    key: Id,
    family: Id,
    statement: &Statement,
    entries: Vec<LockEntry>,
) -> Result<(), RegistryError> {
    let Some(digest) = statement::digest(&statement.cose) else { return Ok(()) };
    let place = Table::OlderStatements.of_two(key, family);
    let entries_at = Table::OlderEntries.with(&[&place[1..], &digest]);
    changes.put([&*place, &digest].concat(), statement)?;
    index_digest(changes, key, family, statement.version, &statement.cose)?;
    put_entries(view, changes, entries_at, entries)
}

/// Removes all of a Key's.
pub(super) fn remove_older(
    view: &View<'_>,
    changes: &mut Changes,
    key: Id,
    family: Id,
) -> Result<(), RegistryError> {
    changes.remove_all(view, Table::OlderStatements.of_two(key, family))?;
    changes.remove_all(view, Table::OlderEntries.of_two(key, family))
}

/// Puts a revocation; one that is there keeps the time at which it was first seen.
pub(super) fn put_revocation(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    revocation: Revocation,
) -> Result<(), RegistryError> {
    let Some(digest) = statement::digest(&revocation.cose) else { return Ok(()) };
    let place = Table::Revocations.with(&[family.as_bytes(), &digest]);
    if changes.get(view, &place)?.is_some() {
        return Ok(());
    }
    index_digest(changes, revocation.key, family, None, &revocation.cose)?;
    changes.put(place, &revocation)
}

/// Format 1 had no digests.
pub(super) fn index_digests(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    for record in view.all(Table::Statements.key()) {
        let (place, payload) = record?;
        let statement: Statement = codec::decode(&payload)?;
        let ids = place.get(1..17).zip(place.get(17..33));
        let ids =
            ids.and_then(|(key, family)| Some((key.try_into().ok()?, family.try_into().ok()?)));
        let (key, family) =
            ids.ok_or_else(|| RegistryError::damaged("a statement's key is too short"))?;
        let (key, family) = (Id::from_bytes(key), Id::from_bytes(family));
        index_digest(changes, key, family, statement.version, &statement.cose)?;
    }
    Ok(())
}
