//! The index of statements by their digest: confirmations name the statement that they confirm by its digest.

use keywright_proto::{Id, statement, tree::Hash};

use super::{
    Batch, Registry,
    changes::Changes,
    error::RegistryError,
    layout::Table,
    records::{Statement, StatementRef},
};

impl Registry {
    /// The statement or revocation with this digest, if one was ever put here, even if it is not kept any more.
    pub fn statement_by_digest(
        &self,
        digest: &Hash,
    ) -> Result<Option<StatementRef>, RegistryError> {
        self.view()?.record(&Table::StatementDigests.with(&[digest]))
    }
}

impl Batch {
    /// Puts only the digest of a statement that is not kept, so that confirmations of it are understood.
    pub fn put_statement_digest(
        &mut self,
        key: Id,
        family: Id,
        statement: &Statement,
    ) -> &mut Self {
        let (version, cose) = (statement.version, statement.cose.clone());
        self.write(move |_, changes| index_digest(changes, key, family, version, &cose))
    }
}

/// Adds a statement to the index. One that cannot be parsed has no digest and is left out.
pub(super) fn index_digest(
    changes: &mut Changes,
    key: Id,
    family: Id,
    version: Option<u64>,
    cose: &[u8],
) -> Result<(), RegistryError> {
    match statement::digest(cose) {
        Some(digest) => {
            let known = StatementRef { key, family, version };
            changes.put(Table::StatementDigests.with(&[&digest]), &known)
        }
        None => Ok(()),
    }
}
