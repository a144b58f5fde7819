//! RemoveLock: a Lock leaves its family, whether it is online or not. The removal is final for its identity key, and
//! merges like a revocation. The Lock is not informed, and keeps admitting Keys.

use keywright_proto::{
    Certificate, Id, Judgement, PublicKey, claimed_removal, removal, tree::Hash,
};

use super::{
    AuditEvent, Families, Issuer, Issuing, Plan, Prepared, public_key,
    to_sign::{Purpose, ToSign},
    unsupported,
};
use crate::{
    error::Error,
    registry::records::{Lock, LockRemoval},
    serialization::card::CardOrder,
};

impl Families {
    /// Prepares the removal of a Lock and the entry in the issuer's CRL. Nothing has to be signed if the Lock is
    /// removed and no CRL entry is pending for the issuing Key.
    ///
    /// # Errors
    /// `NotFound`; `Unverified`: the family's root is not pinned here.
    pub fn prepare_removal(
        &self,
        issuer: &Issuer,
        issuing: &Issuing,
        lock: Id,
    ) -> Result<Prepared, Error> {
        let (family, own) = (issuing.family, issuing.own()?);
        let ca = own.public_key().id();
        let mut plan = Plan::new(Purpose::RemoveLock(lock), issuing);
        let shown = self.registry.lock(lock)?.filter(|known| known.family == family);
        let mut serials = self.pending_signatures(family)?.serials(ca);
        let key_hash = match shown {
            Some(known) => {
                let key_hash = key_hash(&known)?;
                let unsigned = removal(&key_hash, &issuing.chain).map_err(unsupported)?;
                plan.event = Some(AuditEvent::LockRemoved { family, lock });
                plan.objects.push((ToSign::LockRemoval { lock, key_hash }, unsigned));
                // If another CA certified the Lock, that CA's CRL entry is pending from now on.
                if let Ok(certificate) = Certificate::parse(&known.certificate)
                    && known.issuer == ca
                {
                    serials.push(certificate.serial().to_vec());
                }
                key_hash
            }
            None => {
                let missing = || Error::NotFound(format!("Lock {lock} in the issuer's family"));
                key_hash(&self.registry.removed_lock(family, lock)?.ok_or_else(missing)?)?
            }
        };
        if !serials.is_empty() {
            plan.objects.push((ToSign::Crl(ca), self.next_crl(own, serials)?));
        }
        let card = self.card_order(issuer, issuing)?;
        plan.card = Some(CardOrder { removed: Some(key_hash), ..card });
        plan.prepared()
    }

    /// Whether the removal of this identity key from the family is effective.
    pub(super) fn is_removed(&self, family: Id, key: &PublicKey) -> Result<bool, Error> {
        let removals = self.registry.removals_of_lock(family, key.id())?;
        if removals.is_empty() {
            return Ok(false);
        }
        let judgement = self.judgement(family)?;
        let mut of_key = removals.iter().filter(|removal| removal.key_hash == key.hash());
        Ok(of_key.any(|removal| is_effective(judgement.as_ref(), removal)))
    }
}

/// Whether the signer of a removal may remove Locks. True if the family is not judged here, or the removal does not
/// parse.
pub(super) fn is_effective(judgement: Option<&Judgement>, removal: &LockRemoval) -> bool {
    let signer = claimed_removal(&removal.cose).map(|(_, signer)| signer);
    judgement.zip(signer).is_none_or(|(judgement, signer)| judgement.may_remove(&signer))
}

/// The hash of a Lock's identity key: its name in statements and removals.
pub(super) fn key_hash(lock: &Lock) -> Result<Hash, Error> {
    public_key(&lock.identity_key).map(|key| key.hash())
}
