//! An issuing Key that signs outside of a serialization.

use keywright_proto::{Certificate, Id, Standing, Unsigned};

use super::{Station, keys::Key, view::Label};
use crate::{
    audit::AuditEvent,
    decision::Reason,
    error::Error,
    hotplug::Device,
    judging,
    registry::Batch,
    serialization::{
        card::CardOrder,
        new_issuer,
        order::Failure,
        signing::{self, Signed},
    },
    token::{Pin, Token, TokenError},
};

/// An issuing Key that is plugged in, and what its signatures count under.
#[derive(Clone)]
pub(super) struct Issuing {
    pub(super) device: Device,
    pub(super) family: Id,
    /// Its CA certificates, its own first, the root last.
    pub(super) chain: Vec<Certificate>,
    /// The family's root is not pinned here yet.
    pub(super) unpinned: bool,
}

impl Station {
    /// A Master or Backup that is plugged in and stands, with a chain to the pinned root, or to the
    /// root that its own signature will pin.
    pub(super) fn issuing(&self, label: &Label) -> Result<Issuing, Error> {
        let key = self.key(label)?;
        let (Some(family), Some(own)) = (key.claims.family, &key.claims.issuing) else {
            return Err(Error::Pair(Reason::NotAnIssuer));
        };
        if key.state == crate::presence::State::Revoked {
            return Err(Error::Pair(Reason::Revoked));
        }
        let (family, role) = family;
        if !role.is_issuer() {
            return Err(Error::Pair(Reason::NotAnIssuer));
        }
        let device = self.present_key(label)?.1.clone();
        self.is_free(label, None)?;
        let (chain, unpinned) = match self.carried_chain(&key.claims)? {
            Some(chain) => (chain, true),
            None => self.chain_of(own, family)?,
        };
        if let Some(facts) = judging::facts(&self.registry, family, &[])? {
            let standing = self.moment().judge(&facts).standing(&own.public_key().hash());
            match standing {
                None | Some(Standing::Stands) => {}
                Some(Standing::Orphaned) => return Err(Error::Orphaned(key.called())),
                Some(_) => return Err(Error::Pair(Reason::Revoked)),
            }
        }
        Ok(Issuing { device, family, chain, unpinned })
    }

    /// Whether what a CA of a family signs counts now. One that is not known here is not judged here.
    pub(super) fn stands(&self, family: Id, ca: Id) -> Result<bool, Error> {
        let Some(facts) = judging::facts(&self.registry, family, &[])? else { return Ok(true) };
        let key = self.registry.issuer(ca)?.and_then(|issuer| {
            Some(Certificate::parse(issuer.chain.first()?).ok()?.public_key().hash())
        });
        let standing = key.and_then(|key| self.moment().judge(&facts).standing(&key));
        Ok(standing.is_none_or(|standing| standing == Standing::Stands))
    }

    /// Lets an issuing Key sign these papers, in this order, all or none. Only for a family that is
    /// pinned: what is signed counts at once.
    pub(super) fn sign(
        &mut self,
        name: &str,
        label: Label,
        issuing: &Issuing,
        pin: Pin,
        papers: Vec<Unsigned>,
        done: impl FnOnce(&mut Self, Result<Vec<Vec<u8>>, Error>) + Send + 'static,
    ) {
        self.sign_with_card(name, label, issuing, pin, (papers, None), done);
    }

    /// The same where each paper counts by itself: what was signed before one failed is kept.
    pub(super) fn sign_first(
        &mut self,
        name: &str,
        label: Label,
        issuing: &Issuing,
        pin: Pin,
        papers: Vec<Unsigned>,
        done: impl FnOnce(&mut Self, Result<Vec<Vec<u8>>, Error>) + Send + 'static,
    ) {
        let job = move |token: &mut Token| signing::sign_first(token, &pin, papers);
        self.sign_by(name, label, issuing, job, done);
    }

    /// All or none, where the issuing Key's card changes with it.
    pub(super) fn sign_with_card(
        &mut self,
        name: &str,
        label: Label,
        issuing: &Issuing,
        pin: Pin,
        (papers, card): (Vec<Unsigned>, Option<CardOrder>),
        done: impl FnOnce(&mut Self, Result<Vec<Vec<u8>>, Error>) + Send + 'static,
    ) {
        let job = move |token: &mut Token| signing::sign_all(token, &pin, papers, card.as_ref());
        self.sign_by(name, label, issuing, job, done);
    }

    fn sign_by(
        &mut self,
        name: &str,
        label: Label,
        issuing: &Issuing,
        job: impl FnOnce(&mut Token) -> Result<Signed, TokenError> + Send + 'static,
        done: impl FnOnce(&mut Self, Result<Vec<Vec<u8>>, Error>) + Send + 'static,
    ) {
        if issuing.unpinned {
            return done(self, Err(Error::Unverified(issuing.family)));
        }
        let may = {
            let label = label.clone();
            move |station: &Self| station.may_try(&label).map(drop)
        };
        if let Err(error) = may(self) {
            return done(self, Err(error));
        }
        self.on_token(name, issuing.device.clone(), may, job, move |station, signed| {
            let signed =
                signed.and_then(|(_, signed)| signed.map_err(|why| station.failure(&label, why)));
            let signed = signed.map(|(papers, card)| {
                station.note_card(&label, card);
                papers
            });
            done(station, signed);
        });
    }

    /// What the failure of a signature means. A token that is not what it claims to be is logged.
    pub(super) fn failure(&self, label: &Label, why: Failure) -> Error {
        if matches!(why, Failure::NotGenuine(_)) {
            self.note_event(&AuditEvent::KeyNotGenuine { token: self.token(label) });
        }
        Error::failed(&self.key(label).map(Key::called).unwrap_or_default(), why)
    }

    /// An issuing Key that was made at another station is known from its first signature here on.
    pub(super) fn put_own_issuer(&self, batch: &mut Batch, issuing: &Issuing) -> Result<(), Error> {
        let Some(own) = issuing.chain.first() else { return Ok(()) };
        let ca = own.public_key().id();
        if self.registry.issuer(ca)?.is_none() {
            batch.put_issuer(ca, new_issuer(issuing.family, &issuing.chain));
        }
        Ok(())
    }
}
