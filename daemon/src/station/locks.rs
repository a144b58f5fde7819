//! Adding Locks, and what people call Keys and Locks.

use keywright_proto::{Certificate, Id, PublicKey, read_csr, verify_chain};

use super::{
    Reply, Station, chains::chain_pem, issuing::Issuing, serializations::checked, view::Label,
};
use crate::{
    audit::AuditEvent,
    clock,
    error::Error,
    owed::Of,
    registry::{
        Batch,
        records::{self, Family, Lock, Membership},
    },
    serialization::{
        card::Carried,
        lock_certificate::{LockRequest, sign_lock},
        new_issuer,
    },
    token::{Container, Pin, Token},
};

/// How often AddLock renews a card in one plug: as many Locks as it has room for. Firmware keeps something of every
/// authentication of the management key until the token is pulled out, and gives up after some hundred.
const CARD_RENEWALS: usize = 4;

impl Station {
    /// The link tells whether a Lock is there: a hint, for people.
    pub fn lock_seen(&mut self, lock: Id, online: bool, reply: Reply<()>) {
        let seen = self.note_lock(lock, online);
        reply.answer(self, seen);
    }

    fn note_lock(&self, lock: Id, online: bool) -> Result<(), Error> {
        let missing = || Error::NotFound(format!("Lock {lock}"));
        let known = self.registry.lock(lock)?.ok_or_else(missing)?;
        let mut batch = Batch::new();
        batch.put_lock(lock, Lock { online, last_seen: clock::unix_seconds(), ..known });
        Ok(self.registry.commit(batch)?)
    }

