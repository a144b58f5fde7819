//! RevokeKey: final for that key. What a revoked issuer had signed is signed anew at once, as far as
//! one call goes, and by the next call with an issuer after that.

use std::collections::BTreeMap;

use keywright_proto::{
    Certificate, Crl, Effect, Id, Leaf, PublicKey, Standing, Target, Tree, Unsigned,
    crl::{self, Revoked},
    profile,
    statement::{RevokedIssuer, Statement as Stating, denials_until},
    tree::Hash,
    trust,
};

use super::{
    Reply, Station,
    issuing::Issuing,
    rights::{NewStatement, access_key, no_random},
    view::Label,
};
use crate::{
    audit::AuditEvent,
    clock,
    error::Error,
    judging::{self, Words, facts, members},
    owed,
    registry::{
        Batch, RegistryError,
        records::{self, Issuer, Lock, LockRemoval, Revocation},
    },
    serialization::{new_issuer, random_serial, validity},
    token::{Pin, random_seed},
};

/// Reasons for which nothing that the revoked Key had signed is signed anew by itself: some of it may
/// be the thief's.
const STOLEN: [&str; 2] = ["stolen", "compromised"];
/// The longest reason, in bytes.
const LONGEST_REASON: usize = 256;

/// What is signed in one call, and what becomes of each signature.
pub(super) enum Paper {
    Revocation { key: Id, salt_seed: [u8; 32], reason: String },
    Crl(Id),
    Statement(Box<NewStatement>),
    Ca { ca: Id, above: Vec<Certificate> },
    Root(Id),
    LockCertificate { lock: Id },
    LockRemoval { lock: Id, key_hash: Hash },
}

/// What one call does beside signing: entries that wait for the next CRL of another CA.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) papers: Vec<(Paper, Unsigned)>,
    waiting: Vec<(Id, Vec<Vec<u8>>)>,
}

impl Station {
    /// RevokeKey.
    pub fn revoke_key(
        &mut self,
        issuer: Label,
        key: Id,
        reason: String,
        pin: Pin,
        reply: Reply<()>,
    ) {
        let prepared = self.issuing(&issuer).and_then(|issuing| {
            let plan = self.plan_revocation(&issuing, &issuer, key, &reason)?;
            Ok((issuing, plan))
        });
        match prepared {
            Err(error) => reply.answer(self, Err(error)),
            // It is revoked, and nothing is left to be signed.
            Ok((_, Plan { papers, .. })) if papers.is_empty() => reply.answer(self, Ok(())),
            Ok((issuing, Plan { papers, waiting })) => {
                let (kept, papers): (Vec<_>, Vec<_>) = papers.into_iter().unzip();
                let by = issuing.clone();
                self.sign_first("revoke", issuer, &issuing, pin, papers, move |station, signed| {
                    let result = signed.and_then(|signed| {
                        station.keep_revocation(&by, key, kept, signed, waiting)
                    });
                    reply.answer(station, result);
                });
            }
        }
    }

