//! Signs the objects of a job: certificates, the first CRL, the statement.

use keywright_proto::{
    Certificate, Kind, PublicKey, Unsigned, crl, profile,
    statement::Statement,
    tree::{Effect, Target, Tree},
    words::{Stage, Who},
};
use keywright_token::{Pin, Session, Slot, Token, validity};

use super::{
    order::{Failure, Stop},
    write::{Write, open, stays_authorized},
};
use crate::registry::records::LockEntry;

/// Seconds in a day.
const DAY: u64 = 86_400;
/// Seconds in a year.
const YEAR: u64 = 365 * DAY + DAY / 4;

fn profile_failure(error: impl std::fmt::Display) -> Stop {
    Failure::Profile(error.to_string()).into()
}

impl Write {
    /// Makes the issuer's signatures, at most two, and saves them together. They are not made twice.
    pub(super) fn issue(&mut self) -> Result<(), Stop> {
        self.enter(Stage::Certificates)?;
        if self.order.intent.issuer.is_none() || self.order.intent.made.statement.is_some() {
            return Ok(());
        }
        let chain = self.order.chain.clone();
        let certificate = match (self.order.intent.kind, chain.first()) {
            (_, None) => return Err(profile_failure("the issuer has no CA certificate")),
            (Kind::Sub, Some(issuer)) => match &self.order.membership {
                Some(_) => None,
                None => Some(self.access_certificate(issuer)?),
            },
            (_, Some(issuer)) => {
                let key = key(self.order.intent.made.issuing_key.as_deref())?;
                let serial = self.serial(1);
                Some(
                    profile::backup_ca(
                        &key,
                        issuer,
                        &serial,
                        validity(self.order.intent.started, self.order.certificate_years),
                    )
                    .map_err(profile_failure)?,
                )
            }
        };
        let statement = self.statement(&chain)?;
        let Some(side) = &self.order.issuer else {
            return Err(profile_failure("the issuer is not plugged in"));
        };
        let (session, pin) = (open(side, Who::Issuer)?, side.pin.clone());
        let signed = self.sign_by_issuer(&session, &pin, certificate, statement);
        // Clear the token even if signing failed, so that it does not stay authorized.
        let cleared = session.run(Token::clear);
        self.issuer_stays_authorized(stays_authorized(&cleared));
        let (certificate, statement) = signed?;
        match (self.order.intent.kind, certificate) {
            (Kind::Sub, Some(access)) => self.order.intent.made.access_certificate = Some(access),
            (_, Some(ca)) => self.order.intent.made.ca_certificate = Some(ca),
            (_, None) => {}
        }
        self.order.intent.made.statement = Some(statement);
        self.save()?;
        cleared.map(drop).map_err(|error| Stop::of(Who::Issuer, error))
    }

    fn sign_by_issuer(
        &mut self,
        session: &Session,
        pin: &Pin,
        certificate: Option<Unsigned>,
        statement: Unsigned,
    ) -> Result<(Option<Vec<u8>>, Vec<u8>), Stop> {
        let certificate = match certificate {
            Some(certificate) => {
                self.step()?;
                Some(sign(session, pin, certificate, Who::Issuer)?)
            }
            None => None,
        };
        self.enter(Stage::Statement)?;
        Ok((certificate, sign(session, pin, statement, Who::Issuer)?))
    }

    /// Makes the signatures of the new Key's own issuing key. A Sub Key has none.
    pub(super) fn certify(&mut self) -> Result<(), Stop> {
        if self.order.intent.kind == Kind::Sub {
            return Ok(());
        }
        let pin = self.order.candidate.pin.clone();
        if self.order.intent.made.ca_certificate.is_none() {
            let key = key(self.order.intent.made.issuing_key.as_deref())?;
            let unsigned = profile::master_ca(
                &key,
                &self.serial(1),
                validity(self.order.intent.started, self.order.certificate_years),
            );
            let signed = self.sign_by_candidate(&pin, unsigned.map_err(profile_failure)?)?;
            self.order.intent.made.ca_certificate = Some(signed);
        }
        let ca = self.own_ca()?;
        if self.order.intent.made.access_certificate.is_none() {
            let unsigned = self.access_certificate(&ca)?;
            let signed = self.sign_by_candidate(&pin, unsigned)?;
            self.order.intent.made.access_certificate = Some(signed);
        }
        if self.order.intent.made.crl.is_none() {
            let from = self.order.intent.started;
            let until = from + u64::from(self.order.crl_years) * YEAR;
            let unsigned = crl::crl(&ca, 1, from.saturating_sub(DAY), until, &[]);
            let signed = self.sign_by_candidate(&pin, unsigned.map_err(profile_failure)?)?;
            self.order.intent.made.crl = Some(signed);
        }
        if self.order.intent.made.statement.is_none() {
            self.enter(Stage::Statement)?;
            let unsigned = self.statement(std::slice::from_ref(&ca))?;
            let signed = self.sign_by_candidate(&pin, unsigned)?;
            self.order.intent.made.statement = Some(signed);
        }
        self.save()
    }

    fn sign_by_candidate(&mut self, pin: &Pin, unsigned: Unsigned) -> Result<Vec<u8>, Stop> {
        self.step()?;
        sign(&self.candidate, pin, unsigned, Who::Candidate)
    }

    /// The new Key's CA certificate.
    pub(super) fn own_ca(&self) -> Result<Certificate, Stop> {
        let der = self.order.intent.made.ca_certificate.as_deref().unwrap_or_default();
        Certificate::parse(der).map_err(profile_failure)
    }

    fn access_certificate(&self, issuer: &Certificate) -> Result<Unsigned, Stop> {
        let key = key(self.order.intent.made.access_key.as_deref())?;
        let role = self.order.intent.kind.role();
        profile::end_entity(
            &key,
            role,
            issuer,
            &self.serial(0),
            validity(self.order.intent.started, self.order.certificate_years),
        )
        .map_err(profile_failure)
    }

    fn statement(&self, chain: &[Certificate]) -> Result<Unsigned, Stop> {
        let subject = key(self.order.intent.made.access_key.as_deref())?;
        let made = &self.order.intent.made;
        let tree = match self.order.intent.kind {
            Kind::Sub => {
                Tree::of_statement(&made.salt_seed, self.order.locks.iter().map(LockEntry::leaf))
            }
            _ => Tree::of_statement(&made.salt_seed, [(Target::All, Effect::Allow)]),
        };
        let tree = tree.map_err(profile_failure)?.head();
        Statement { subject: &subject, version: made.version, tree, revokes: None }
            .unsigned(chain)
            .map_err(profile_failure)
    }

    fn serial(&self, which: usize) -> Vec<u8> {
        self.order.intent.made.serials.get(which).cloned().unwrap_or_default()
    }
}

/// Signs with a token's issuing key. A signature by any other key is not put into the object.
fn sign(session: &Session, pin: &Pin, unsigned: Unsigned, who: Who) -> Result<Vec<u8>, Stop> {
    let (pin, digest) = (pin.clone(), unsigned.digest());
    let signature = session
        .run(move |token| token.sign_with(Slot::Issuing, &pin, &digest))
        .map_err(|error| Stop::of(who, error))?;
    unsigned.assemble(&signature).map_err(|_| Failure::NotGenuine(who).into())
}

fn key(spki: Option<&[u8]>) -> Result<PublicKey, Stop> {
    PublicKey::from_spki_der(spki.unwrap_or_default()).map_err(profile_failure)
}
