//! Families and their issuing keys.

use keywright_proto::Id;
use sha2::{Digest, Sha256};

use super::{
    Batch, Registry,
    changes::Changes,
    error::RegistryError,
    found_issuers::{self, Origin},
    layout::Table,
    records::{Family, Issuer},
    view::View,
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

    /// All CA certificates (DER) of a family that were ever put here, the root included. An issuing key may have several.
    pub fn ca_certificates(&self, family: Id) -> Result<Vec<Vec<u8>>, RegistryError> {
        self.view()?.records(Table::CaCertificates.of(family))
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

    /// Puts an issuing key, by the id of that key. The certificates of its chain are kept also when it gets another one.
    pub fn put_issuer(&mut self, ca: Id, issuer: Issuer) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let old: Option<Issuer> = changes.record(view, &Table::Issuers.of(ca))?;
            // Every certificate below a new CA is new itself, so only another chain is noted.
            match old {
                Some(old) if old.chain != issuer.chain => {
                    changes.certificates.issuers.insert(ca);
                }
                Some(_) => {}
                None => found_issuers::note(view, changes, issuer.family, ca, Origin::Key)?,
            }
            for certificate in &issuer.chain {
                keep_ca_certificate(view, changes, issuer.family, certificate)?;
            }
            changes.put(Table::Issuers.of(ca), &issuer)
        })
    }

    /// Puts a CA certificate (DER) of a family, beside those that its key has.
    pub fn put_ca_certificate(&mut self, family: Id, certificate: Vec<u8>) -> &mut Self {
        self.exchanged()
            .write(move |view, changes| keep_ca_certificate(view, changes, family, &certificate))
    }

    /// Puts the self-signed certificate (DER) of an issuing key of a family.
    pub fn put_root(&mut self, family: Id, ca: Id, root: Vec<u8>) -> &mut Self {
        self.exchanged().put(Table::Roots.of_two(family, ca), root)
    }
}

fn keep_ca_certificate(
    view: &View<'_>,
    changes: &mut Changes,
    family: Id,
    certificate: &Vec<u8>,
) -> Result<(), RegistryError> {
    let digest = Sha256::digest(certificate);
    let place = Table::CaCertificates.with(&[family.as_bytes(), &digest]);
    match changes.get(view, &place)? {
        Some(_) => Ok(()),
        None => changes.put(place, certificate),
    }
}
