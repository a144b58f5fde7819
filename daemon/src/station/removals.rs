//! RemoveLock: a Lock leaves its family, whether it is there or not. What is signed is final for its identity key, and
//! merges like a revocation; the Lock itself is told nothing, and shuts nobody out by it.

use std::collections::BTreeSet;

use keywright_proto::{
    Certificate, Id, Judgement, PublicKey, Unsigned, claimed_removal, removal, tree::Hash,
};

use super::{Reply, Station, issuing::Issuing, view::Label};
use crate::{
    audit::AuditEvent,
    clock,
    error::Error,
    judging, owed,
    registry::{
        Batch, RegistryError,
        records::{Lock, LockRemoval},
    },
    serialization::{card::CardOrder, new_issuer},
    token::Pin,
};

/// What is signed in one call.
enum Paper {
    Removal,
    Crl,
}

impl Station {
    /// RemoveLock.
    pub fn remove_lock(&mut self, issuer: Label, lock: Id, pin: Pin, reply: Reply<()>) {
        let prepared = self.issuing(&issuer).and_then(|issuing| {
            let planned = self.plan_removal(&issuing, lock)?;
            let card = self.card_order(&issuer, &issuing)?;
            Ok((issuing, (planned.0, planned.1, card)))
        });
        match prepared {
            Err(error) => reply.answer(self, Err(error)),
            // It is removed, and this Key owes nothing.
            Ok((_, (_, papers, _))) if papers.is_empty() => reply.answer(self, Ok(())),
            Ok((issuing, (key_hash, papers, card))) => {
                let card = Some(CardOrder { removed: Some(key_hash), ..card });
                let (kept, papers): (Vec<_>, Vec<_>) = papers.into_iter().unzip();
                let by = issuing.clone();
                let done = move |station: &mut Self, signed: Result<Vec<Vec<u8>>, Error>| {
                    let result = signed.and_then(|signed| {
                        station.keep_removal(&by, lock, key_hash, kept.into_iter().zip(signed))
                    });
                    reply.answer(station, result);
                };
                self.sign_with_card("remove", issuer, &issuing, pin, (papers, card), done);
            }
        }
    }

    /// What has to be signed to remove a Lock, and its key hash.
    fn plan_removal(
        &self,
        issuing: &Issuing,
        lock: Id,
    ) -> Result<(Hash, Vec<(Paper, Unsigned)>), Error> {
        let family = issuing.family;
        let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
        let mut papers = Vec::new();
        let shown = self.registry.lock(lock)?.filter(|known| known.family == family);
        let mut serials = self.owed(family)?.serials(own.public_key().id());
        let known = match shown {
            Some(known) => {
                let unsigned = removal(&key_hash(&known)?, &issuing.chain)
                    .map_err(|error| Error::Unsupported(error.to_string()))?;
                papers.push((Paper::Removal, unsigned));
                // Where another CA certified it, that one owes the entry from now on.
                if let Ok(certificate) = Certificate::parse(&known.certificate)
                    && known.issuer == own.public_key().id()
                {
                    serials.push(certificate.serial().to_vec());
                }
                known
            }
            None => {
                let removed = self.registry.removed_lock(family, lock)?;
                removed
                    .ok_or_else(|| Error::NotFound(format!("Lock {lock} in the issuer's family")))?
            }
        };
        if !serials.is_empty() {
            papers.push((Paper::Crl, self.next_crl(own, serials)?));
        }
        Ok((key_hash(&known)?, papers))
    }

