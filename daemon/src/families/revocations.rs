//! RevokeKey: a revocation is final for its Key. The objects of a revoked issuer are re-issued at once, as many as one
//! call signs; the rest by the next call with an issuer.

use keywright_base::clock;
use keywright_proto::{
    Certificate, Crl, Effect, Id, PublicKey, Standing, Target, Unsigned,
    crl::{self, Revoked},
    profile,
    statement::{RevokedIssuer, Statement as Stating, denials_until},
};

use super::{
    AuditEvent, Families, Issuer, Issuing, Plan, Prepared, access_key, issuing_key, random,
    statements::tree,
    to_sign::{Purpose, ToSign},
    unsupported,
};
use crate::{
    error::Error,
    pending_signatures::{PendingSignatures, pending_signatures},
    queries,
    registry::RegistryError,
    serialization::validity,
    trust::{self, FamilyStatements},
};

/// Reasons that prevent automatic re-issue: a thief may have made some of the revoked Key's signatures.
const STOLEN: [&str; 2] = ["stolen", "compromised"];
/// The longest reason, in bytes.
const LONGEST_REASON: usize = 256;

impl Families {
    /// Prepares a Key's revocation, the CRL that lists its certificates, and the re-issue of what it signed. Nothing
    /// has to be signed if all of that is done.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`; `Unverified`: the family's root is not pinned here.
    pub fn prepare_revocation(
        &self,
        issuer: &Issuer,
        issuing: &Issuing,
        key: Id,
        reason: &str,
    ) -> Result<Prepared, Error> {
        if reason.len() > LONGEST_REASON || reason.contains(char::is_control) {
            return Err(Error::InvalidArgument(format!(
                "reason: at most {LONGEST_REASON} bytes of text on one line"
            )));
        }
        let family = issuing.family;
        let own = issuing.own()?;
        let (subject, issuing_key) = self.to_revoke(key, family)?;
        if issuer.id == Some(key) || issuing_key.as_ref() == Some(own.public_key()) {
            return Err(Error::InvalidArgument(
                "a Key does not revoke itself; let another Master or Backup Key do it".into(),
            ));
        }
        let (ca, signer) = (own.public_key().id(), own.public_key().hash());
        let facts = trust::facts(&self.registry, family, &[key])?;
        let mut facts = facts.ok_or(Error::Unverified(family))?;
        let mut plan = Plan::new(Purpose::RevokeKey(key), issuing);
        let mut serials = Vec::new();
        let done = facts
            .revocations()
            .any(|(known, _)| known.signer == signer && known.subject == subject.hash());
        if !done {
            let revokes = issuing_key.as_ref().map(|own| self.revoked_issuer(family, own));
            let revokes = revokes.transpose()?;
            let salt_seed = random()?;
            let tree = tree(&salt_seed, vec![(Target::All, Effect::Deny)])?;
            let unsigned = Stating { subject: &subject, version: None, tree, revokes }
                .unsigned(&issuing.chain)
                .map_err(unsupported)?;
            let (subject, reason) = (subject.hash(), reason.to_owned());
            let revocation =
                keywright_proto::trust::Revocation { signer, subject, issuer: revokes };
            facts.learn_revocation(revocation, 0);
            plan.event = Some(AuditEvent::KeyRevoked { family, key, reason: reason.clone() });
            plan.objects.push((ToSign::Revocation { key, salt_seed, reason }, unsigned));
            serials = self.plan_entries(&mut plan, issuing, key, issuing_key.as_ref())?;
        }
        // Entries that are pending for this CA go into the same CRL.
        serials.extend(self.pending_signatures(family)?.serials(ca));
        if !serials.is_empty() {
            plan.objects.push((ToSign::Crl(ca), self.next_crl(own, serials)?));
        }
        if issuing_key.is_some() {
            self.plan_root(&mut plan, issuing, own)?;
        }
        if issuing_key.is_some() && !is_stolen(reason) {
            // Judge as if every delay were over, so that the successor signs before the revocation takes effect.
            let after = facts.judge(0, u64::MAX);
            self.plan_reissue(&mut plan, issuing, &after)?;
        }
        plan.prepared()
    }

    /// The key that a revocation names, and the issuing key that it revokes: the access key of a Key; or an issuing key
    /// itself, whose Key nobody knows.
    fn to_revoke(&self, id: Id, family: Id) -> Result<(PublicKey, Option<PublicKey>), Error> {
        match self.member(id, family) {
            Ok(record) => Ok((access_key(&record)?, issuing_key(&record)?)),
            Err(error @ Error::NotFound(_)) => {
                let own = queries::issuer_without_key(&self.registry, family, id)?.ok_or(error)?;
                Ok((own.clone(), Some(own)))
            }
            Err(error) => Err(error),
        }
    }

