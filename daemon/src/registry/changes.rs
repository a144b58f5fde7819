//! Records on their way into a commit.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{codec, error::RegistryError, layout::end_of, view::View};

/// Records to be written, by key; `None` removes.
#[derive(Default)]
pub(super) struct Changes(pub(super) BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Changes {
    pub(super) fn put<T: Serialize>(
        &mut self,
        key: Vec<u8>,
        record: &T,
    ) -> Result<(), RegistryError> {
        self.put_bytes(key, codec::encode(record)?);
        Ok(())
    }

    pub(super) fn put_bytes(&mut self, key: Vec<u8>, payload: Vec<u8>) {
        self.0.insert(key, Some(payload));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// Removes every record with a prefix, those just put too.
    pub(super) fn remove_all(
        &mut self,
        view: &View<'_>,
        prefix: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let put: Vec<_> =
            self.0.range(prefix.clone()..end_of(&prefix)).map(|(key, _)| key.clone()).collect();
        put.into_iter().for_each(|key| self.remove(key));
        for record in view.all(prefix) {
            self.remove(record?.0.to_vec());
        }
        Ok(())
    }

    /// The payload that will be under a key.
    pub(super) fn get(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.0.get(key) {
            Some(payload) => Ok(payload.clone()),
            None => Ok(view.get(key)?.map(|payload| payload.to_vec())),
        }
    }

    /// The record that will be under a key.
    pub(super) fn record<T: DeserializeOwned>(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<T>, RegistryError> {
        self.get(view, key)?.map(|payload| codec::decode(&payload)).transpose()
    }
}