    fn keep_removal(
        &mut self,
        issuing: &Issuing,
        lock: Id,
        key_hash: Hash,
        signed: impl Iterator<Item = (Paper, Vec<u8>)>,
    ) -> Result<(), Error> {
        let (family, now) = (issuing.family, clock::unix_seconds());
        let mut batch = Batch::new();
        self.put_own_issuer(&mut batch, issuing)?;
        for (paper, signed) in signed {
            match paper {
                Paper::Removal => {
                    let removal = LockRemoval { lock, key_hash, cose: signed, first_seen: now };
                    batch.put_lock_removal(family, removal);
                    self.log(&mut batch, &AuditEvent::LockRemoved { family, lock });
                }
                Paper::Crl => {
                    let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
                    let ca = own.public_key().id();
                    let known = self.registry.issuer(ca)?;
                    let mut issuer = known.unwrap_or_else(|| new_issuer(family, &issuing.chain));
                    owed::publish(&mut issuer, signed);
                    batch.put_issuer(ca, issuer);
                }
            }
        }
        self.registry.commit(batch)?;
        tracing::info!(%lock, %family, "a Lock was removed");
        self.settle_removals(family)?;
        self.refresh_family(family);
        Ok(())
    }

    /// Brings the lists of Locks to what is judged now: which are removed, and which are no longer because whoever
    /// removed them was revoked.
    pub(super) fn settle_removals(&self, family: Id) -> Result<(), RegistryError> {
        let removals = self.registry.lock_removals(family)?;
        let Some(mut known) = self.registry.family(family)?.filter(|_| !removals.is_empty()) else {
            return Ok(());
        };
        let judgement = self.judgement(family)?;
        let counts = |removal: &&LockRemoval| counts(judgement.as_ref(), removal);
        let removed: BTreeSet<Hash> =
            removals.iter().filter(counts).map(|removal| removal.key_hash).collect();
        let mut batch = Batch::new();
        let mut changed = false;
        let locks: BTreeSet<Id> = removals.iter().map(|removal| removal.lock).collect();
        for lock in locks {
            let is_removed = |record: &Lock| {
                record.family == family
                    && key_hash(record).is_ok_and(|hash| removed.contains(&hash))
            };
            let (shown, kept) =
                (self.registry.lock(lock)?, self.registry.removed_lock(family, lock)?);
            if shown.is_some_and(|lock| is_removed(&lock)) {
                batch.set_lock_removed(family, lock, true);
                self.log(&mut batch, &AuditEvent::LockJudged { family, lock, removed: true });
                known.locks = known.locks.saturating_sub(1);
                changed = true;
            } else if kept.is_some_and(|lock| !is_removed(&lock)) {
                batch.set_lock_removed(family, lock, false);
                self.log(&mut batch, &AuditEvent::LockJudged { family, lock, removed: false });
                known.locks += 1;
                changed = true;
            }
        }
        if changed {
            batch.put_family(family, known);
            self.registry.commit(batch)?;
        }
        Ok(())
    }

    /// Whether this identity key was removed from a family for good.
    pub(super) fn is_removed(&self, family: Id, key: &PublicKey) -> Result<bool, Error> {
        let removals = self.registry.removals_of_lock(family, key.id())?;
        if removals.is_empty() {
            return Ok(false);
        }
        let judgement = self.judgement(family)?;
        let of_key = removals.iter().filter(|removal| removal.key_hash == key.hash());
        Ok(of_key.into_iter().any(|removal| counts(judgement.as_ref(), removal)))
    }

    fn judgement(&self, family: Id) -> Result<Option<Judgement>, RegistryError> {
        let facts = judging::facts(&self.registry, family, &[])?;
        Ok(facts.map(|facts| self.moment().judge(&facts)))
    }
}

/// Whether the word of a removal's signer counts.
pub(super) fn counts(judgement: Option<&Judgement>, removal: &LockRemoval) -> bool {
    let signer = claimed_removal(&removal.cose).map(|(_, signer)| signer);
    judgement.zip(signer).is_none_or(|(judgement, signer)| judgement.may_remove(&signer))
}

pub(super) fn key_hash(lock: &Lock) -> Result<Hash, Error> {
    PublicKey::from_spki_der(&lock.identity_key)
        .map(|key| key.hash())
        .map_err(|error| Error::Unsupported(error.to_string()))
}
