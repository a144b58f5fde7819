//! Issuing Keys: which of them may sign now, and under which chain of CA certificates.

use keywright_base::clock;
use keywright_proto::{Certificate, Id, Judgement, Role, Standing, verify_chain};
use keywright_rules::decision::Reason;
use keywright_rules::presence::Claims;

use super::{Asker, AuditEvent, FIRST_CONTAINER, Families, Label};
use crate::{
    error::Error,
    registry::{
        Batch, RegistryError,
        records::{self, Membership},
    },
    serialization::new_issuer,
    trust,
};

/// A plugged-in Key that is to sign, as its family needs it.
#[derive(Debug, Clone, Default)]
pub struct Issuer {
    /// The last part of its object path.
    pub label: Label,
    /// Its id, once it has an access key of ours.
    pub id: Option<Id>,
    /// Its name here; empty while it has none.
    pub name: String,
    /// Its name for the text of an error.
    pub called: String,
    /// Whether it was revoked, as far as this station knows.
    pub is_revoked: bool,
    /// The CHUID's GUID.
    pub guid: Option<[u8; 16]>,
    /// The token's serial number, or the GUID in hex.
    pub serial: String,
    /// The product name.
    pub model: String,
    /// What its certificates claim.
    pub claims: Claims,
}

/// The family and the chain under which an issuing Key signs.
#[derive(Debug, Clone)]
pub struct Issuing {
    /// The family.
    pub family: Id,
    /// The Key's CA certificates, its own first, the root last.
    pub chain: Vec<Certificate>,
    /// Whether the family's root is not pinned here yet.
    pub unpinned: bool,
}

impl Issuing {
    /// The Key's own CA certificate.
    pub(super) fn own(&self) -> Result<&Certificate, Error> {
        self.chain.first().ok_or(Error::Unverified(self.family))
    }

    /// A certificate that this Key signed, followed by its chain, DER.
    pub(super) fn chain_below(&self, certificate: &[u8]) -> Vec<Vec<u8>> {
        let above = self.chain.iter().map(|ca| ca.der().to_vec());
        std::iter::once(certificate.to_vec()).chain(above).collect()
    }
}

impl Families {
    /// Checks that a Key may sign for its family, as far as that is visible without its token and the registry.
    ///
    /// # Errors
    /// `NotAnIssuer`, `Revoked`.
    pub fn may_issue(&self, issuer: &Issuer) -> Result<(), Error> {
        let (Some((_, role)), Some(_)) = (issuer.claims.family, &issuer.claims.issuing) else {
            return Err(Error::Pair(Reason::NotAnIssuer));
        };
        if issuer.is_revoked {
            return Err(Error::Pair(Reason::Revoked));
        }
        if role.is_issuer() { Ok(()) } else { Err(Error::Pair(Reason::NotAnIssuer)) }
    }

    /// The family and the chain under which a Key signs: to the pinned root, or to the root that its own signature will
    /// pin.
    ///
    /// # Errors
    /// As [`Self::may_issue`]. `Unverified`: its chain does not lead to the family's root. `Orphaned`: its
    /// issuer was revoked.
    pub fn issuing(&self, issuer: &Issuer) -> Result<Issuing, Error> {
        self.may_issue(issuer)?;
        let (Some((family, _)), Some(own)) = (issuer.claims.family, &issuer.claims.issuing) else {
            return Err(Error::Pair(Reason::NotAnIssuer));
        };
        let (chain, unpinned) = match self.carried_chain(&issuer.claims)? {
            Some(chain) => (chain, true),
            None => self.chain_of(own, family)?,
        };
        let judgement = self.judgement(family)?;
        match judgement.and_then(|judgement| judgement.standing(&own.public_key().hash())) {
            None | Some(Standing::Stands) => Ok(Issuing { family, chain, unpinned }),
            Some(Standing::Orphaned) => Err(Error::Orphaned(issuer.called.clone())),
            Some(_) => Err(Error::Pair(Reason::Revoked)),
        }
    }

    /// Which issuing Keys of a family are standing now. `None` if the family is not pinned here.
    pub(super) fn judgement(&self, family: Id) -> Result<Option<Judgement>, RegistryError> {
        let facts = trust::facts(&self.registry, family, &[])?;
        Ok(facts.map(|facts| self.moment().judge(&facts)))
    }

    /// Whether signatures of a CA of a family are effective now. True for a CA that is not in the registry.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn stands(&self, family: Id, ca: Id) -> Result<bool, Error> {
        let Some(judgement) = self.judgement(family)? else { return Ok(true) };
        let key = self.registry.issuer(ca)?.and_then(|issuer| {
            Some(Certificate::parse(issuer.chain.first()?).ok()?.public_key().hash())
        });
        Ok(key.is_none_or(|key| trust::stands(Some(&judgement), &key)))
    }

    /// Puts the CA of an issuing Key that was made at another station, when it first signs here.
    pub(super) fn put_own_issuer(&self, batch: &mut Batch, issuing: &Issuing) -> Result<(), Error> {
        let Some(own) = issuing.chain.first() else { return Ok(()) };
        let ca = own.public_key().id();
        if self.registry.issuer(ca)?.is_none() {
            batch.put_issuer(ca, new_issuer(issuing.family, &issuing.chain));
        }
        Ok(())
    }

    /// Puts a Master, or a Backup with its whole chain, that was made at another station and has signed here for the
    /// first time: its CAs, the Key and its membership. The caller puts the family.
    pub(super) fn pin_family(
        &self,
        batch: &mut Batch,
        issuer: &Issuer,
        issuing: &Issuing,
        by: Asker,
    ) -> Result<(), Error> {
        let (family, own) = (issuing.family, issuing.own()?);
        let access = issuer.claims.access.as_ref().ok_or(Error::Unverified(family))?;
        let root = issuing.chain.last().map(Certificate::der).unwrap_or_default();
        let chain = [&[access.clone()][..], &issuing.chain].concat();
        let proven = verify_chain(&chain, root, None) == Ok(family);
        let role = access.role().filter(|role: &Role| role.is_issuer() && proven);
        let role = role.ok_or(Error::Unverified(family))?;
        let id = access.public_key().id();
        // The CRLs of these CAs arrive with the first exchange with the station that made the Key.
        for (place, ca) in issuing.chain.iter().enumerate() {
            let above = issuing.chain.get(place..).unwrap_or_default();
            batch.put_issuer(ca.public_key().id(), new_issuer(family, above));
        }
        let known = self.registry.key(id)?;
        let record = known.unwrap_or_else(|| records::Key {
            access_key: access.public_key().spki_der().to_vec(),
            label: issuer.label.clone(),
            name: issuer.name.clone(),
            family,
            guid: issuer.guid,
            serial: issuer.serial.clone(),
            model: issuer.model.clone(),
            last_seen: clock::unix_seconds(),
            puk_tried: false,
        });
        batch.put_key(id, record);
        let (certificate, issuing_key) = (access.der().to_vec(), own.public_key().spki_der());
        let membership = Membership::new(role, certificate, issuing_key, FIRST_CONTAINER);
        batch.put_membership(id, family, membership);
        self.log(batch, &AuditEvent::FamilyPinned { family }, by);
        Ok(())
    }
}
