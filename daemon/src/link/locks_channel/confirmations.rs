//! Stores the confirmations of Locks, many in one commit, and retries those that could not be stored.

use std::collections::BTreeSet;

use keywright_proto::Id;

use super::LocksChannel;
use crate::{error::Error, queries, registry::RegistryError};

/// The most confirmations that are kept for a retry.
const MOST_KEPT: usize = 10_000;

/// A confirmation, with the Key and the Lock that it claims to be about.
pub(super) type ReceivedConfirmation = ((Id, Id), Vec<u8>);

impl LocksChannel {
    /// Queues a received confirmation, unless it is stored already.
    pub(super) fn confirmation(&mut self, lock: Id, key: Id, bytes: Vec<u8>) -> Result<(), Error> {
        // The broker sends the retained confirmation again and again, but the Lock sends it once: if it cannot be
        // compared with the stored one, treat it as new.
        let known = self.registry.signed_confirmation(key, lock);
        if !matches!(&known, Ok(Some(known)) if known.cose == bytes) {
            self.confirmations.push(((key, lock), bytes));
        }
        known.map(drop).map_err(Error::from)
    }

    /// Stores the queued confirmations in as few commits as possible.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        let all = std::mem::take(&mut self.confirmations);
        let applied = self.apply(all.clone());
        if applied.is_err() {
            // The Locks do not send them again.
            self.keep(all);
        }
        applied
    }

    fn apply(&mut self, all: Vec<ReceivedConfirmation>) -> Result<(), Error> {
        if all.is_empty() {
            return Ok(());
        }
        let (rights, confirmations): (BTreeSet<_>, Vec<_>) = all.into_iter().unzip();
        let applied = self
            .station
            .ask(move |station, reply| station.apply_confirmations(confirmations, reply));
        for refused in self.runtime.block_on(applied)? {
            self.refusals.note(&refused);
        }
        // A Lock that admits a Key may need a grant that revokes it after a delay.
        for (key, lock) in rights {
            if queries::needs_delayed_revocation(&self.registry, key, lock, self.moment())? {
                self.pairs.push_back((key, lock));
            }
        }
        Ok(())
    }

    /// Keeps confirmations for a retry, up to a limit, because the broker could send any number.
    fn keep(&mut self, all: Vec<ReceivedConfirmation>) {
        for (right, confirmation) in all {
            if self.unstored.len() < MOST_KEPT || self.unstored.contains_key(&right) {
                self.unstored.insert(right, confirmation);
            }
        }
    }

    /// Retries the confirmations that could not be stored.
    pub(super) fn retry_confirmations(&mut self) {
        let again: Vec<_> = std::mem::take(&mut self.unstored).into_iter().collect();
        match self.apply(again.clone()) {
            Ok(()) => {}
            Err(Error::Store(RegistryError::DiskFull { .. })) => self.keep(again),
            // Store them one by one, so that one that cannot be stored does not block the others.
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
