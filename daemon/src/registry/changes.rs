//! The changed records of a commit that is being prepared.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    codec, error::RegistryError, layout::end_of, view::View, watchers::CertificateChanges,
};

/// What a commit is going to change.
#[derive(Default)]
pub(super) struct Changes {
    /// The uptime of this station, in seconds.
    pub(super) uptime: u64,
    /// Payloads by key; `None` removes the record.
    pub(super) payloads: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Certificates that differ from those that were stored before.
    pub(super) certificates: CertificateChanges,
}

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
        self.payloads.insert(key, Some(payload));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.payloads.insert(key, None);
    }

    /// Removes every record with a prefix, also those that were put into these changes.
    pub(super) fn remove_all(
        &mut self,
        view: &View<'_>,
        prefix: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let put: Vec<_> = self
            .payloads
            .range(prefix.clone()..end_of(&prefix))
            .map(|(key, _)| key.clone())
            .collect();
        put.into_iter().for_each(|key| self.remove(key));
        for record in view.all(prefix) {
            self.remove(record?.0.to_vec());
        }
        Ok(())
    }

    /// The payload that is under a key once these changes are committed.
    pub(super) fn get(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.payloads.get(key) {
            Some(payload) => Ok(payload.clone()),
            None => Ok(view.get(key)?.map(|payload| payload.to_vec())),
        }
    }

    /// The record that is under a key once these changes are committed.
    pub(super) fn record<T: DeserializeOwned>(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<T>, RegistryError> {
        self.get(view, key)?.map(|payload| codec::decode(&payload)).transpose()
    }
}
