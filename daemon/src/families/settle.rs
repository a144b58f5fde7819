//! Updates the records of Keys and Locks to the current judgement: revoked and removed ones are marked, and marks are
//! taken back if whoever revoked or removed them was revoked.

use std::collections::BTreeSet;

use keywright_proto::{Certificate, Crl, Id, Judgement, PublicKey, tree::Hash};

use super::{
    Asker, AuditEvent, Changes, Families,
    removals::{is_effective, key_hash},
};
use crate::{
    registry::{
        Batch, RegistryError,
        records::{self, Lock, LockRemoval},
    },
    trust::{self, membership},
};

impl Families {
    /// Settles all families, because the delay of a revocation may have ended.
    pub fn settle_all_revocations(&mut self, by: Asker, changes: &mut Changes) {
        if let Err(error) = self.date_revocations() {
            tracing::error!(%error, "the delay of old revocations cannot begin");
        }
        let families = match self.registry.families() {
            Ok(families) => families,
            Err(error) => return tracing::error!(%error, "revocations cannot be judged"),
        };
        for (family, _) in families {
            let settled = self.has_to_settle(family).and_then(|has_to| match has_to {
                true => self.settle_revocations(family, by, changes),
                false => Ok(()),
            });
            if let Err(error) = settled {
                tracing::error!(%error, %family, "revocations cannot be judged");
            }
        }
    }

    /// Whether a family has a revocation, or a Key of whose certificates one has to be chosen.
    fn has_to_settle(&self, family: Id) -> Result<bool, RegistryError> {
        Ok(!self.registry.revocations(family)?.is_empty()
            || !self.registry.keys_with_several_certificates(family)?.is_empty())
    }

    /// Settles the Keys and Locks of one family, and notes when its next delayed revocation takes effect.
    pub(super) fn settle_revocations(
        &mut self,
        family: Id,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<(), RegistryError> {
        let mut batch = Batch::new();
        let judgement = self.judgement(family)?;
        let changed = self.settle_chains(&mut batch, family, judgement.as_ref())?
            | self.settle_memberships(&mut batch, family, judgement.as_ref(), by)?;
        if changed {
            self.registry.commit(batch)?;
        }
        self.settle_removals(family, by)?;
        changes.families.insert(family);
        match self.judgement(family)?.and_then(|judgement| judgement.next_change()) {
            Some(at) => self.judges_at.insert(family, at),
            None => self.judges_at.remove(&family),
        };
        self.keep_uptime();
        Ok(())
    }

    /// Shows each CA by its best chain: by CAs that stand, where there is one.
    fn settle_chains(
        &self,
        batch: &mut Batch,
        family: Id,
        judgement: Option<&Judgement>,
    ) -> Result<bool, RegistryError> {
        let Some(authorities) = trust::authorities(&self.registry, family)? else {
            return Ok(false);
        };
        let stands = |ca: &Certificate| trust::stands(judgement, &ca.public_key().hash());
        let mut changed = false;
        for (id, issuer) in self.registry.issuers_of(family)? {
            let own = issuer.chain.first().and_then(|der| Certificate::parse(der).ok());
            let best = own.and_then(|own| authorities.chain_of(own.public_key(), stands));
            let Some(best) = best else { continue };
            let chain: Vec<_> = best.iter().map(|ca| ca.der().to_vec()).collect();
            if chain != issuer.chain {
                batch.put_issuer(id, records::Issuer { chain, ..issuer });
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Settles the memberships of Keys that are named by a revocation or have several access certificates.
    fn settle_memberships(
        &self,
        batch: &mut Batch,
        family: Id,
        judgement: Option<&Judgement>,
        by: Asker,
    ) -> Result<bool, RegistryError> {
        let revocations = self.registry.revocations(family)?;
        let in_force = trust::revoked(&revocations, judgement);
        let named: BTreeSet<Id> = revocations.iter().map(|revocation| revocation.key).collect();
        let several = self.registry.keys_with_several_certificates(family)?;
        let (listed, authorities) = match several.is_empty() {
            true => (BTreeSet::new(), None),
            false => {
                let authorities = trust::authorities(&self.registry, family)?;
                (self.listed_certificates(family)?, authorities)
            }
        };
        let is_listed = |access: &Certificate, issuer: &PublicKey| {
            listed.contains(&(issuer.id(), access.serial().to_vec()))
        };
        let mut changed = false;
        for key in named.union(&several) {
            let own = self.registry.membership(*key, family).and_then(|own| match own {
                Some(own) => Ok(Some((own, self.registry.access_certificates(*key, family)?))),
                None => Ok(None),
            });
            let own = RegistryError::skip_damaged(own, format_args!("Key {key}"))?;
            let Some((known, all)) = own.flatten() else { continue };
            let mut own = match &authorities {
                Some(authorities) if several.contains(key) => {
                    membership::updated(&known, &all, authorities, judgement, is_listed)
                }
                _ => known.clone(),
            };
            own.revoked = in_force.contains(key);
            if own.revoked != known.revoked {
                let (key, revoked) = (*key, own.revoked);
                self.log(batch, &AuditEvent::KeyJudged { family, key, revoked }, by);
            }
            if own != known {
                batch.put_membership(*key, family, own);
                changed = true;
            }
        }
        Ok(changed)
    }

    /// The certificates that CRLs of a family list, by CA and serial number.
    fn listed_certificates(&self, family: Id) -> Result<BTreeSet<(Id, Vec<u8>)>, RegistryError> {
        let mut listed = BTreeSet::new();
        for (ca, issuer) in self.registry.issuers_of(family)? {
            let crl = Crl::parse(&issuer.crl).ok();
            let entries = crl.iter().flat_map(|crl| crl.revoked());
            listed.extend(entries.map(|entry| (ca, entry.serial.clone())));
        }
        Ok(listed)
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