    /// The pending signatures of a family.
    pub(super) fn pending_signatures(
        &self,
        family: Id,
    ) -> Result<PendingSignatures, RegistryError> {
        pending_signatures(&self.registry, family, self.moment())
    }

    fn revoked_issuer(&self, family: Id, own: &PublicKey) -> Result<RevokedIssuer, Error> {
        let signer = own.hash();
        let mut versions = Vec::new();
        let statements = FamilyStatements::new(&self.registry, family, None)?;
        for key in self.registry.member_ids(family)? {
            let of_key = statements.of(key);
            let of_key =
                RegistryError::skip_damaged(of_key, format_args!("what is said of Key {key}"))?;
            versions.extend(of_key.iter().flat_map(|of_key| of_key.versions_of(&signer)));
        }
        let denials_until = denials_until(versions, clock::unix_millis());
        Ok(RevokedIssuer { issuing_key: signer, denials_until })
    }

    /// Plans the CRL entries for the certificates of a Key. Returns the serial numbers of those that the issuer signed,
    /// for its CRL now; those of another CA wait for that CA's next CRL.
    fn plan_entries(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        key: Id,
        issuing_key: Option<&PublicKey>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let family = issuing.family;
        let authorities = trust::authorities(&self.registry, family)?;
        let authorities = authorities.ok_or(Error::Unverified(family))?;
        let access = self.registry.access_certificates(key, family)?;
        let access: Vec<_> = access.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        let is_own = |ca: &&Certificate| Some(ca.public_key()) == issuing_key;
        let own = issuing.own()?.public_key().id();
        let mut mine = Vec::new();
        for certificate in access.iter().chain(authorities.certificates().filter(is_own)) {
            let by = authorities.above(certificate).unwrap_or_default();
            let Some(by) = by.first().map(|ca| ca.public_key().id()) else { continue };
            // A certificate that a revoked issuer signed for itself falls with its CA certificate.
            if by == own {
                mine.push(certificate.serial().to_vec());
            } else if Some(by) != issuing_key.map(PublicKey::id) {
                plan.waiting.push((by, certificate.serial().to_vec()));
            }
        }
        Ok(mine)
    }

    /// The next CRL of a CA: the entries of the last one, the pending ones, and these serial numbers.
    pub(super) fn next_crl(
        &self,
        ca: &Certificate,
        serials: Vec<Vec<u8>>,
    ) -> Result<Unsigned, Error> {
        let now = clock::unix_seconds();
        let known = self.registry.issuer(ca.public_key().id())?;
        let last = known.as_ref().and_then(|known| Crl::parse(&known.crl).ok());
        // If the last CRL is only known at another station, so is its number: the time is higher than that.
        // It never wraps: a thief may have signed the largest one, and a list with more entries wins all the same.
        let number = last.as_ref().map_or(now, |last| last.number().saturating_add(1));
        let mut entries = last.map(|last| last.revoked().to_vec()).unwrap_or_default();
        let waiting = known.map(|known| known.to_revoke).unwrap_or_default();
        for serial in waiting.into_iter().chain(serials) {
            if !entries.iter().any(|entry| entry.serial == serial) {
                entries.push(Revoked { serial, since: now });
            }
        }
        let validity = validity(now, self.crl_years);
        crl::crl(ca, number, validity.not_before, validity.not_after, &entries).map_err(unsupported)
    }

    /// Plans a root certificate with the issuer's own name and key, once the Master's revocation has taken effect.
    /// Servers that know only the bundle have no other trust anchor for its chains then.
    fn plan_root(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        own: &Certificate,
    ) -> Result<(), Error> {
        let (family, ca) = (issuing.family, own.public_key().id());
        let Some(judgement) = self.judgement(family)? else { return Ok(()) };
        let master = issuing.chain.last().map(|root| root.public_key().hash()).unwrap_or_default();
        let deposed = judgement.standing(&master) == Some(Standing::Deposed);
        if !deposed || self.registry.roots(family)?.iter().any(|(known, _)| *known == ca) {
            return Ok(());
        }
        let (serial, validity) = self.new_certificate()?;
        let unsigned = profile::own_root(own, &serial, validity).map_err(unsupported)?;
        plan.objects.push((ToSign::Root(ca), unsigned));
        Ok(())
    }
}

/// Whether a reason means that a thief may have made some of the Key's signatures.
pub(super) fn is_stolen(reason: &str) -> bool {
    STOLEN.contains(&reason)
}
