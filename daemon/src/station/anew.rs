//! What a revoked issuer had signed, and what is to stay, is signed anew by one who stands: as far as one call goes.

use keywright_proto::{
    Certificate, Id, Judgement, PublicKey, Role, Standing, Unsigned, profile, removal,
};

use super::{
    Station,
    issuing::Issuing,
    removals::counts,
    revocations::{Paper, Plan, issuing_key},
    rights::{NewStatement, in_force, no_random},
};
use crate::{
    clock,
    error::Error,
    judging::{Words, members},
    owed::{Owed, owed},
    registry::{RegistryError, records},
    serialization::{random_serial, validity},
};

/// The most signatures of one call: a token makes a few a second.
const MOST_SIGNATURES: usize = 200;

impl Station {
    /// What is still to be signed in a family.
    pub(super) fn owed(&self, family: Id) -> Result<Owed, RegistryError> {
        owed(&self.registry, family, self.moment())
    }

    /// What nobody who stands has signed, for the issuer to sign anew: CA certificates of Backups,
    /// and statements.
    pub(super) fn plan_anew(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        after: &Judgement,
    ) -> Result<(), Error> {
        let family = issuing.family;
        let own = issuing.chain.first().ok_or(Error::Unverified(family))?;
        for (ca, issuer) in self.registry.issuers_of(family)? {
            let Some(certificate) = issuer.chain.first().and_then(|d| Certificate::parse(d).ok())
            else {
                continue;
            };
            let key = certificate.public_key();
            if plan.papers.len() >= MOST_SIGNATURES
                || after.standing(&key.hash()) != Some(Standing::Orphaned)
            {
                continue;
            }
            let serial = random_serial().map_err(|_| no_random())?;
            let validity = validity(clock::unix_seconds(), self.config.certificate_years);
            // The last CA of a chain makes no other: that is for one nearer to the Master.
            if let Ok(unsigned) = profile::backup_ca(key, own, &serial, validity) {
                let above = issuing.chain.clone();
                plan.papers.push((Paper::Ca { ca, above }, unsigned));
            }
        }
        self.plan_locks(plan, issuing, own, after)?;
        for (key, record) in members(&self.registry, family)? {
            if plan.papers.len() >= MOST_SIGNATURES {
                tracing::info!(%family, "more has to be signed anew than one call signs");
                break;
            }
            let planned = self.anew(key, family, &record, after).and_then(|new| {
                new.map(|new| Ok((self.paper(issuing, &new)?, Paper::Statement(Box::new(new)))))
                    .transpose()
            });
            match planned {
                Ok(Some((unsigned, paper))) => plan.papers.push((paper, unsigned)),
                Ok(None) => {}
                // What is revoked does not wait for it.
                Err(error) => {
                    tracing::error!(%key, %error, "the rights of a Key cannot be signed anew");
                }
            }
        }
        Ok(())
    }

    /// The certificates of Locks that were by a CA which is out after this, and removals of Locks that count no more.
    fn plan_locks(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        own: &Certificate,
        after: &Judgement,
    ) -> Result<(), Error> {
        let family = issuing.family;
        let out = |ca: &Id| -> Result<bool, RegistryError> {
            let known = self.registry.issuer(*ca)?;
            let ca = known.and_then(|known| Certificate::parse(known.chain.first()?).ok());
            let standing = ca.and_then(|ca| after.standing(&ca.public_key().hash()));
            // An orphan's are good again with its new CA certificate.
            Ok(standing.is_some_and(|s| matches!(s, Standing::Revoked | Standing::Deposed)))
        };
        let mut cas = Vec::new();
        for (ca, _) in self.registry.issuers_of(family)? {
            if out(&ca)? {
                cas.push(ca);
            }
        }
        if cas.is_empty() {
            return Ok(());
        }
        for entry in self.registry.lock_entries(family)? {
            let Some(known) = self.registry.lock(entry.lock)?.filter(|l| cas.contains(&l.issuer))
            else {
                continue;
            };
            if plan.papers.len() >= MOST_SIGNATURES {
                break;
            }
            let unsigned = self.lock_certificate(&known, own)?;
            plan.papers.push((Paper::LockCertificate { lock: entry.lock }, unsigned));
        }
        let removals = self.registry.lock_removals(family)?;
        for removal in &removals {
            let (lock, key_hash) = (removal.lock, removal.key_hash);
            let counts = |other: &records::LockRemoval| {
                other.key_hash == key_hash && counts(Some(after), other)
            };
            let planned = plan.papers.iter().any(
                |(paper, _)| matches!(paper, Paper::LockRemoval { lock: known, .. } if *known == lock),
            );
            if planned || removals.iter().any(counts) || plan.papers.len() >= MOST_SIGNATURES {
                continue;
            }
            let unsigned = self::removal(&key_hash, &issuing.chain)
                .map_err(|error| Error::Unsupported(error.to_string()))?;
            plan.papers.push((Paper::LockRemoval { lock, key_hash }, unsigned));
        }
        Ok(())
    }

    fn lock_certificate(&self, lock: &records::Lock, own: &Certificate) -> Result<Unsigned, Error> {
        let key = PublicKey::from_spki_der(&lock.identity_key)
            .map_err(|error| Error::Unsupported(error.to_string()))?;
        let serial = random_serial().map_err(|_| no_random())?;
        let validity = validity(clock::unix_seconds(), self.config.certificate_years);
        profile::end_entity(&key, Role::Lock, own, &serial, validity)
            .map_err(|error| Error::Unsupported(error.to_string()))
    }

    /// The statement that is due on a Key once these stand, if one is.
    fn anew(
        &self,
        key: Id,
        family: Id,
        record: &records::Key,
        after: &Judgement,
    ) -> Result<Option<NewStatement>, Error> {
        let now = self.moment().words(&self.registry, key, family)?;
        let then = Words::read(&self.registry, key, family, Some(after.clone()))?;
        if then.is_plain() || then.is_revoked() || now.is_revoked() {
            return Ok(None);
        }
        if let Some(own) = issuing_key(record)? {
            let standing = after.standing(&own.hash());
            let stays = standing.is_none_or(|s| matches!(s, Standing::Stands | Standing::Orphaned));
            if then.has_every_lock() || !stays {
                return Ok(None);
            }
            return self.new_statement(key, family, &then, None).map(Some);
        }
        let mut entries = in_force(&now, true);
        self.forget_removed(family, &mut entries)?;
        let holds = entries.keys().all(|lock| {
            then.on(*lock).map(|(said, _)| said.effect)
                == now.on(*lock).map(|(said, _)| said.effect)
                && then.on(*lock).is_some()
        });
        if holds || entries.is_empty() {
            return Ok(None);
        }
        let listed = Some(entries.into_values().collect());
        self.new_statement(key, family, &then, listed).map(Some)
    }
}
