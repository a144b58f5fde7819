//! From answers to an accepted review.

use keywright_proto::{Certificate, Effect, Id, Kind};

use super::{
    Caller, Reply, Station, selection::too_many, serializations::Serialization, view::Summary,
};
use crate::{
    audit::AuditEvent, decision::Reason, error::Error, presence::State,
    registry::records::LockEntry, serialization::wizard::Event,
};

/// How many bytes of rights in one family that are not copied are named in a review: those of some 50,000 Locks. The bus
/// lets go of whoever sends 32 MiB at once.
const MOST_NAMED: usize = 4 << 20;

impl Station {
    /// Review.
    pub fn review(&mut self, number: u64, caller: Caller, reply: Reply<Summary>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.check(Event::Save)?;
            Ok(())
        });
        let result = result.and_then(|()| self.summary(number));
        self.answered(number, &caller, result, reply);
    }

    fn summary(&mut self, number: u64) -> Result<Summary, Error> {
        let mut warnings = self.warnings(number)?;
        if self.job(number)?.wizard.kind() == Some(Kind::Sub) {
            let dropped = self.dropped(number, &self.selection(number)?)?;
            let count = dropped.iter().filter(|entry| entry.allow).count();
            if count > 0 {
                let text =
                    format!("{count} of the Locks of this Key are not selected; it loses them");
                warnings.push(("rights-removed".into(), text));
            }
        }
        let job = self.job(number)?;
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        let (selection, issuer) = (job.wizard.selection(), job.issuer.clone());
        let (name, revision) = (job.wizard.name().to_owned(), job.wizard.revision());
        let locks = match (kind, issuer) {
            (Kind::Sub, _) if !selection.all => selection.count,
            // All are those that there are now: Save fixes them.
            (_, Some(_)) => {
                let family = self.issuing_family(number)?;
                self.lock_count(family)?
            }
            (_, None) => 0,
        };
        // Every right starts as pending: only the Lock itself makes it active.
        Ok(Summary { kind, name, locks, pending: locks, warnings, revision })
    }

    /// What a person should know before the write.
    fn warnings(&self, number: u64) -> Result<Vec<(String, String)>, Error> {
        let Some(job) = self.serializations.get(&number) else { return Ok(Vec::new()) };
        let issuer = job.issuer.as_ref().and_then(|label| self.keys.get(label));
        let mut warnings = self.other_slots(job);
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
                    warnings.extend(self.not_copied(id, *family)?);
                }
            }
        }
        Ok(warnings)
    }

    /// What of other programs' is on the token, as far as it shows without its PIN: the certificates of 9D and 9E on one that
    /// looks blank, which the closer look will refuse before anything is written; a key in 9C of a Sub Key, on a token that
    /// tells. Retired slots, and keys without a certificate, show after the PIN.
    fn other_slots(&self, job: &Serialization) -> Vec<(String, String)> {
        let Some(key) = self.keys.get(&job.candidate) else { return Vec::new() };
        let word = |text| ("other-slots".to_owned(), text);
        let mut warnings: Vec<_> = key
            .details
            .other_slots
            .iter()
            .filter(|_| key.state == State::Blank)
            .map(|slot| {
                word(format!(
                    "{slot} of {} is in use; nothing is written then: take another token",
                    key.called()
                ))
            })
            .collect();
        if key.state == State::Sub
            && key.claims.issuing.is_none()
            && key.details.has_issuing_key == Some(true)
        {
            warnings.push(word(format!(
                "slot 9C of {} holds a key, which stays as it is",
                key.called()
            )));
        }
        warnings
    }

    /// The rights of a Key in another family, one by one: a Backup Key of it does not get them.
    fn not_copied(&self, key: Id, family: Id) -> Result<Vec<(String, String)>, Error> {
        let words = self.moment().words(&self.registry, key, family)?;
        let removed = self.registry.removed_locks(family)?;
        let allowed = words.locks(&self.registry, family)?.into_iter().filter(|lock| {
            removed.iter().all(|(removed, _)| removed != lock)
                && words.on(*lock).is_some_and(|(said, _)| said.effect == Effect::Allow)
        });
        let word = |text| ("right-not-copied".to_owned(), text);
        let (mut named, mut bytes, mut more) = (Vec::new(), 0, 0_u32);
        for lock in allowed {
            if bytes > MOST_NAMED {
                more += 1;
                continue;
            }
            let known = self.registry.lock_summary(family, lock)?;
            let name = known.map(|known| known.name).unwrap_or_default();
            let text = format!("Lock \"{name}\" ({lock}) of family {family}");
            bytes += text.len();
            named.push(word(text));
        }
        if more > 0 {
            named.push(word(format!("{more} more Locks of family {family}; ListRights has all")));
        }
        Ok(named)
    }

    /// Save.
    pub fn save(&mut self, number: u64, caller: Caller, revision: u32, reply: Reply<()>) {
        let result = self.accept(number, &caller, revision);
        self.answered(number, &caller, result, reply);
    }

    fn accept(&mut self, number: u64, caller: &Caller, revision: u32) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(Event::Save)?;
        let kind = job.wizard.kind();
        if kind == Some(Kind::Backup) && self.is_last_issuer(number) {
            return Err(Error::LimitExceeded(
                "a chain has at most 4 CA certificates; let a Key nearer to the Master make this one, or make it a Sub Key".into(),
            ));
        }
        let mut locks = if kind == Some(Kind::Sub) { self.selection(number)? } else { Vec::new() };
        if kind == Some(Kind::Sub) && locks.is_empty() {
            return Err(Error::Pair(Reason::NoLock));
        }
        let count = u32::try_from(locks.len()).unwrap_or(u32::MAX);
        if kind == Some(Kind::Sub) {
            let dropped = self.dropped(number, &locks)?;
            locks.extend(dropped.into_iter().map(|entry| LockEntry { allow: false, ..entry }));
            locks.sort_by_key(|entry| entry.lock);
        }
        too_many(locks.len())?;
        let pins = self.pins_to_ask(number);
        let code = self.new_recovery_code(number)?;
        let job = self.job(number)?;
        job.wizard.save(revision, count, pins)?;
        job.locks = locks.into();
        job.new_puk.clone_from(&code);
        job.recovery_code = code;
        self.note_saved(number, count);
        Ok(())
    }

    fn note_saved(&self, number: u64, locks: u32) {
        let Some(job) = self.serializations.get(&number) else { return };
        let Some(kind) = job.wizard.kind() else { return };
        let issuer = job.issuer.as_ref().and_then(|label| self.keys.get(label)?.id);
        let (token, locks) = (self.token_of(number), locks as usize);
        let serialization = number;
        self.note_event(&AuditEvent::JobSaved { serialization, kind, issuer, token, locks });
    }

    /// Its issuer's CA certificate is the last one that a chain may have.
    fn is_last_issuer(&self, number: u64) -> bool {
        let issuer = self.serializations.get(&number).and_then(|job| job.issuer.as_ref());
        let ca = issuer.and_then(|label| self.keys.get(label)?.claims.issuing.as_ref());
        ca.and_then(Certificate::path_len) == Some(0)
    }
}
