//! Families and their issuing keys.

use keywright_proto::Id;

use super::{
    Registry, codec,
    error::RegistryError,
    layout::{Table, last_id},
    records::{Family, Issuer},
};

impl Registry {
    /// A pinned family.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn family(&self, family: Id) -> Result<Option<Family>, RegistryError> {
        self.view()?.record(&Table::Families.of(family))
    }

    /// All pinned families, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn families(&self) -> Result<Vec<(Id, Family)>, RegistryError> {
        self.every(Table::Families)
    }

    /// An issuing key, by the id of that key.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn issuer(&self, ca: Id) -> Result<Option<Issuer>, RegistryError> {
        self.view()?.record(&Table::Issuers.of(ca))
    }

    /// The issuing keys of a family, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn issuers_of(&self, family: Id) -> Result<Vec<(Id, Issuer)>, RegistryError> {
        let mut issuers: Vec<(Id, Issuer)> = self.every(Table::Issuers)?;
        issuers.retain(|(_, issuer)| issuer.family == family);
        Ok(issuers)
    }

    fn every<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(Id, T)>, RegistryError> {
        let view = self.view()?;
        view.all(table.key())
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }
}

/// The id at the end of a stored key.
pub(super) fn id_at_end(key: &[u8]) -> Result<Id, RegistryError> {
    last_id(key).ok_or_else(|| RegistryError::damaged("a record's key is too short"))
}