    fn plan_revocation(
        &self,
        issuing: &Issuing,
        issuer: &Label,
        key: Id,
        reason: &str,
    ) -> Result<Plan, Error> {
        if reason.len() > LONGEST_REASON || reason.contains(char::is_control) {
            return Err(Error::InvalidArgument(format!(
                "reason: at most {LONGEST_REASON} bytes of text on one line"
            )));
        }
        let family = issuing.family;
        let record = self.member(key, family)?;
        if self.key(issuer)?.id == Some(key) {
            return Err(Error::InvalidArgument(
                "a Key does not revoke itself; let another Master or Backup Key do it".into(),
            ));
        }
        let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
        let signer = own.public_key().hash();
        let before = judging::facts(&self.registry, family, &[key])?;
        let mut facts = before.clone().ok_or(Error::Unverified(family))?;
        let (mut plan, mut serials) = (Plan::default(), Vec::new());
        let (subject, issuing_key) = (access_key(&record)?, issuing_key(&record)?);
        let done = facts
            .revocations()
            .any(|(known, _)| known.signer == signer && known.subject == subject.hash());
        if !done {
            let revokes = issuing_key.as_ref().map(|own| self.revoked_issuer(family, own));
            let revokes = revokes.transpose()?;
            let salt_seed = random_seed().map_err(|_| no_random())?;
            let leaf = Leaf::new(&salt_seed, Target::All, Effect::Deny);
            let tree = Tree::new([leaf]).map_err(|e| Error::LimitExceeded(e.to_string()))?.head();
            let unsigned = Stating { subject: &subject, version: None, tree, revokes }
                .unsigned(&issuing.chain)
                .map_err(|error| Error::Unsupported(error.to_string()))?;
            let (subject, reason) = (subject.hash(), reason.to_owned());
            let revocation = trust::Revocation { signer, subject, issuer: revokes };
            facts.learn_revocation(revocation, 0);
            plan.papers.push((Paper::Revocation { key, salt_seed, reason }, unsigned));
            serials = self.plan_entries(&mut plan, issuing, key, issuing_key.as_ref())?;
        }
        // What waited for this CA goes with it.
        serials.extend(self.owed(family)?.serials(own.public_key().id()));
        if !serials.is_empty() {
            let unsigned = self.next_crl(own, serials)?;
            plan.papers.push((Paper::Crl(own.public_key().id()), unsigned));
        }
        if issuing_key.is_some() {
            self.plan_root(&mut plan, issuing, own)?;
        }
        if issuing_key.is_some() && !is_stolen(reason) {
            // As if every delay were over: who takes over signs before anybody has to wait.
            let after = facts.judge(0, clock::unix_seconds());
            self.plan_anew(&mut plan, issuing, &after)?;
        }
        Ok(plan)
    }

    fn revoked_issuer(&self, family: Id, own: &PublicKey) -> Result<RevokedIssuer, Error> {
        let signer = own.hash();
        let mut versions = Vec::new();
        for (key, _) in members(&self.registry, family)? {
            versions.extend(Words::read(&self.registry, key, family, None)?.versions_of(&signer));
        }
        let denials_until = denials_until(versions, clock::unix_millis());
        Ok(RevokedIssuer { issuing_key: signer, denials_until })
    }

    /// The certificates of a Key go into the CRL of who signed them: now where that is the issuer,
    /// with its next revocation where it is another CA.
    fn plan_entries(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        key: Id,
        issuing_key: Option<&PublicKey>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let family = issuing.family;
        let mut certificates = Vec::new();
        let memberships = self.registry.memberships(key)?;
        if let Some((_, own)) = memberships.into_iter().find(|(of, _)| *of == family) {
            certificates.push((own.issuer, own.certificate));
        }
        if let Some(own) = issuing_key
            && let Some(issuer) = self.registry.issuer(own.id())?
            && let [ca, above, ..] = issuer.chain.as_slice()
            && let Ok(above) = Certificate::parse(above)
        {
            certificates.push((above.public_key().id(), ca.clone()));
        }
        let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
        let mut mine = Vec::new();
        for (by, der) in certificates {
            let Ok(certificate) = Certificate::parse(&der) else { continue };
            // What a revoked issuer signed for itself goes with its CA certificate.
            if by == own.public_key().id() {
                mine.push(certificate.serial().to_vec());
            } else if Some(by) != issuing_key.map(PublicKey::id) {
                plan.waiting.push((by, vec![certificate.serial().to_vec()]));
            }
        }
        Ok(mine)
    }

    /// The next CRL of a CA: everything that is listed or waits, and these.
    pub(super) fn next_crl(
        &self,
        ca: &Certificate,
        serials: Vec<Vec<u8>>,
    ) -> Result<Unsigned, Error> {
        let now = clock::unix_seconds();
        let known = self.registry.issuer(ca.public_key().id())?;
        let last = known.as_ref().and_then(|known| Crl::parse(&known.crl).ok());
        // Of a CRL that is only known elsewhere the number is not known either: the time is above it.
        let number = last.as_ref().map_or(now, |last| last.number() + 1);
        let mut entries = last.map(|last| last.revoked().to_vec()).unwrap_or_default();
        let waiting = known.map(|known| known.to_revoke).unwrap_or_default();
        for serial in waiting.into_iter().chain(serials) {
            if !entries.iter().any(|entry| entry.serial == serial) {
                entries.push(Revoked { serial, since: now });
            }
        }
        let validity = validity(now, self.config.crl_years);
        crl::crl(ca, number, validity.not_before, validity.not_after, &entries)
            .map_err(|error| Error::Unsupported(error.to_string()))
    }

