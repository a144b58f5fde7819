//! Keys, and their memberships in families.

use keywright_proto::Id;

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

    /// Puts the membership of a Key in a family.
    pub fn put_membership(&mut self, key: Id, family: Id, membership: Membership) -> &mut Self {
        self.exchanged().write(move |_, changes| {
            changes.put_bytes(Table::KeysByFamily.of_two(family, key), Vec::new());
            changes.put(Table::Memberships.of_two(key, family), &membership)
        })
    }
}

/// Where a Key is in the order of last seen Keys.
fn seen_key(key: &Key, id: Id) -> Vec<u8> {
    Table::KeysBySeen.with(&[&(!key.last_seen).to_be_bytes(), id.as_bytes()])
}

fn read_key(view: &View<'_>, id: Id) -> Result<(Id, Key), RegistryError> {
    let key = view.record(&Table::Keys.of(id))?;
    key.map(|key| (id, key)).ok_or_else(|| RegistryError::damaged(format!("Key {id} is missing")))
}
