//! Families and their issuing keys.

use keywright_proto::Id;

use super::{
    Batch, Registry,
    error::RegistryError,
    layout::Table,
    records::{Family, Issuer},
};

impl Registry {
    /// A pinned family.
    pub fn family(&self, family: Id) -> Result<Option<Family>, RegistryError> {
        self.view()?.record(&Table::Families.of(family))
    }

    /// All pinned families, by id.
    pub fn families(&self) -> Result<Vec<(Id, Family)>, RegistryError> {
        self.view()?.records_by_id(Table::Families.key())
    }

    /// An issuing key, by the id of that key.
    pub fn issuer(&self, ca: Id) -> Result<Option<Issuer>, RegistryError> {
        self.view()?.record(&Table::Issuers.of(ca))
    }

    /// The issuing keys of a family, by id.
    pub fn issuers_of(&self, family: Id) -> Result<Vec<(Id, Issuer)>, RegistryError> {
        let mut issuers: Vec<(Id, Issuer)> = self.view()?.records_by_id(Table::Issuers.key())?;
        issuers.retain(|(_, issuer)| issuer.family == family);
        Ok(issuers)
    }

    /// The self-signed certificates (DER) of a family's issuing keys, by the id of the issuing key. They sign one when
    /// the Master of their family is revoked.
    pub fn roots(&self, family: Id) -> Result<Vec<(Id, Vec<u8>)>, RegistryError> {
        self.view()?.records_by_id(Table::Roots.of(family))
    }
}

impl Batch {
    /// Puts a family. The caller keeps its count of Locks.
    pub fn put_family(&mut self, id: Id, family: Family) -> &mut Self {
        self.exchanged().put(Table::Families.of(id), family)
    }

    /// Puts an issuing key, by the id of that key.
    pub fn put_issuer(&mut self, ca: Id, issuer: Issuer) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let old: Option<Issuer> = changes.record(view, &Table::Issuers.of(ca))?;
            // Every certificate below a new CA is new itself, so only another chain is noted.
            if old.is_some_and(|old| old.chain != issuer.chain) {
                changes.certificates.issuers.insert(ca);
            }
            changes.put(Table::Issuers.of(ca), &issuer)
        })
    }

    /// Puts the self-signed certificate (DER) of an issuing key of a family.
    pub fn put_root(&mut self, family: Id, ca: Id, root: Vec<u8>) -> &mut Self {
        self.exchanged().put(Table::Roots.of_two(family, ca), root)
    }
}
