//! Keys, and what families say of them.

use keywright_proto::Id;

use super::{
    Registry,
    changes::Changes,
    codec,
    error::RegistryError,
    families::id_at_end,
    layout::{Table, end_of},
    page::{Filter, Page, Query, page, start_after},
    records::{Key, Membership},
    view::View,
};

impl Registry {
    /// A known Key.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn key(&self, key: Id) -> Result<Option<Key>, RegistryError> {
        self.view()?.record(&Table::Keys.of(key))
    }

    /// At most `limit` Keys, the last seen first.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn known_keys(&self, limit: usize) -> Result<Vec<(Id, Key)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::KeysBySeen.key())
            .take(limit)
            .map(|record| read_key(&view, id_at_end(&record?.0)?))
            .collect()
    }

    /// The families of a Key, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn memberships(&self, key: Id) -> Result<Vec<(Id, Membership)>, RegistryError> {
        let view = self.view()?;
        view.all(Table::Memberships.of(key))
            .map(|record| {
                let (key, payload) = record?;
                Ok((id_at_end(&key)?, codec::decode(&payload)?))
            })
            .collect()
    }

    /// What one family says of a Key.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn membership(&self, key: Id, family: Id) -> Result<Option<Membership>, RegistryError> {
        self.view()?.record(&Table::Memberships.of_two(key, family))
    }

    /// Keys after an id, in the order of ids.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
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

/// Puts a Key and its place among the last seen.
pub(super) fn put_key(
    view: &View<'_>,
    changes: &mut Changes,
    id: Id,
    key: &Key,
) -> Result<(), RegistryError> {
    if let Some(old) = changes.record::<Key>(view, &Table::Keys.of(id))? {
        changes.remove(by_seen(&old, id));
    }
    changes.put_bytes(by_seen(key, id), Vec::new());
    changes.put(Table::Keys.of(id), key)
}

/// Puts what a family says of a Key.
pub(super) fn put_membership(
    changes: &mut Changes,
    key: Id,
    family: Id,
    membership: &Membership,
) -> Result<(), RegistryError> {
    changes.put_bytes(Table::KeysByFamily.of_two(family, key), Vec::new());
    changes.put(Table::Memberships.of_two(key, family), membership)
}

fn by_seen(key: &Key, id: Id) -> Vec<u8> {
    Table::KeysBySeen.with(&[&(!key.last_seen).to_be_bytes(), id.as_bytes()])
}

fn read_key(view: &View<'_>, id: Id) -> Result<(Id, Key), RegistryError> {
    let key = view.record(&Table::Keys.of(id))?;
    key.map(|key| (id, key)).ok_or_else(|| RegistryError::damaged(format!("Key {id} is missing")))
}
