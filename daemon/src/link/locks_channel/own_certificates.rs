//! Imports Locks that were claimed with a Key in their own port: each publishes its certificate with the chain that
//! proves it.

use std::collections::BTreeMap;

use keywright_proto::Id;

use super::{LocksChannel, Work};
use crate::{error::Error, queries};

/// For how many Locks certificates that could not be stored are kept for a retry.
const MOST_KEPT: usize = 64;

/// Certificates that could not be stored, by Lock.
pub(super) type Unstored = BTreeMap<Id, Vec<u8>>;

impl LocksChannel {
    /// Handles the certificate that a Lock publishes itself. It is ignored if the Lock is in the registry already.
    pub(super) fn own_certificate(&mut self, lock: Id, bytes: Vec<u8>) -> Result<(), Error> {
        match self.take_own_certificate(lock, &bytes) {
            Err(error @ Error::Store(_)) => {
                // The broker sends retained certificates again only after a reconnection.
                let has_room = self.unstored_certificates.len() < MOST_KEPT;
                if has_room || self.unstored_certificates.contains_key(&lock) {
                    self.unstored_certificates.insert(lock, bytes);
                }
                Err(error)
            }
            taken => taken,
        }
    }

    fn take_own_certificate(&mut self, lock: Id, bytes: &[u8]) -> Result<(), Error> {
        if self.registry.lock(lock)?.is_some() {
            return Ok(());
        }
        match queries::verified_export(&self.registry, bytes) {
            Ok((family, objects, left_out)) => {
                if left_out > 0 {
                    self.refusals.note("objects of a Lock that do not verify");
                }
                let imported = self
                    .station
                    .ask(move |station, reply| station.import_family(family, objects, reply));
                self.runtime.block_on(imported)?;
                self.want(Work::Lock(lock));
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => self.refusals.note(&error),
        }
        Ok(())
    }

    /// Retries the certificates that could not be stored.
    pub(super) fn retry_certificates(&mut self) {
        for (lock, bytes) in std::mem::take(&mut self.unstored_certificates) {
            let stored = self.own_certificate(lock, bytes);
            self.note(stored);
        }
    }
}
