//! Issuing keys: those that a Lock believes are shown here too, and every Lock gets the revocation of one whose Key nobody
//! knows.

use keywright_proto::{Id, tree::Hash};
use sha2::{Digest, Sha256};

use super::LocksChannel;
use crate::{
    error::Error,
    queries::{self, Page},
};

impl LocksChannel {
    /// Imports the issuing keys that a Lock believes, as far as they verify up to the pinned root. A hidden one is thus
    /// seen wherever it was used.
    pub(super) fn issuers(&mut self, lock: Id, bytes: &[u8]) -> Result<(), Error> {
        // Only Locks in the registry are remembered, so the broker cannot make the list grow.
        let Some(family) = self.registry.lock(lock)?.map(|known| known.family) else {
            return Ok(());
        };
        let digest: Hash = Sha256::digest(bytes).into();
        if self.heard_issuers.get(&lock) == Some(&digest) {
            return Ok(());
        }
        match queries::believed_by_lock(&self.registry, family, bytes) {
            Ok(None) => {}
            Ok(Some((objects, left_out))) => {
                if left_out > 0 {
                    self.refusals.note("issuing keys of a Lock that do not verify");
                }
                let imported = self
                    .station
                    .ask(move |station, reply| station.import_issuers(family, objects, reply));
                self.runtime.block_on(imported)?;
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => self.refusals.note(&error),
        }
        self.heard_issuers.insert(lock, digest);
        Ok(())
    }

    /// Queues the revocation of an issuing key for the Locks of one page that have not confirmed it. Returns the id after
    /// which the next page begins.
    pub(super) fn unaware(
        &mut self,
        issuer: Id,
        page: Page,
        only: Option<Id>,
    ) -> Result<Option<Id>, Error> {
        let (locks, next) = queries::unaware_of_revoked_issuer(&self.registry, issuer, page)?;
        let wanted = locks.into_iter().filter(|lock| only.is_none_or(|only| only == *lock));
        self.pairs.extend(wanted.map(|lock| (issuer, lock)));
        Ok(next)
    }
}