    /// A root certificate of the issuer's own, with its name and key, once the Master's revocation acts, and not before:
    /// servers that know only the bundle have no other end for its chains then.
    fn plan_root(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        own: &Certificate,
    ) -> Result<(), Error> {
        let (family, ca) = (issuing.family, own.public_key().id());
        let Some(facts) = judging::facts(&self.registry, family, &[])? else { return Ok(()) };
        let master = issuing.chain.last().map(|root| root.public_key().hash()).unwrap_or_default();
        let deposed = self.moment().judge(&facts).standing(&master) == Some(Standing::Deposed);
        if !deposed || self.registry.roots(family)?.iter().any(|(known, _)| *known == ca) {
            return Ok(());
        }
        let serial = random_serial().map_err(|_| no_random())?;
        let validity = validity(clock::unix_seconds(), self.config.certificate_years);
        let unsigned = profile::own_root(own, &serial, validity)
            .map_err(|error| Error::Unsupported(error.to_string()))?;
        plan.papers.push((Paper::Root(ca), unsigned));
        Ok(())
    }

    /// Commits the revocation and the CRL, and then what is signed anew: something there may have changed meanwhile, or not
    /// be signed any more because the Key left. It waits then, and the revocation stands.
    fn keep_revocation(
        &mut self,
        issuing: &Issuing,
        key: Id,
        kept: Vec<Paper>,
        signed: Vec<Vec<u8>>,
        waiting: Vec<(Id, Vec<Vec<u8>>)>,
    ) -> Result<(), Error> {
        let family = issuing.family;
        let mut batch = Batch::new();
        self.put_own_issuer(&mut batch, issuing)?;
        let mut issuers = BTreeMap::from_iter(self.registry.issuers_of(family)?);
        for (ca, serials) in waiting {
            if let Some(issuer) = issuers.get_mut(&ca) {
                issuer.to_revoke.extend(serials);
            }
        }
        let missing = kept.len().saturating_sub(signed.len());
        let is_new = |paper: &Paper| matches!(paper, Paper::Revocation { .. } | Paper::Crl(_));
        let (revoking, anew): (Vec<_>, Vec<_>) =
            kept.into_iter().zip(signed).partition(|(paper, _)| is_new(paper));
        for (paper, signed) in revoking {
            self.put_paper(&mut batch, issuing, &mut issuers, paper, signed)?;
        }
        for (ca, issuer) in issuers {
            batch.put_issuer(ca, issuer);
        }
        self.registry.commit(batch)?;
        tracing::info!(%key, %family, "revoked");
        if let Err(error) = self.keep_anew(issuing, anew) {
            tracing::error!(%error, %family, "what is signed anew is not kept, and waits");
        }
        if missing > 0 {
            tracing::warn!(%family, missing, "not everything was signed anew; the rest waits");
        }
        self.settle_revocations(family)?;
        Ok(())
    }

    fn keep_anew(&mut self, issuing: &Issuing, anew: Vec<(Paper, Vec<u8>)>) -> Result<(), Error> {
        let (family, mut batch, mut papers) = (issuing.family, Batch::new(), 0);
        let mut issuers = BTreeMap::from_iter(self.registry.issuers_of(family)?);
        for (paper, signed) in anew {
            match self.put_paper(&mut batch, issuing, &mut issuers, paper, signed) {
                Ok(()) => papers += 1,
                Err(Error::Stale(what)) => {
                    tracing::warn!(%family, what, "changed meanwhile; that waits");
                }
                Err(error) => return Err(error),
            }
        }
        if papers == 0 {
            return Ok(());
        }
        self.log(&mut batch, &AuditEvent::SignedAnew { family, papers });
        for (ca, issuer) in issuers {
            batch.put_issuer(ca, issuer);
        }
        Ok(self.registry.commit(batch)?)
    }

