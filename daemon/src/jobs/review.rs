//! From answers to an accepted review.

use keywright_proto::{Certificate, Kind};
use keywright_rules::decision::Reason;
use keywright_rules::presence::KeyState;

use super::{Jobs, Serialization};
use crate::{
    audit::AuditEvent,
    caller::Caller,
    error::Error,
    families::{Asker, Families, too_many},
    keys::Keys,
    registry::records::LockEntry,
    serialization::wizard::WizardEvent,
    view::Summary,
};

impl Jobs {
    /// Review.
    pub fn review(
        &mut self,
        number: u64,
        caller: &Caller,
        keys: &Keys,
        families: &Families,
    ) -> Result<Summary, Error> {
        self.driven(number, caller)?.wizard.check(WizardEvent::Save)?;
        let mut warnings = self.warnings(number, keys, families)?;
        if self.job(number)?.wizard.kind() == Some(Kind::Sub) {
            let selected = self.selection(number, keys, families)?;
            let dropped = self.dropped(number, &selected, keys, families)?;
            let count = dropped.iter().filter(|entry| entry.allow).count();
            if count > 0 {
                let text =
                    format!("{count} of the Locks of this Key are not selected; it loses them");
                warnings.push(("rights-removed".into(), text));
            }
        }
        let job = self.job(number)?;
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        let selection = job.wizard.selection();
        let (name, revision) = (job.wizard.name().to_owned(), job.wizard.revision());
        let locks = match (kind, &job.issuer) {
            (Kind::Sub, _) if !selection.all => selection.count,
            // All Locks means the Locks of the family at Save.
            (_, Some(_)) => {
                families.lock_count(self.issuing_family(number, keys)?, &keys.for_families())?
            }
            (_, None) => 0,
        };
        // Every right starts as pending: only a Lock's confirmation makes it active.
        Ok(Summary { kind, name, locks, pending: locks, warnings, revision })
    }

    /// Warnings for the person who reviews.
    fn warnings(
        &self,
        number: u64,
        keys: &Keys,
        families: &Families,
    ) -> Result<Vec<(String, String)>, Error> {
        let Some(job) = self.map.get(&number) else { return Ok(Vec::new()) };
        let issuer = job.issuer.as_ref().and_then(|label| keys.get(label));
        let mut warnings = other_slots(job, keys);
        if let (Some(issuer), Some(Kind::Backup)) = (issuer, job.wizard.kind()) {
            for (family, role) in issuer.memberships.iter().skip(1) {
                warnings.push((
                    "rights-not-copied".into(),
                    format!(
                        "{} is also a {role} Key of family {family}; the Backup Key gets no right there",
                        issuer.called()
                    ),
                ));
                if let Some(id) = issuer.id {
                    warnings.extend(families.not_copied(id, *family)?);
                }
            }
        }
        Ok(warnings)
    }

    /// Save.
    pub fn save(
        &mut self,
        number: u64,
        caller: &Caller,
        revision: u32,
        keys: &Keys,
        families: &Families,
        by: Asker,
    ) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(WizardEvent::Save)?;
        let kind = job.wizard.kind();
        if kind == Some(Kind::Backup) && self.is_last_issuer(number, keys) {
            return Err(Error::LimitExceeded(
                "a chain has at most 4 CA certificates; let a Key nearer to the Master make this one, or make it a Sub Key".into(),
            ));
        }
        let is_sub = kind == Some(Kind::Sub);
        let mut locks = if is_sub { self.selection(number, keys, families)? } else { Vec::new() };
        if is_sub && locks.is_empty() {
            return Err(Error::Pair(Reason::NoLock));
        }
        let count = u32::try_from(locks.len()).unwrap_or(u32::MAX);
        if is_sub {
            let dropped = self.dropped(number, &locks, keys, families)?;
            locks.extend(dropped.into_iter().map(|entry| LockEntry { allow: false, ..entry }));
            locks.sort_by_key(|entry| entry.lock);
        }
        too_many(locks.len())?;
        let pins = self.pins_to_ask(number, keys);
        let code = self.new_recovery_code(number, keys, families)?;
        let job = self.job_mut(number)?;
        job.wizard.save(revision, count, pins)?;
        job.locks = locks.into();
        job.saved_by = Some(caller.uid);
        job.new_puk.clone_from(&code);
        job.recovery_code = code;
        self.note_saved(number, count, keys, families, by);
        Ok(())
    }

    fn note_saved(&self, number: u64, locks: u32, keys: &Keys, families: &Families, by: Asker) {
        let Some(job) = self.map.get(&number) else { return };
        let Some(kind) = job.wizard.kind() else { return };
        let issuer = job.issuer.as_ref().and_then(|label| keys.get(label)?.id);
        let (token, locks) = (keys.token(&job.candidate), locks as usize);
        let event = AuditEvent::JobSaved { serialization: number, kind, issuer, token, locks };
        families.note_event(&event, by);
    }

    /// Whether a chain cannot be longer than the issuer's: its CA certificate has path length 0.
    fn is_last_issuer(&self, number: u64, keys: &Keys) -> bool {
        let issuer = self.map.get(&number).and_then(|job| job.issuer.as_ref());
        let ca = issuer.and_then(|label| keys.get(label)?.claims.issuing.as_ref());
        ca.and_then(Certificate::path_len) == Some(0)
    }
}

/// Keys of other programs on the token, as far as they are visible without the PIN: certificates of 9D and 9E on a
/// token that looks blank, which the closer look will refuse before anything is written; a key in 9C of a Sub Key, if
/// the token tells. Retired slots, and keys without a certificate, are visible only after the PIN.
fn other_slots(job: &Serialization, keys: &Keys) -> Vec<(String, String)> {
    let Some(key) = keys.get(&job.candidate) else { return Vec::new() };
    let word = |text| ("other-slots".to_owned(), text);
    let mut warnings: Vec<_> = key
        .details
        .other_slots
        .iter()
        .filter(|_| key.state == KeyState::Blank)
        .map(|slot| {
            word(format!(
                "{slot} of {} is in use; nothing is written then: take another token",
                key.called()
            ))
        })
        .collect();
    if key.state == KeyState::Sub
        && key.claims.issuing.is_none()
        && key.details.has_issuing_key == Some(true)
    {
        warnings
            .push(word(format!("slot 9C of {} holds a key, which stays as it is", key.called())));
    }
    warnings
}
