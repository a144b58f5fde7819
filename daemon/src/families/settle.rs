//! Updates the records of Keys and Locks to the current judgement: revoked and removed ones are marked, and marks are
//! taken back if whoever revoked or removed them was revoked.

use std::collections::BTreeSet;

use keywright_proto::{Id, tree::Hash};

use super::{
    Asker, AuditEvent, Changes, Families,
    removals::{is_effective, key_hash},
};
use crate::registry::{
    Batch, RegistryError,
    records::{self, Lock, LockRemoval},
};

impl Families {
    /// Settles all families, because the delay of a revocation may have ended.
    pub fn settle_all_revocations(&mut self, by: Asker, changes: &mut Changes) {
        let families = self.registry.families().unwrap_or_default();
        for (family, _) in families {
            let any = self.registry.revocations(family).is_ok_and(|all| !all.is_empty());
            if any && let Err(error) = self.settle_revocations(family, by, changes) {
                tracing::error!(%error, %family, "revocations cannot be judged");
            }
        }
    }

    /// Settles the Keys and Locks of one family, and notes when its next delayed revocation takes effect.
    pub(super) fn settle_revocations(
        &mut self,
        family: Id,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<(), RegistryError> {
        let revocations = self.registry.revocations(family)?;
        let keys: BTreeSet<Id> = revocations.into_iter().map(|revocation| revocation.key).collect();
        let mut batch = Batch::new();
        let mut changed = false;
        for key in keys {
            let Some(record) = self.registry.key(key)? else { continue };
            let mut revoked = false;
            for (of, _) in self.registry.memberships(key)? {
                revoked |= self.moment().statements(&self.registry, key, of)?.is_revoked();
            }
            if record.revoked != revoked {
                self.log(&mut batch, &AuditEvent::KeyJudged { family, key, revoked }, by);
                batch.put_key(key, records::Key { revoked, ..record });
                changed = true;
            }
        }
        if changed {
            self.registry.commit(batch)?;
        }
        self.settle_removals(family, by)?;
        changes.families.insert(family);
        match self.judgement(family)?.and_then(|judgement| judgement.next_change()) {
            Some(at) => self.judges_at.insert(family, at),
            None => self.judges_at.remove(&family),
        };
        Ok(())
    }

    /// Settles the Locks of one family.
    pub(super) fn settle_removals(&self, family: Id, by: Asker) -> Result<(), RegistryError> {
        let removals = self.registry.lock_removals(family)?;
        let Some(mut known) = self.registry.family(family)?.filter(|_| !removals.is_empty()) else {
            return Ok(());
        };
        let judgement = self.judgement(family)?;
        let is_effective = |removal: &&LockRemoval| is_effective(judgement.as_ref(), removal);
        let effective = removals.iter().filter(is_effective);
        let key_hashes: BTreeSet<Hash> = effective.map(|removal| removal.key_hash).collect();
        let is_removed = |lock: &Lock| {
            lock.family == family && key_hash(lock).is_ok_and(|hash| key_hashes.contains(&hash))
        };
        let mut batch = Batch::new();
        let mut changed = false;
        let locks: BTreeSet<Id> = removals.iter().map(|removal| removal.lock).collect();
        for lock in locks {
            let (shown, kept) =
                (self.registry.lock(lock)?, self.registry.removed_lock(family, lock)?);
            let removed = if shown.is_some_and(|lock| is_removed(&lock)) {
                known.locks = known.locks.saturating_sub(1);
                true
            } else if kept.is_some_and(|lock| !is_removed(&lock)) {
                known.locks += 1;
                false
            } else {
                continue;
            };
            batch.set_lock_removed(family, lock, removed);
            self.log(&mut batch, &AuditEvent::LockJudged { family, lock, removed }, by);
            changed = true;
        }
        if changed {
            batch.put_family(family, known);
            self.registry.commit(batch)?;
        }
        Ok(())
    }
}
