//! Commits a finished write to the registry in one batch, and rolls back a job that is given up.

use keywright_base::clock;
use keywright_proto::{Certificate, Id, Kind, PublicKey};
use keywright_token::Container;

use super::{
    order::{Failure, Stop},
    write::Write,
};
use crate::{
    audit::AuditEvent,
    registry::{
        Batch, Origin, Registry, RegistryError,
        records::{Family, Intent, Issuer, Key, Leftover, LockEntry, Membership, Statement},
    },
    trust::Statements,
};

/// The leftover of a token on which no job was rolled back before.
const NOTHING: Leftover = Leftover { access_key: None, issuing_key: None, puk_tried: false };

impl Write {
    /// Commits the write. Returns the id of the Key.
    pub(super) fn commit(&mut self) -> Result<Id, Stop> {
        let (intent, now) = (&self.order.intent, clock::unix_seconds());
        let incomplete = || Stop::from(Failure::Profile("the job is not complete".into()));
        let (Some(family), Some(spki), Some(cose)) =
            (intent.family, &intent.made.access_key, &intent.made.statement)
        else {
            return Err(incomplete());
        };
        let above = self.order.chain.first().map(|ca| ca.public_key().spki_der());
        let key = PublicKey::from_spki_der(spki)
            .map_err(|error| Failure::Profile(error.to_string()))?
            .id();
        let mut batch = Batch::new();
        self.add_issuer(&mut batch, family, now)?;
        batch.put_key(key, self.key_record(key, family, spki, now)?);
        if let Some(certificate) = &intent.made.access_certificate {
            let issuer = intent.made.issuing_key.as_deref().or(above).ok_or_else(incomplete)?;
            let container = intent.made.container.unwrap_or(Container::AccessCertificate.number());
            let role = intent.kind.role();
            let membership = Membership::new(role, certificate.clone(), issuer, container);
            batch.put_membership(key, family, membership);
        } else if let Some(own) = &self.order.membership {
            let container = Container::AccessCertificate.number();
            let role = own.role().unwrap_or(intent.kind.role());
            if self.tools.registry.membership(key, family)?.is_none() {
                let (certificate, issuer) = (own.der().to_vec(), above.ok_or_else(incomplete)?);
                let membership = Membership::new(role, certificate, issuer, container);
                batch.put_membership(key, family, membership);
            }
        }
        let (everywhere, locks) = match intent.kind {
            Kind::Sub => (None, self.order.locks.to_vec()),
            _ => (Some(true), Vec::<LockEntry>::new()),
        };
        let (version, salt_seed) = (intent.made.version, intent.made.salt_seed);
        let allowed = locks.iter().filter(|entry| entry.allow).count();
        let statement = Statement::new(version, cose.clone(), salt_seed, everywhere, &locks, now);
        let statements = Statements::read(&self.tools.registry, key, family, None)?;
        batch.put_older_statements(key, family, statements.to_keep_beside(&statement, &locks));
        batch.put_statement(key, family, statement, locks);
        let (kind, serialization) = (intent.kind.role(), Some(intent.number));
        let made = AuditEvent::KeyMade { family, key, kind, locks: allowed, serialization };
        batch.audit(now, made.name(), made.fields(self.order.asked_by));
        for guid in [intent.candidate.guid, intent.candidate.guid_before].into_iter().flatten() {
            batch.remove_leftover(guid);
        }
        batch.remove_intent(intent.number);
        self.tools.registry.commit(batch)?;
        Ok(key)
    }

    /// Puts the new CA of a Master or Backup. A Master's CA is pinned as the family's root: its PIN was given here, and
    /// its issuing key has just signed.
    fn add_issuer(&self, batch: &mut Batch, family: Id, now: u64) -> Result<(), Stop> {
        let made = &self.order.intent.made;
        let (Some(issuing_key), Some(ca)) = (&made.issuing_key, &made.ca_certificate) else {
            return Ok(());
        };
        let mut chain = vec![ca.clone()];
        chain.extend(self.order.chain.iter().map(|ca| ca.der().to_vec()));
        let crl = made.crl.clone().unwrap_or_default();
        let issuer = Issuer { family, chain, crl, to_revoke: Vec::new() };
        let id = Id::of_spki(issuing_key);
        batch.put_found_issuer(family, id, Origin::Job);
        batch.put_issuer(id, issuer);
        if self.order.intent.kind == Kind::Master {
            batch.put_family(family, Family { root: ca.clone(), pinned: now, locks: 0 });
            let pinned = AuditEvent::FamilyPinned { family };
            batch.audit(now, pinned.name(), pinned.fields(self.order.asked_by));
        }
        Ok(())
    }

