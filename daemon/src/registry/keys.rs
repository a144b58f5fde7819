//! Keys, and their memberships in families.

use std::collections::BTreeSet;

use keywright_proto::Id;
use sha2::{Digest, Sha256};

use super::{
    Batch, Registry,
    error::RegistryError,
    layout::{Table, end_of, id_at_end},
    page::{Filter, Page, Query, page, start_after},
    records::{Key, Membership},
    view::View,
};

impl Registry {
    /// A known Key.
    pub fn key(&self, key: Id) -> Result<Option<Key>, RegistryError> {
        self.view()?.record(&Table::Keys.of(key))
    }

    /// At most `limit` Keys, the last seen first.
    pub fn known_keys(&self, limit: usize) -> Result<Vec<(Id, Key)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::KeysBySeen.key())
            .take(limit)
            .map(|record| read_key(&view, id_at_end(&record?.0)?))
            .collect()
    }

    /// The memberships of a Key, by family.
    pub fn memberships(&self, key: Id) -> Result<Vec<(Id, Membership)>, RegistryError> {
        self.view()?.records_by_id(Table::Memberships.of(key))
    }

    /// The membership of a Key in one family.
    pub fn membership(&self, key: Id, family: Id) -> Result<Option<Membership>, RegistryError> {
        self.view()?.record(&Table::Memberships.of_two(key, family))
    }

    /// The memberships in a family, by Key. The records of the Keys are not read. A membership whose record is damaged is left
    /// out, so nothing that has to be complete may rely on this.
    pub fn members(&self, family: Id) -> Result<Vec<(Id, Membership)>, RegistryError> {
        let view = self.view()?;
        let member = |record: Result<(sled::IVec, sled::IVec), RegistryError>| {
            let key = id_at_end(&record?.0)?;
            let own = view.record(&Table::Memberships.of_two(key, family));
            let own =
                RegistryError::skip_damaged(own, format_args!("the membership of Key {key}"))?;
            Ok(own.flatten().map(|own| (key, own)))
        };
        view.all(Table::KeysByFamily.of(family)).filter_map(|key| member(key).transpose()).collect()
    }

    /// The Keys of a family. Neither their records nor their memberships are read.
    pub fn member_ids(&self, family: Id) -> Result<Vec<Id>, RegistryError> {
        let keys = self.view()?.all(Table::KeysByFamily.of(family)).collect::<Vec<_>>();
        keys.into_iter().map(|record| id_at_end(&record?.0)).collect()
    }

    /// Like [`Self::member_ids`], at most `limit` after the id `after`.
    pub fn member_ids_page(
        &self,
        family: Id,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Page<(Id, ())>, RegistryError> {
        let view = self.view()?;
        let prefix = Table::KeysByFamily.of(family);
        let keys = view.scan(start_after(&prefix, after), end_of(&prefix));
        page(keys.map(|record| Ok((id_at_end(&record?.0)?, ()))), limit)
    }

    /// The access certificates (DER) of a Key in a family: the one of its membership first.
    pub fn access_certificates(&self, key: Id, family: Id) -> Result<Vec<Vec<u8>>, RegistryError> {
        let view = self.view()?;
        let own: Option<Membership> = view.record(&Table::Memberships.of_two(key, family))?;
        let others = view.records(Table::OtherCertificates.of_two(family, key))?;
        Ok(own.map(|own| own.certificate).into_iter().chain(others).collect())
    }

    /// The Keys of a family that have several access certificates in it.
    pub fn keys_with_several_certificates(
        &self,
        family: Id,
    ) -> Result<BTreeSet<Id>, RegistryError> {
        let key = |place: &[u8]| {
            let id = place.get(17..33).and_then(|id| id.first_chunk().copied());
            let short = || RegistryError::damaged("the key of an access certificate is too short");
            id.map(Id::from_bytes).ok_or_else(short)
        };
        self.view()?.all(Table::OtherCertificates.of(family)).map(|r| key(&r?.0)).collect()
    }

    /// Keys after the id `after`, in the order of ids.
    pub fn keys_page(
        &self,
        filter: &Filter,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Page<(Id, Key)>, RegistryError> {
        let view = self.view()?;
        let query = Query::new(filter);
        let prefix = match filter.family {
            Some(family) => Table::KeysByFamily.of(family),
            None => Table::Keys.key(),
        };
        let keys = view
            .scan(start_after(&prefix, after), end_of(&prefix))
            .map(|record| read_key(&view, id_at_end(&record?.0)?))
            .filter(|key| key.as_ref().map_or(true, |(id, key)| query.matches(*id, &key.name)));
        page(keys, limit)
    }
}

impl Batch {
    /// Puts a Key, and its place in the order of last seen Keys.
    pub fn put_key(&mut self, id: Id, key: Key) -> &mut Self {
        self.write(move |view, changes| {
            if let Some(old) = changes.record::<Key>(view, &Table::Keys.of(id))? {
                changes.remove(seen_key(&old, id));
            }
            changes.put_bytes(seen_key(&key, id), Vec::new());
            changes.put(Table::Keys.of(id), &key)
        })
    }

    /// Puts the membership of a Key in a family. The access certificate that it had before is kept beside the new one.
    pub fn put_membership(&mut self, key: Id, family: Id, membership: Membership) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let place = Table::Memberships.of_two(key, family);
            let old: Option<Membership> = changes.record(view, &place)?;
            if let Some(old) = old.filter(|old| old.certificate != membership.certificate) {
                changes.put(other_place(key, family, &old.certificate), &old.certificate)?;
            }
            let other = other_place(key, family, &membership.certificate);
            if changes.get(view, &other)?.is_some() {
                changes.remove(other);
            }
            changes.put_bytes(Table::KeysByFamily.of_two(family, key), Vec::new());
            changes.put(place, &membership)
        })
    }

    /// Puts an access certificate (DER) of a member of a family, beside those that it has.
    pub fn put_access_certificate(
        &mut self,
        key: Id,
        family: Id,
        certificate: Vec<u8>,
    ) -> &mut Self {
        self.exchanged().write(move |view, changes| {
            let place = Table::Memberships.of_two(key, family);
            let own: Option<Membership> = changes.record(view, &place)?;
            match own.is_some_and(|own| own.certificate == certificate) {
                true => Ok(()),
                false => changes.put(other_place(key, family, &certificate), &certificate),
            }
        })
    }
}

/// Where an access certificate is stored beside the one of the membership.
fn other_place(key: Id, family: Id, certificate: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(certificate);
    Table::OtherCertificates.with(&[family.as_bytes(), key.as_bytes(), &digest])
}

/// Where a Key is in the order of last seen Keys.
fn seen_key(key: &Key, id: Id) -> Vec<u8> {
    Table::KeysBySeen.with(&[&(!key.last_seen).to_be_bytes(), id.as_bytes()])
}

fn read_key(view: &View<'_>, id: Id) -> Result<(Id, Key), RegistryError> {
    let key = view.record(&Table::Keys.of(id))?;
    key.map(|key| (id, key)).ok_or_else(|| RegistryError::damaged(format!("Key {id} is missing")))
}
