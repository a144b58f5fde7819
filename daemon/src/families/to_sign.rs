//! Plans signatures and keeps them: a [`Plan`] lists what an issuing Key is to sign, in order, and how each signed
//! object is kept. AddLock, ChangeRights, RevokeKey, RemoveLock and IssueSoftKey prepare one; [`Families::keep`] keeps
//! the signed objects.

use std::collections::{BTreeMap, btree_map::Entry};

use keywright_base::clock;
use keywright_proto::{Id, PublicKey, Unsigned, tree::Hash};

use super::{
    Asker, AuditEvent, Changes, Families, Issuer, Issuing, Label, chains::chain_pem,
    statements::NewStatement,
};
use crate::{
    error::Error,
    pending_signatures,
    registry::{
        Batch, RegistryError,
        records::{self, Lock, LockRemoval, Revocation},
    },
    serialization::{card::CardOrder, new_issuer},
};

/// An object to sign, with what is needed to keep it.
#[derive(Debug)]
pub(super) enum ToSign {
    /// The certificate of a Lock that is added, or added again.
    NewLock { key: PublicKey, name: String },
    /// The certificate of a Soft Key.
    SoftKey { key: PublicKey, name: String },
    /// A Key's rights.
    Statement(Box<NewStatement>),
    /// A Key's revocation.
    Revocation { key: Id, salt_seed: [u8; 32], reason: String },
    /// The next CRL of a CA.
    Crl(Id),
    /// The issuing Key's own root, which replaces the Master's.
    Root(Id),
    /// The CA certificate of a Backup whose issuer was revoked.
    Ca(Id),
    /// The certificate of a Lock whose issuer was revoked.
    LockCertificate { lock: Id },
    /// The removal of a Lock.
    LockRemoval { lock: Id, key_hash: Hash },
}

impl ToSign {
    /// Whether it belongs to the revocation itself, which does not depend on what is re-issued because of it.
    const fn revokes(&self) -> bool {
        matches!(self, Self::Revocation { .. } | Self::Crl(_))
    }
}

/// The call for which the plan is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    AddLock,
    ChangeRights(Id),
    RevokeKey(Id),
    RemoveLock(Id),
    IssueSoftKey(Id),
}

/// What an issuing Key is to sign in one call.
pub struct Plan {
    purpose: Purpose,
    issuing: Issuing,
    /// The objects, in the order of signing.
    pub(super) objects: Vec<(ToSign, Unsigned)>,
    /// Serial numbers to list in the next CRL of another CA.
    pub(super) waiting: Vec<(Id, Vec<u8>)>,
    /// The card to write to the issuing Key afterwards.
    pub(super) card: Option<CardOrder>,
    /// The event to log with the first commit.
    pub(super) event: Option<AuditEvent>,
}

/// Result of preparing a call.
pub enum Prepared {
    /// Nothing has to be signed.
    Nothing(Kept),
    /// This plan has to be signed.
    Sign(Box<Plan>),
}

/// The answer of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Done, without a value.
    Nothing,
    /// The Lock or Soft Key that was certified, and its chain, PEM.
    Certified {
        /// Its id.
        id: Id,
        /// Its certificate and those above it.
        chain: String,
    },
}

impl Plan {
    pub(super) fn new(purpose: Purpose, issuing: &Issuing) -> Self {
        let issuing = issuing.clone();
        Self { purpose, issuing, objects: vec![], waiting: vec![], card: None, event: None }
    }

    /// Checks the plan. Only AddLock may sign for a family that is not pinned here: its signature pins it.
    pub(super) fn prepared(self) -> Result<Prepared, Error> {
        if self.objects.is_empty() {
            return Ok(Prepared::Nothing(Kept::Nothing));
        }
        if self.issuing.unpinned && self.purpose != Purpose::AddLock {
            return Err(Error::Unverified(self.issuing.family));
        }
        Ok(Prepared::Sign(Box::new(self)))
    }

    /// The family and the chain under which the issuing Key signs.
    pub const fn issuing(&self) -> &Issuing {
        &self.issuing
    }