    fn key_record(&self, key: Id, family: Id, spki: &[u8], now: u64) -> Result<Key, Stop> {
        let intent = &self.order.intent;
        let candidate = &intent.candidate;
        if let Some(known) = self.tools.registry.key(key)? {
            return Ok(Key { name: intent.name.clone(), last_seen: now, ..known });
        }
        let guid = candidate.guid.or(candidate.guid_before);
        // If the GUID stood in for a serial number, the new GUID does so from now on.
        let serial = match (candidate.guid_before, guid) {
            (before, Some(guid))
                if before.map(hex::encode).unwrap_or_default() == candidate.serial =>
            {
                hex::encode(guid)
            }
            _ => candidate.serial.clone(),
        };
        Ok(Key {
            access_key: spki.to_vec(),
            label: candidate.label.clone(),
            name: intent.name.clone(),
            family,
            guid,
            serial,
            model: candidate.model.clone(),
            last_seen: now,
            puk_tried: intent.made.puk_begun || self.order.puk_tried,
        })
    }
}

/// The record of a CA whose Key was made at another station. Its CRL arrives with the first exchange with that station.
pub fn new_issuer(family: Id, chain: &[Certificate]) -> Issuer {
    let chain = chain.iter().map(|ca| ca.der().to_vec()).collect();
    Issuer { family, chain, crl: Vec::new(), to_revoke: Vec::new() }
}

/// Describes to a person what a rolled-back job leaves on the token.
pub fn left_behind(intent: &Intent) -> Vec<&'static str> {
    let made = &intent.made;
    let fresh = intent.candidate.access_key.is_none();
    let left = [
        (made.looked && fresh, "keys without any right"),
        (made.pin_begun, "a new PIN"),
        (made.management_key_begun, "a new management key"),
        (made.puk_begun, "a new recovery code (PUK)"),
    ];
    left.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
}

/// Rolls a job back: it grants no right and releases no statement, the certificates that the issuer signed are revoked
/// with its next CRL, and the audit log names the user who asked, if one did. The keys left on the token are recorded,
/// so that the next job can reuse the token.
pub fn roll_back(
    registry: &Registry,
    number: u64,
    by: Option<u32>,
) -> Result<Option<Intent>, RegistryError> {
    let Some(intent) = registry.intent(number)? else { return Ok(None) };
    let mut batch = Batch::new();
    if let Some(issuer) = &intent.issuer {
        let ca = Id::of_spki(&issuer.issuing_key);
        // A certificate may have been signed although its signature was not saved.
        if let (Some(mut issuer), true) = (registry.issuer(ca)?, intent.made.looked) {
            issuer.to_revoke.extend(intent.made.serials.iter().cloned());
            batch.put_issuer(ca, issuer);
        }
    }
    if let (Some(guid), true) = (intent.candidate.guid, intent.made.looked) {
        // The leftover of an earlier job moves to the new GUID.
        let before = match intent.candidate.guid_before {
            Some(guid) => registry.leftover(guid)?,
            None => None,
        };
        let before = before.unwrap_or(NOTHING);
        let leftover = Leftover {
            access_key: intent.made.access_key.clone().or(before.access_key),
            issuing_key: intent.made.issuing_key.clone().or(before.issuing_key),
            puk_tried: intent.made.puk_begun || before.puk_tried,
        };
        // The new GUID is the first thing written: without it, the token has no keys of this job.
        batch.put_leftover(guid, leftover);
    }
    let event = AuditEvent::JobRolledBack { serialization: number, kind: intent.kind };
    batch.audit(clock::unix_seconds(), event.name(), event.fields(by));
    batch.remove_intent(number);
    registry.commit(batch)?;
    Ok(Some(intent))
}