    /// AddLock.
    pub fn add_lock(
        &mut self,
        issuer: Label,
        name: String,
        csr_pem: String,
        pin: Pin,
        reply: Reply<(Id, String)>,
    ) {
        let prepared = self.prepare_lock(&issuer, &name, &csr_pem);
        let (issuing, identity_key) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return reply.answer(self, Err(error)),
        };
        let lock = identity_key.id();
        match self.same_lock(lock, &identity_key, issuing.family) {
            Ok(None) => {}
            Ok(Some(chain)) => return reply.answer(self, Ok((lock, chain))),
            Err(error) => return reply.answer(self, Err(error)),
        }
        let renewals = self.keys.get(&issuer).map_or(0, |key| key.card_renewals);
        let card = match self.card_order(&issuer, &issuing) {
            Ok(card) => Some(card).filter(|_| renewals < CARD_RENEWALS),
            Err(error) => return reply.answer(self, Err(error)),
        };
        let request = LockRequest {
            card,
            key: identity_key.clone(),
            chain: issuing.chain.clone(),
            prove: issuing.unpinned,
            made: clock::unix_seconds(),
            years: self.config.certificate_years,
        };
        let job = move |token: &mut Token| sign_lock(token, &pin, &request);
        let may = {
            let issuer = issuer.clone();
            move |station: &Self| station.may_try(&issuer).map(drop)
        };
        self.on_token("lock", issuing.device.clone(), may, job, move |station, signed| {
            let result = signed.and_then(|(_, certificate)| {
                let (certificate, card) =
                    certificate.map_err(|why| station.failure(&issuer, why))?;
                if card == Carried::Written
                    && let Some(key) = station.keys.get_mut(&issuer)
                {
                    key.card_renewals += 1;
                }
                station.note_card(&issuer, card);
                station.keep_lock(&issuer, &issuing, &identity_key, name, certificate)
            });
            reply.answer(station, result.map(|chain| (lock, chain)));
        });
    }

    fn prepare_lock(
        &self,
        issuer: &Label,
        name: &str,
        csr_pem: &str,
    ) -> Result<(Issuing, PublicKey), Error> {
        checked(name)?;
        let key = read_csr(csr_pem).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let issuing = self.issuing(issuer)?;
        self.may_try(issuer)?;
        Ok((issuing, key))
    }

    /// The chain of a Lock that was added before: adding it again is no error.
    fn same_lock(
        &self,
        lock: Id,
        identity_key: &PublicKey,
        family: Id,
    ) -> Result<Option<String>, Error> {
        if self.is_removed(family, identity_key)? {
            return Err(Error::InvalidArgument(
                "this Lock was removed from the family, which is final for its key; let it make a new key and request"
                    .into(),
            ));
        }
        let Some(known) = self.registry.lock(lock)? else { return Ok(None) };
        if known.identity_key != identity_key.spki_der() || known.family != family {
            return Err(Error::InvalidArgument(format!(
                "this Lock belongs to family {} already; a Lock has one family",
                known.family
            )));
        }
        // What a revoked issuer had certified is certified anew.
        if self.owed(family)?.certificates.iter().any(|void| void.of == Of::Lock(lock)) {
            return Ok(None);
        }
        let issuer = self.registry.issuer(known.issuer)?;
        let mut chain = vec![known.certificate];
        chain.extend(issuer.map(|issuer| issuer.chain).unwrap_or_default());
        chain_pem(&chain).map(Some)
    }

    /// Puts a Lock into the registry, and the family's root where it was proven just now.
    fn keep_lock(
        &mut self,
        label: &Label,
        issuing: &Issuing,
        identity_key: &PublicKey,
        name: String,
        certificate: Vec<u8>,
    ) -> Result<String, Error> {
        let (now, lock) = (clock::unix_seconds(), identity_key.id());
        // Another call may have added it while the token signed.
        if let Some(chain) = self.same_lock(lock, identity_key, issuing.family)? {
            return Ok(chain);
        }
        let ca = issuing.chain.first().map_or(issuing.family, |own| own.public_key().id());
        let mut batch = Batch::new();
        if issuing.unpinned {
            self.pin_family(&mut batch, label, issuing, now)?;
        } else {
            self.put_own_issuer(&mut batch, issuing)?;
        }
        let known = self.registry.family(issuing.family)?;
        let root = issuing.chain.last().map(|root| root.der().to_vec()).unwrap_or_default();
        let mut family = known.unwrap_or(Family { root, pinned: now, locks: 0 });
        let again = self.registry.lock(lock)?;
        family.locks += u32::from(again.is_none());
        let event = match again {
            None => AuditEvent::LockAdded { family: issuing.family, lock, name: name.clone() },
            Some(_) => AuditEvent::SignedAnew { family: issuing.family, papers: 1 },
        };
        self.log(&mut batch, &event);
        batch.put_family(issuing.family, family);
        let mut chain = vec![certificate.clone()];
        chain.extend(issuing.chain.iter().map(|ca| ca.der().to_vec()));
        batch.put_lock(
            lock,
            Lock {
                identity_key: identity_key.spki_der().to_vec(),
                name: again.as_ref().map_or(name, |known| known.name.clone()),
                family: issuing.family,
                certificate,
                issuer: ca,
                online: again.as_ref().is_some_and(|known| known.online),
                last_seen: again.map_or(now, |known| known.last_seen),
            },
        );
        self.registry.commit(batch)?;
        if issuing.unpinned {
            self.take_card(label);
        }
        self.refresh_family(issuing.family);
        chain_pem(&chain)
    }

    /// A Master, or a Backup with its whole chain, that was made elsewhere signed here: its family is believed from now on.
    pub(super) fn pin_family(
        &self,
        batch: &mut Batch,
        label: &Label,
        issuing: &Issuing,
        now: u64,
    ) -> Result<(), Error> {
        let key = self.key(label)?;
        let (Some(access), Some(own)) = (&key.claims.access, issuing.chain.first()) else {
            return Err(Error::Unverified(issuing.family));
        };
        let root = issuing.chain.last().map(Certificate::der).unwrap_or_default();
        let chain = [&[access.clone()][..], &issuing.chain].concat();
        let proven = verify_chain(&chain, root, None);
        let role = access.role().filter(|role| role.is_issuer() && proven == Ok(issuing.family));
        let Some(role) = role else { return Err(Error::Unverified(issuing.family)) };
        let id = access.public_key().id();
        // Their CRLs come with the first exchange with the station that made it.
        for (place, ca) in issuing.chain.iter().enumerate() {
            let above = issuing.chain.get(place..).unwrap_or_default();
            batch.put_issuer(ca.public_key().id(), new_issuer(issuing.family, above));
        }
        let known = self.registry.key(id)?;
        batch.put_key(
            id,
            known.unwrap_or_else(|| records::Key {
                access_key: access.public_key().spki_der().to_vec(),
                label: label.clone(),
                name: key.name.clone(),
                family: issuing.family,
                role,
                issuing_key: Some(own.public_key().spki_der().to_vec()),
                guid: key.guid,
                serial: key.serial.clone(),
                model: key.model.clone(),
                last_seen: now,
                revoked: false,
                puk_tried: false,
            }),
        );
        batch.put_membership(
            id,
            issuing.family,
            Membership {
                role,
                certificate: access.der().to_vec(),
                issuer: own.public_key().id(),
                container: Container::AccessCertificate.number(),
            },
        );
        self.log(batch, &AuditEvent::FamilyPinned { family: issuing.family });
        Ok(())
    }

    /// Shows anew every Key of a family.
    pub(super) fn refresh_family(&mut self, family: Id) {
        let of_family: Vec<Label> = self
            .keys
            .iter()
            .filter(|(_, key)| {
                key.memberships.iter().any(|(member_of, _)| *member_of == family)
                    || key.claims.family.is_some_and(|(claimed, _)| claimed == family)
            })
            .map(|(label, _)| label.clone())
            .collect();
        of_family.iter().for_each(|label| self.refresh(label));
    }
}
