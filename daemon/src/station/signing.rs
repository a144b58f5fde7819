//! The calls for which an issuing Key signs outside of a serialization: AddLock, ChangeRights, RevokeKey, RemoveLock
//! and IssueSoftKey. In each the family prepares a plan, the token signs it, and the family keeps the signed objects.

use keywright_proto::Id;
use keywright_token::hotplug::Device;
use keywright_token::{Pin, Token};

use super::{Reply, Station};
use crate::{
    error::Error,
    families::{Issuer, Issuing, Kept, LockNames, Plan, Prepared, check_request},
    serialization::{
        card::CardOutcome,
        signing::{self, Order},
    },
    view::Label,
};

/// How often AddLock renews a card in one plug: as many Locks as the card has space for. Firmware retains memory for
/// every authentication of the management key until the token is unplugged, and fails after some hundred.
const CARD_RENEWALS: usize = 4;

/// A plugged-in issuing Key, and the chain under which it signs.
struct Signer {
    device: Device,
    issuer: Issuer,
    issuing: Issuing,
}

impl Station {
    /// AddLock.
    pub fn add_lock(
        &mut self,
        issuer: Label,
        name: String,
        csr_pem: String,
        pin: Pin,
        reply: Reply<(Id, String)>,
    ) {
        let prepared = check_request(&name, &csr_pem).and_then(|key| {
            let signer = self.signer_even_if_lost(&issuer)?;
            // Only what is pinned can be imported: so the call that pins a family is the way out of a loss.
            if !signer.issuing.unpinned {
                self.families.registry().check_nothing_is_lost()?;
            }
            self.keys.may_try(&issuer)?;
            let renewals = self.keys.key(&issuer)?.card_renewals;
            let renews_card = renewals < CARD_RENEWALS;
            let prepared = self.families.prepare_lock(
                &signer.issuer,
                &signer.issuing,
                key,
                name,
                renews_card,
            )?;
            Ok((signer, prepared))
        });
        self.sign("lock", prepared, pin, reply, certified);
    }

    /// ChangeRights.
    pub fn change_rights(
        &mut self,
        issuer: Label,
        key: Id,
        add: LockNames,
        remove: LockNames,
        pin: Pin,
        reply: Reply<()>,
    ) {
        let prepared = self.signer(&issuer).and_then(|signer| {
            let (by, present) = (&signer.issuing, self.keys.for_families());
            let prepared = self.families.prepare_rights(by, key, &add, &remove, &present)?;
            Ok((signer, prepared))
        });
        self.sign("rights", prepared, pin, reply, nothing);
    }

    /// RevokeKey.
    pub fn revoke_key(
        &mut self,
        issuer: Label,
        key: Id,
        reason: String,
        pin: Pin,
        reply: Reply<()>,
    ) {
        let prepared = self.signer(&issuer).and_then(|signer| {
            let by = &signer.issuing;
            let prepared = self.families.prepare_revocation(&signer.issuer, by, key, &reason)?;
            Ok((signer, prepared))
        });
        self.sign("revoke", prepared, pin, reply, nothing);
    }

    /// RemoveLock.
    pub fn remove_lock(&mut self, issuer: Label, lock: Id, pin: Pin, reply: Reply<()>) {
        let prepared = self.signer(&issuer).and_then(|signer| {
            let prepared = self.families.prepare_removal(&signer.issuer, &signer.issuing, lock)?;
            Ok((signer, prepared))
        });
        self.sign("remove", prepared, pin, reply, nothing);
    }

    /// IssueSoftKey.
    pub fn issue_soft_key(
        &mut self,
        issuer: Label,
        name: String,
        csr_pem: String,
        locks: LockNames,
        pin: Pin,
        reply: Reply<(Id, String)>,
    ) {
        let prepared = check_request(&name, &csr_pem).and_then(|key| {
            let signer = self.signer(&issuer)?;
            let prepared = self.families.prepare_soft_key(
                &signer.issuing,
                key,
                name,
                &locks,
                &self.keys.for_families(),
            )?;
            Ok((signer, prepared))
        });
        self.sign("soft", prepared, pin, reply, certified);
    }

    /// A plugged-in Master or Backup that is standing, with a chain to the pinned root or to the root that its own
    /// signature will pin.
    fn signer(&self, label: &Label) -> Result<Signer, Error> {
        self.families.registry().check_nothing_is_lost()?;
        self.signer_even_if_lost(label)
    }

    fn signer_even_if_lost(&self, label: &Label) -> Result<Signer, Error> {
        let issuer = self.keys.key(label)?.as_issuer(label);
        self.families.may_issue(&issuer)?;
        let device = self.keys.present_key(label)?.1.clone();
        self.jobs.is_free(label, None, &self.keys)?;
        let issuing = self.families.issuing(&issuer)?;
        Ok(Signer { device, issuer, issuing })
    }

    /// Signs a plan with a token and keeps the result. Every call of this file ends here.
    fn sign<T: Send + 'static>(
        &mut self,
        name: &str,
        prepared: Result<(Signer, Prepared), Error>,
        pin: Pin,
        reply: Reply<T>,
        answer: fn(Kept) -> Result<T, Error>,
    ) {
        let (Signer { device, issuer, .. }, plan) = match prepared {
            Err(error) => return reply.answer(self, Err(error)),
            Ok((_, Prepared::Nothing(kept))) => return reply.answer(self, answer(kept)),
            Ok((signer, Prepared::Sign(plan))) => (signer, plan),
        };
        let may = {
            let label = issuer.label.clone();
            move |station: &Self| station.keys.may_try(&label).map(drop)
        };
        if let Err(error) = may(self) {
            return reply.answer(self, Err(error));
        }
        let (order, by) = (order(&plan), reply.by());
        let task = move |token: &mut Token| signing::sign(token, &pin, order);
        self.on_token(name, device, by, may, task, move |station, signed| {
            let result = signed.and_then(|(_, signed)| {
                let (signed, card) = signed.map_err(|why| {
                    let (token, called) = (station.keys.token(&issuer.label), &issuer.called);
                    station.families.failure(token, called, why, by)
                })?;
                station.note_card(&issuer.label, &plan, card);
                station.change_families(|families, keys, changes| {
                    families.keep(&issuer, plan, signed, &|key| keys.label_of(key), by, changes)
                })
            });
            reply.answer(station, result.and_then(answer));
        });
    }

    fn note_card(&mut self, label: &Label, plan: &Plan, card: CardOutcome) {
        if plan.card_adds_first()
            && card == CardOutcome::Written
            && let Some(key) = self.keys.get_mut(label)
        {
            key.card_renewals += 1;
        }
        self.keys.note_card(label, card);
    }
}

/// The part of a plan that the token needs.
fn order(plan: &Plan) -> Order {
    Order {
        unsigned: plan.unsigned(),
        proves: plan.proves(),
        all_or_nothing: plan.all_or_nothing(),
        card: plan.card(),
        card_adds_first: plan.card_adds_first(),
    }
}

fn nothing(_: Kept) -> Result<(), Error> {
    Ok(())
}

fn certified(kept: Kept) -> Result<(Id, String), Error> {
    match kept {
        Kept::Certified { id, chain } => Ok((id, chain)),
        Kept::Nothing => Err(Error::JobLost),
    }
}
