//! Locks that were certified by a Key in their own port show their papers, which prove themselves.

use std::collections::BTreeMap;

use keywright_proto::Id;

use super::{Room, Work};
use crate::{error::Error, queries};

/// Of how many Locks papers that could not be stored are kept.
const MOST_KEPT: usize = 64;

/// Papers that could not be stored, by Lock.
pub(super) type Unstored = BTreeMap<Id, Vec<u8>>;

impl Room {
    /// A Lock that this station does not know shows its certificate.
    pub(super) fn papers(&mut self, lock: Id, bytes: Vec<u8>) -> Result<(), Error> {
        match self.take_papers(lock, &bytes) {
            Err(error @ Error::Store(_)) => {
                // The broker shows them again when the link comes back, and not before.
                let has_room = self.unstored_papers.len() < MOST_KEPT;
                if has_room || self.unstored_papers.contains_key(&lock) {
                    self.unstored_papers.insert(lock, bytes);
                }
                Err(error)
            }
            taken => taken,
        }
    }

    fn take_papers(&mut self, lock: Id, bytes: &[u8]) -> Result<(), Error> {
        if self.registry.lock(lock)?.is_some() {
            return Ok(());
        }
        match queries::verified_export(&self.registry, bytes) {
            Ok((family, papers, left_out)) => {
                if left_out > 0 {
                    self.refusals.note("papers of a Lock that do not verify");
                }
                let taken = self
                    .station
                    .ask(move |station, reply| station.import_family(family, papers, reply));
                self.runtime.block_on(taken)?;
                self.want(Work::Lock(lock));
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => self.refusals.note(&error),
        }
        Ok(())
    }

    /// Tries again what could not be stored.
    pub(super) fn store_papers_again(&mut self) {
        for (lock, bytes) in std::mem::take(&mut self.unstored_papers) {
            let stored = self.papers(lock, bytes);
            self.note(stored);
        }
    }
}
