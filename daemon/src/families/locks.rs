//! AddLock, and the presence of Locks.

use keywright_base::clock;
use keywright_proto::{Certificate, Id, PublicKey, Role, profile};

use super::{
    Asker, AuditEvent, Families, Issuer, Issuing, Kept, Plan, Prepared,
    chains::chain_pem,
    to_sign::{Purpose, ToSign},
    unsupported,
};
use crate::{
    error::Error,
    pending_signatures::Holder,
    registry::{
        Batch,
        records::{Family, Lock},
    },
};

impl Families {
    /// Prepares the certificate of a Lock. A Lock that was added before needs no signature, only its chain. With
    /// `renews_card` the issuing Key's card gets the Lock, too. If the family is not pinned here, the signature pins
    /// it.
    ///
    /// # Errors
    /// `InvalidArgument`: it belongs to another family, or was removed from this one.
    pub fn prepare_lock(
        &self,
        issuer: &Issuer,
        issuing: &Issuing,
        key: PublicKey,
        name: String,
        renews_card: bool,
    ) -> Result<Prepared, Error> {
        if let Some(kept) = self.added_lock(&key, issuing.family)? {
            return Ok(Prepared::Nothing(kept));
        }
        let mut plan = Plan::new(Purpose::AddLock, issuing);
        plan.card = Some(self.card_order(issuer, issuing)?).filter(|_| renews_card);
        let unsigned = self.lock_certificate(&key, issuing.own()?)?;
        plan.objects.push((ToSign::NewLock { key, name }, unsigned));
        plan.prepared()
    }

    /// The answer of AddLock for a Lock that was added before: adding it again is no error.
    pub(super) fn added_lock(
        &self,
        identity_key: &PublicKey,
        family: Id,
    ) -> Result<Option<Kept>, Error> {
        if self.is_removed(family, identity_key)? {
            return Err(Error::InvalidArgument(
                "this Lock was removed from the family, which is final for its key; let it make a new key and request"
                    .into(),
            ));
        }
        let lock = identity_key.id();
        let Some(known) = self.registry.lock(lock)? else { return Ok(None) };
        if known.identity_key != identity_key.spki_der() || known.family != family {
            return Err(Error::InvalidArgument(format!(
                "this Lock belongs to family {} already; a Lock has one family",
                known.family
            )));
        }
        // A certificate by a revoked issuer has to be re-issued.
        let pending = self.pending_signatures(family)?;
        if pending.certificates.iter().any(|void| void.holder == Holder::Lock(lock)) {
            return Ok(None);
        }
        let issuer = self.registry.issuer(known.issuer)?;
        let above = issuer.map(|issuer| issuer.chain).unwrap_or_default();
        let chain = chain_pem(std::iter::once(known.certificate).chain(above))?;
        Ok(Some(Kept::Certified { id: lock, chain }))
    }

    /// Prepares a Lock's certificate by this CA.
    pub(super) fn lock_certificate(
        &self,
        identity_key: &PublicKey,
        own: &Certificate,
    ) -> Result<keywright_proto::Unsigned, Error> {
        let (serial, validity) = self.new_certificate()?;
        profile::end_entity(identity_key, Role::Lock, own, &serial, validity).map_err(unsupported)
    }

    /// Puts a certified Lock, and its family if that was pinned just now. A Lock that was certified again keeps its
    /// name and state.
    pub(super) fn put_lock(
        &self,
        batch: &mut Batch,
        issuing: &Issuing,
        identity_key: &PublicKey,
        name: String,
        certificate: Vec<u8>,
        by: Asker,
    ) -> Result<(), Error> {
        let (family, now, lock) = (issuing.family, clock::unix_seconds(), identity_key.id());
        let root = issuing.chain.last().map(|root| root.der().to_vec()).unwrap_or_default();
        let record = self.registry.family(family)?;
        let mut record = record.unwrap_or(Family { root, pinned: now, locks: 0 });
        let again = self.registry.lock(lock)?;
        record.locks += u32::from(again.is_none());
        batch.put_family(family, record);
        let event = match again {
            None => AuditEvent::LockAdded { family, lock, name: name.clone() },
            Some(_) => AuditEvent::SignedAnew { family, papers: 1 },
        };
        self.log(batch, &event, by);
        let issuer = issuing.own()?.public_key().id();
        let new = match again {
            Some(known) => Lock { certificate, issuer, ..known },
            None => Lock {
                identity_key: identity_key.spki_der().to_vec(),
                name,
                family,
                certificate,
                issuer,
                online: false,
                last_seen: now,
            },
        };
        batch.put_lock(lock, new);
        Ok(())
    }

    /// Notes the presence of a Lock, as the link reports it: only a hint for people.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn note_lock(&self, lock: Id, online: bool) -> Result<(), Error> {
        let missing = || Error::NotFound(format!("Lock {lock}"));
        let known = self.registry.lock(lock)?.ok_or_else(missing)?;
        let mut batch = Batch::new();
        batch.put_lock(lock, Lock { online, last_seen: clock::unix_seconds(), ..known });
        Ok(self.registry.commit(batch)?)
    }
}