    fn put_paper(
        &self,
        batch: &mut Batch,
        issuing: &Issuing,
        issuers: &mut BTreeMap<Id, Issuer>,
        paper: Paper,
        signed: Vec<u8>,
    ) -> Result<(), Error> {
        let (family, now) = (issuing.family, clock::unix_seconds());
        match paper {
            Paper::Revocation { key, salt_seed, reason } => {
                self.log(batch, &AuditEvent::KeyRevoked { family, key, reason: reason.clone() });
                let (cose, first_seen) = (signed, now);
                let revocation = Revocation { key, cose, salt_seed, first_seen, reason };
                batch.put_revocation(family, revocation);
            }
            Paper::Crl(ca) => {
                let new = || new_issuer(family, &issuing.chain);
                let issuer = issuers.entry(ca).or_insert_with(new);
                owed::publish(issuer, signed);
            }
            Paper::Statement(new) => self.put_new(batch, *new, signed)?,
            Paper::Root(ca) => {
                batch.put_root(family, ca, signed);
            }
            Paper::LockCertificate { lock } => {
                if let Some(known) = self.registry.lock(lock)? {
                    let issuer = issuing.chain.first().map(|own| own.public_key().id());
                    let issuer = issuer.unwrap_or(known.issuer);
                    batch.put_lock(lock, Lock { certificate: signed, issuer, ..known });
                }
            }
            Paper::LockRemoval { lock, key_hash } => {
                let removal = LockRemoval { lock, key_hash, cose: signed, first_seen: now };
                batch.put_lock_removal(family, removal);
            }
            Paper::Ca { ca, above } => {
                let above = above.iter().map(|ca| ca.der().to_vec());
                if let Some(issuer) = issuers.get_mut(&ca) {
                    issuer.chain = [signed].into_iter().chain(above).collect();
                }
            }
        }
        Ok(())
    }

    /// Brings the Keys' records to what is judged now: who is revoked, and who is no longer because
    /// its revoker was. Shows the family anew.
    pub(super) fn settle_revocations(&mut self, family: Id) -> Result<(), RegistryError> {
        let mut keys: Vec<Id> = self
            .registry
            .revocations(family)?
            .into_iter()
            .map(|revocation| revocation.key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut batch = Batch::new();
        let mut changed = false;
        for key in keys {
            let Some(record) = self.registry.key(key)? else { continue };
            let mut revoked = false;
            for (of, _) in self.registry.memberships(key)? {
                revoked |= self.moment().words(&self.registry, key, of)?.is_revoked();
            }
            if record.revoked != revoked {
                self.log(&mut batch, &AuditEvent::KeyJudged { family, key, revoked });
                batch.put_key(key, records::Key { revoked, ..record });
                changed = true;
            }
        }
        if changed {
            self.registry.commit(batch)?;
        }
        self.settle_removals(family)?;
        self.refresh_family(family);
        self.await_next_change(family)
    }

    /// Notes when a revocation of this family that waits will act.
    fn await_next_change(&mut self, family: Id) -> Result<(), RegistryError> {
        let known = facts(&self.registry, family, &[])?;
        match known.and_then(|known| self.moment().judge(&known).next_change()) {
            Some(at) => self.judges_at.insert(family, at),
            None => self.judges_at.remove(&family),
        };
        Ok(())
    }

    /// The same for all families: delays may have ended while nobody looked.
    pub fn settle_all_revocations(&mut self) {
        let families = self.registry.families().unwrap_or_default();
        for (family, _) in families {
            let any = self.registry.revocations(family).is_ok_and(|all| !all.is_empty());
            if any && let Err(error) = self.settle_revocations(family) {
                tracing::error!(%error, %family, "revocations cannot be judged");
            }
        }
    }
}

/// Whether a reason says that some of what the Key signed may be a thief's.
pub(super) fn is_stolen(reason: &str) -> bool {
    STOLEN.contains(&reason)
}

/// A Master's or Backup's issuing key.
pub(super) fn issuing_key(record: &records::Key) -> Result<Option<PublicKey>, Error> {
    let own = record.issuing_key.as_deref().map(PublicKey::from_spki_der);
    own.transpose().map_err(|error| Error::Unsupported(error.to_string()))
}
