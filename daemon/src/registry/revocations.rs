//! Revocations of Keys, whether they are in force or not.

use keywright_proto::{Id, statement};

use super::{
    Batch, Registry, error::RegistryError, layout::Table, records::Revocation,
    statement_digests::index_digest, uptime::put_uptime,
};

impl Registry {
    /// The revocations that this station has received in a family, whether they are in force or not.
    pub fn revocations(&self, family: Id) -> Result<Vec<Revocation>, RegistryError> {
        self.view()?.records(Table::Revocations.of(family))
    }
}

impl Batch {
    /// Puts a revocation, by its digest. If it is there already, nothing changes: it keeps the time at which it was
    /// first seen.
    pub fn put_revocation(&mut self, family: Id, revocation: Revocation) -> &mut Self {
        self.notices.statements.push(revocation.key);
        self.exchanged().write(move |view, changes| {
            let Some(digest) = statement::digest(&revocation.cose) else { return Ok(()) };
            let place = Table::Revocations.with(&[family.as_bytes(), &digest]);
            if changes.get(view, &place)?.is_some() {
                return Ok(());
            }
            index_digest(changes, revocation.key, family, None, &revocation.cose)?;
            put_uptime(changes, family, &digest, changes.uptime)?;
            changes.put(place, &revocation)
        })
    }
}