    /// The objects to sign, in this order.
    pub fn unsigned(&self) -> Vec<Unsigned> {
        self.objects.iter().map(|(_, unsigned)| unsigned.clone()).collect()
    }

    /// The card to write once everything is signed; see [`Self::card_adds_first`].
    pub fn card(&self) -> Option<CardOrder> {
        self.card.clone()
    }

    /// Whether the card has to add the first signed object, which is the certificate of a new Lock.
    pub fn card_adds_first(&self) -> bool {
        self.card.is_some() && self.purpose == Purpose::AddLock
    }

    /// Whether the issuing key has to sign a challenge first. This call pins its family's root, so no object may be
    /// signed before the token has proved to hold the key.
    pub const fn proves(&self) -> bool {
        self.issuing.unpinned
    }

    /// Whether nothing is kept unless everything was signed. A revocation keeps what was signed before a signature
    /// failed.
    pub const fn all_or_nothing(&self) -> bool {
        !matches!(self.purpose, Purpose::RevokeKey(_))
    }
}

/// The records of CAs that change in a batch.
type Issuers = BTreeMap<Id, records::Issuer>;

impl Families {
    /// Keeps the signed objects of a plan, in its order. `label_of` finds the shown Key with an access key.
    ///
    /// # Errors
    /// `Stale`: a Key's rights were changed meanwhile. `InvalidArgument`: the Lock was removed meanwhile. `JobLost`: not
    /// everything was signed, where that is needed.
    pub fn keep(
        &mut self,
        issuer: &Issuer,
        plan: Box<Plan>,
        signed: Vec<Vec<u8>>,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<Kept, Error> {
        let missing = plan.objects.len().saturating_sub(signed.len());
        if missing > 0 && (plan.all_or_nothing() || signed.is_empty()) {
            return Err(Error::JobLost);
        }
        let Plan { purpose, issuing, objects, waiting, event, .. } = *plan;
        let family = issuing.family;
        // Another call may have added the Lock while the token signed.
        if let Some((ToSign::NewLock { key, .. }, _)) = objects.first()
            && let Some(kept) = self.added_lock(key, family)?
        {
            return Ok(kept);
        }
        let objects = objects.into_iter().map(|(object, _)| object).zip(signed);
        let is_first = |object: &ToSign| match purpose {
            Purpose::RevokeKey(_) => object.revokes(),
            _ => true,
        };
        let (first, again): (Vec<_>, Vec<_>) = objects.partition(|(object, _)| is_first(object));
        let (mut batch, mut issuers, mut kept) = (Batch::new(), Issuers::new(), Kept::Nothing);
        if issuing.unpinned {
            self.pin_family(&mut batch, issuer, &issuing, by)?;
        } else {
            self.put_own_issuer(&mut batch, &issuing)?;
        }
        for (ca, serial) in waiting {
            if let Some(issuer) = self.changing(&mut issuers, ca)? {
                issuer.to_revoke.push(serial);
            }
        }
        for (object, signed) in first {
            if let ToSign::NewLock { key, .. } | ToSign::SoftKey { key, .. } = &object {
                let chain = chain_pem(issuing.chain_below(&signed))?;
                kept = Kept::Certified { id: key.id(), chain };
            }
            self.put(&mut batch, &issuing, &mut issuers, object, signed, by)?;
        }
        if let Some(event) = event {
            self.log(&mut batch, &event, by);
        }
        put_issuers(&mut batch, issuers);
        self.registry.commit(batch)?;
        match purpose {
            Purpose::AddLock => {
                changes.families.insert(family);
                if issuing.unpinned {
                    self.take_card(issuer, label_of, by, changes);
                }
            }
            Purpose::ChangeRights(key) => {
                changes.keys.insert(key);
            }
            Purpose::IssueSoftKey(key) => changes.new_keys.push(key),
            Purpose::RemoveLock(lock) => {
                tracing::info!(%lock, %family, "a Lock was removed");
                changes.families.insert(family);
                self.settle_removals(family, by)?;
            }
            Purpose::RevokeKey(key) => {
                tracing::info!(%key, %family, "revoked");
                if let Err(error) = self.keep_reissued(&issuing, again, by) {
                    tracing::error!(%error, %family, "what was signed again is not kept, and waits");
                }
                if missing > 0 {
                    tracing::warn!(%family, missing, "not everything was signed again; the rest waits");
                }
                self.settle_revocations(family, by, changes)?;
            }
        }
        Ok(kept)
    }

    /// Keeps objects that were re-issued because of a revocation, which is committed already. An object whose record
    /// changed meanwhile stays pending.
    fn keep_reissued(
        &self,
        issuing: &Issuing,
        signed: Vec<(ToSign, Vec<u8>)>,
        by: Asker,
    ) -> Result<(), Error> {
        let (family, mut batch, mut count) = (issuing.family, Batch::new(), 0);
        let mut issuers = Issuers::new();
        for (object, signed) in signed {
            match self.put(&mut batch, issuing, &mut issuers, object, signed, by) {
                Ok(()) => count += 1,
                Err(Error::Stale(what)) => {
                    tracing::warn!(%family, what, "changed meanwhile; its re-issue stays pending");
                }
                Err(error) => return Err(error),
            }
        }
        if count == 0 {
            return Ok(());
        }
        self.log(&mut batch, &AuditEvent::SignedAnew { family, papers: count }, by);
        put_issuers(&mut batch, issuers);
        Ok(self.registry.commit(batch)?)
    }

    /// Puts one signed object.
    fn put(
        &self,
        batch: &mut Batch,
        issuing: &Issuing,
        issuers: &mut Issuers,
        object: ToSign,
        signed: Vec<u8>,
        by: Asker,
    ) -> Result<(), Error> {
        let (family, now) = (issuing.family, clock::unix_seconds());
        match object {
            ToSign::NewLock { key, name } => {
                self.put_lock(batch, issuing, &key, name, signed, by)?;
            }
            ToSign::SoftKey { key, name } => {
                self.put_soft_key(batch, issuing, &key, name, signed)?;
            }
            ToSign::Statement(new) => self.put_statement(batch, *new, signed)?,
            ToSign::Revocation { key, salt_seed, reason } => {
                let (cose, first_seen) = (signed, now);
                let revocation = Revocation { key, cose, salt_seed, first_seen, reason };
                batch.put_revocation(family, revocation);
            }
            ToSign::Crl(ca) => {
                self.changing(issuers, ca)?;
                let new = || new_issuer(family, &issuing.chain);
                pending_signatures::replace_crl(issuers.entry(ca).or_insert_with(new), signed);
            }
            ToSign::Root(ca) => {
                batch.put_root(family, ca, signed);
            }
            ToSign::Ca(ca) => {
                if let Some(issuer) = self.changing(issuers, ca)? {
                    issuer.chain = issuing.chain_below(&signed);
                }
            }
            ToSign::LockCertificate { lock } => {
                if let Some(known) = self.registry.lock(lock)? {
                    let issuer = issuing.own()?.public_key().id();
                    batch.put_lock(lock, Lock { certificate: signed, issuer, ..known });
                }
            }
            ToSign::LockRemoval { lock, key_hash } => {
                let removal = LockRemoval { lock, key_hash, cose: signed, first_seen: now };
                batch.put_lock_removal(family, removal);
            }
        }
        Ok(())
    }

    /// The record of a known CA, to be changed in this batch.
    fn changing<'a>(
        &self,
        issuers: &'a mut Issuers,
        ca: Id,
    ) -> Result<Option<&'a mut records::Issuer>, RegistryError> {
        match issuers.entry(ca) {
            Entry::Occupied(known) => Ok(Some(known.into_mut())),
            Entry::Vacant(new) => Ok(self.registry.issuer(ca)?.map(|issuer| new.insert(issuer))),
        }
    }
}

fn put_issuers(batch: &mut Batch, issuers: Issuers) {
    for (ca, issuer) in issuers {
        batch.put_issuer(ca, issuer);
    }
}
