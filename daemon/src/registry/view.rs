//! Reads records, with their checksums checked, one by one or in the order of their keys.

use std::{path::Path, sync::RwLockReadGuard};

use keywright_proto::Id;
use serde::de::DeserializeOwned;
use sled::IVec;

use super::{
    codec,
    engine::{catch_sled_panic, refused},
    error::RegistryError,
    layout::{end_of, id_at_end},
    pieces::{SPLIT, WHOLE, further_pieces, piece_key},
};

/// A consistent view of the records: no commit changes them while it lives. A thread that takes a second one deadlocks
/// when a commit waits in between.
pub(super) struct View<'a> {
    pub(super) db: &'a sled::Db,
    pub(super) dir: &'a Path,
    pub(super) _commit_lock: RwLockReadGuard<'a, ()>,
}

impl View<'_> {
    /// The payload under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, RegistryError> {
        self.stored(key)?.map(|stored| self.payload(key, stored)).transpose()
    }

    /// The record under a key.
    pub(super) fn record<T: DeserializeOwned>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, RegistryError> {
        self.get(key)?.map(|payload| codec::decode(&payload)).transpose()
    }

    /// Keys and payloads from `start` on, before `end`, in the order of keys.
    pub(super) fn scan(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
    ) -> impl Iterator<Item = Result<(IVec, IVec), RegistryError>> {
        let mut range = (start < end).then(|| self.db.range(start..end));
        std::iter::from_fn(move || {
            let next = catch_sled_panic(self.dir, || Ok(range.as_mut().and_then(Iterator::next)));
            let next = match next {
                Ok(Some(Ok((key, stored)))) => {
                    Some(self.payload(&key, stored).map(|payload| (key, payload)))
                }
                Ok(Some(Err(error))) => Some(Err(refused(self.dir, error))),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            };
            // sled's iterator is not called again after an error.
            if !matches!(next, Some(Ok(_))) {
                range = None;
            }
            next
        })
    }

    /// All keys and payloads with a prefix.
    pub(super) fn all(
        &self,
        prefix: Vec<u8>,
    ) -> impl Iterator<Item = Result<(IVec, IVec), RegistryError>> {
        let end = end_of(&prefix);
        self.scan(prefix, end)
    }

    /// All records with a prefix, in the order of their keys.
    pub(super) fn records<T: DeserializeOwned>(
        &self,
        prefix: Vec<u8>,
    ) -> Result<Vec<T>, RegistryError> {
        self.all(prefix).map(|record| codec::decode(&record?.1)).collect()
    }

    /// All records with a prefix, each with the id at the end of its key, in the order of their keys.
    pub(super) fn records_by_id<T: DeserializeOwned>(
        &self,
        prefix: Vec<u8>,
    ) -> Result<Vec<(Id, T)>, RegistryError> {
        let with_id = |record: Result<(IVec, IVec), RegistryError>| {
            let (key, payload) = record?;
            Ok((id_at_end(&key)?, codec::decode(&payload)?))
        };
        self.all(prefix).map(with_id).collect()
    }

    /// Whether there is a record with this prefix.
    pub(super) fn has_any(&self, prefix: Vec<u8>) -> Result<bool, RegistryError> {
        let end = end_of(&prefix);
        Ok(self.last(prefix, end)?.is_some())
    }

    /// The last key and payload from `start` on, before `end`.
    pub(super) fn last(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
    ) -> Result<Option<(IVec, IVec)>, RegistryError> {
        let last =
            catch_sled_panic(self.dir, || self.db.range(start..end).next_back().transpose())?;
        last.map(|(key, stored)| Ok((key.clone(), self.payload(&key, stored)?))).transpose()
    }

    /// The stored value under a key, with its checksum not checked.
    pub(super) fn stored(&self, key: &[u8]) -> Result<Option<IVec>, RegistryError> {
        catch_sled_panic(self.dir, || self.db.get(key))
    }

    fn payload(&self, key: &[u8], stored: IVec) -> Result<IVec, RegistryError> {
        let missing =
            || RegistryError::damaged(format!("record {} is cut short", hex::encode(key)));
        match stored.split_first() {
            Some((&WHOLE, rest)) => codec::unseal(key, &stored.subslice(1, rest.len())),
            Some((&SPLIT, _)) => {
                let mut sealed = stored.get(3..).ok_or_else(missing)?.to_vec();
                for position in 1..=further_pieces(&stored) {
                    sealed.extend(
                        self.stored(&piece_key(key, position))?.ok_or_else(missing)?.iter(),
                    );
                }
                codec::unseal(key, &sealed.into())
            }
            _ => Err(missing()),
        }
    }
}
