//! Stores the confirmations of Locks, many in one commit, and retries those that could not be stored.

use std::collections::BTreeSet;

use keywright_proto::Id;

use super::LocksChannel;
use crate::{error::Error, queries, registry::RegistryError};

/// How many that could not be stored are kept.
const MOST_KEPT: usize = 10_000;

/// A confirmation, and which right (Key and Lock) it is about, as it claims.
pub(super) type Heard = ((Id, Id), Vec<u8>);

impl LocksChannel {
    /// Takes one in.
    pub(super) fn confirmation(&mut self, lock: Id, key: Id, bytes: Vec<u8>) -> Result<(), Error> {
        // The broker keeps the last one, and sends it again and again. The Lock does not: what cannot be looked up is new.
        let known = self.registry.signed_confirmation(key, lock);
        if !matches!(&known, Ok(Some(known)) if known.cose == bytes) {
            self.confirmations.push(((key, lock), bytes));
        }
        known.map(drop).map_err(Error::from)
    }

    /// Stores what was taken in: many of them are one commit.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        let all = std::mem::take(&mut self.confirmations);
        let applied = self.apply(all.clone());
        if applied.is_err() {
            // The Locks have done their part, and do not say it again.
            self.keep(all);
        }
        applied
    }

    fn apply(&mut self, all: Vec<Heard>) -> Result<(), Error> {
        if all.is_empty() {
            return Ok(());
        }
        let (rights, said): (BTreeSet<_>, Vec<_>) = all.into_iter().unzip();
        let applied =
            self.station.ask(move |station, reply| station.apply_confirmations(said, reply));
        for refused in self.runtime.block_on(applied)? {
            self.refusals.note(&refused);
        }
        // A Lock that admits a Key may have to hear next that this is to end.
        for (key, lock) in rights {
            if queries::needs_delayed_revocation(&self.registry, key, lock, self.moment())? {
                self.pairs.push_back((key, lock));
            }
        }
        Ok(())
    }

    /// Keeps what could not be stored. A broker that sends without end is not heard out.
    fn keep(&mut self, all: Vec<Heard>) {
        for (right, said) in all {
            if self.unstored.len() < MOST_KEPT || self.unstored.contains_key(&right) {
                self.unstored.insert(right, said);
            }
        }
    }

    /// Tries again what could not be stored.
    pub(super) fn retry_confirmations(&mut self) {
        let again: Vec<_> = std::mem::take(&mut self.unstored).into_iter().collect();
        match self.apply(again.clone()) {
            Ok(()) => {}
            Err(Error::Store(RegistryError::DiskFull { .. })) => self.keep(again),
            // One that cannot be stored does not keep the others out.
            Err(_) => {
                for one in again {
                    if let Err(error) = self.apply(vec![one.clone()]) {
                        self.note(Err(error));
                        self.keep(vec![one]);
                    }
                }
            }
        }
    }
}
