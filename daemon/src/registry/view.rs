//! Reading: checked values, one by one or in the order of keys.

use std::{path::Path, sync::RwLockReadGuard};

use serde::de::DeserializeOwned;
use sled::IVec;

use super::{
    codec,
    engine::{catch_sled_panic, refused},
    error::RegistryError,
    layout::end_of,
    pieces::{SPLIT, WHOLE, further_pieces, piece_key},
};

/// A consistent look at the records. Never take a second one on the same thread.
pub(super) struct View<'a> {
    pub(super) db: &'a sled::Db,
    pub(super) dir: &'a Path,
    pub(super) _read_lock: RwLockReadGuard<'a, ()>,
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
            // An iterator that failed once is not asked again.
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

    /// What is stored under a key, unchecked.
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
