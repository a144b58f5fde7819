//! Re-issues the objects of a revoked issuer that stay wanted, as many as one call signs.

use keywright_proto::{Certificate, Id, Judgement, Standing, profile, removal};

use super::{
    Families, Issuing, Plan, access_key, issuing_key, public_key,
    removals::is_effective,
    statements::{NewStatement, in_force},
    to_sign::ToSign,
    unsupported,
};
use crate::{
    error::Error,
    registry::records::{self, Membership},
    trust::{FamilyStatements, Statements},
};

/// The most signatures of one call: a token makes a few a second.
const MOST_SIGNATURES: usize = 200;

impl Families {
    /// Plans the objects that no issuer standing `after` the revocation has signed: CA certificates of Backups,
    /// certificates and removals of Locks, and statements.
    pub(super) fn plan_reissue(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        after: &Judgement,
    ) -> Result<(), Error> {
        let family = issuing.family;
        let own = issuing.own()?;
        let mut out = Vec::new();
        for (ca, issuer) in self.registry.issuers_of(family)? {
            let certificate = issuer.chain.first().and_then(|der| Certificate::parse(der).ok());
            let Some(certificate) = certificate else { continue };
            let key = certificate.public_key();
            match after.standing(&key.hash()) {
                // With a new CA certificate everything that an orphaned CA signed is effective again.
                Some(Standing::Revoked | Standing::Deposed) => out.push(ca),
                Some(Standing::Orphaned) if !plan.is_full() => {
                    let (serial, validity) = self.new_certificate()?;
                    // The last CA of a chain may not certify another: an issuer nearer to the Master has to do it.
                    if let Ok(unsigned) = profile::backup_ca(key, own, &serial, validity) {
                        plan.objects.push((ToSign::Ca(ca), unsigned));
                    }
                }
                _ => {}
            }
        }
        if !out.is_empty() {
            self.plan_locks(plan, issuing, &out, after)?;
        }
        let members = self.registry.members(family)?;
        let now = self.moment().family_statements(&self.registry, family, &members)?;
        let then = FamilyStatements::new(&self.registry, family, Some(after.clone()))?;
        for (key, own) in members {
            if plan.is_full() {
                tracing::info!(%family, "more has to be signed again than one call signs");
                break;
            }
            let said = now.of(key).and_then(|now| Ok((now, then.of(key)?)));
            let planned = said.map_err(Error::from).and_then(|(now, then)| {
                let new = self.due_statement((key, &own), family, &now, &then, after)?;
                let Some(new) = new else { return Ok(None) };
                let unsigned = self.unsigned_statement(issuing, &new, &access_key(&own)?)?;
                Ok(Some((ToSign::Statement(Box::new(new)), unsigned)))
            });
            match planned {
                Ok(planned) => plan.objects.extend(planned),
                // The revocation does not depend on it.
                Err(error) => {
                    tracing::error!(%key, %error, "the rights of a Key cannot be signed again");
                }
            }
        }
        Ok(())
    }

    /// Plans the certificates of Locks whose CA is revoked or deposed, and the removals of Locks that are no longer
    /// effective.
    fn plan_locks(
        &self,
        plan: &mut Plan,
        issuing: &Issuing,
        out: &[Id],
        after: &Judgement,
    ) -> Result<(), Error> {
        let family = issuing.family;
        let own = issuing.own()?;
        for entry in self.registry.lock_entries(family)? {
            let known = self.registry.lock(entry.lock)?.filter(|lock| out.contains(&lock.issuer));
            let Some(known) = known else { continue };
            if plan.is_full() {
                break;
            }
            let unsigned = self.lock_certificate(&public_key(&known.identity_key)?, own)?;
            plan.objects.push((ToSign::LockCertificate { lock: entry.lock }, unsigned));
        }
        let removals = self.registry.lock_removals(family)?;
        for removal in &removals {
            let (lock, key_hash) = (removal.lock, removal.key_hash);
            let is_effective = |other: &records::LockRemoval| {
                other.key_hash == key_hash && is_effective(Some(after), other)
            };
            let planned = plan.objects.iter().any(
                |(object, _)| matches!(object, ToSign::LockRemoval { lock: known, .. } if *known == lock),
            );
            if planned || removals.iter().any(is_effective) || plan.is_full() {
                continue;
            }
            let unsigned = self::removal(&key_hash, &issuing.chain).map_err(unsupported)?;
            plan.objects.push((ToSign::LockRemoval { lock, key_hash }, unsigned));
        }
        Ok(())
    }

    /// The statement to re-issue on a Key, if one is pending.
    fn due_statement(
        &self,
        (key, own): (Id, &Membership),
        family: Id,
        now: &Statements,
        then: &Statements,
        after: &Judgement,
    ) -> Result<Option<NewStatement>, Error> {
        if then.is_single() || then.is_revoked() || now.is_revoked() {
            return Ok(None);
        }
        if let Some(issuing_key) = issuing_key(own)?.filter(|_| own.role.is_issuer()) {
            let standing = after.standing(&issuing_key.hash());
            let stays = standing.is_none_or(|s| matches!(s, Standing::Stands | Standing::Orphaned));
            if then.everywhere().is_some() || !stays {
                return Ok(None);
            }
            return self.new_statement(key, family, then, None).map(Some);
        }
        let mut entries = in_force(now, true);
        self.forget_removed(family, &mut entries)?;
        let effect = |statements: &Statements, lock| {
            statements.in_effect_at(lock).map(|(newest, _)| newest.effect)
        };
        let holds = entries.keys().all(|lock| {
            let then = effect(then, *lock);
            then.is_some() && then == effect(now, *lock)
        });
        if holds || entries.is_empty() {
            return Ok(None);
        }
        let listed = Some(entries.into_values().collect());
        self.new_statement(key, family, then, listed).map(Some)
    }
}

impl Plan {
    /// Whether the plan has as many signatures as one call makes.
    fn is_full(&self) -> bool {
        self.objects.len() >= MOST_SIGNATURES
    }
}
