//! Applies the end of a write to its serialization.

use std::sync::atomic::Ordering;

use keywright_proto::{Certificate, Id};
use keywright_rules::decision::PairState;
use keywright_rules::presence::Claims;
use keywright_token::hotplug::DeviceId;
use keywright_token::{PinState, TokenError};

use super::Jobs;
use crate::{
    audit::AuditEvent,
    error::Error,
    families::{Asker, Families},
    keys::{Key, Keys, refusal},
    registry::RegistryError,
    serialization::{
        card::CardOutcome,
        order::{FinishedWrite, PukOutcome, Report, Stop, Stopped},
        wizard::{Step, Who, WizardEvent},
    },
    view::{Detail, Label, Outcome},
};

impl Jobs {
    /// Notes the progress of the write.
    pub fn progress(&mut self, number: u64, report: Report) {
        if let Some(job) = self.map.get_mut(&number) {
            job.stage = Some(report.stage);
            job.progress = (report.done, report.total);
        }
    }

    /// Notes that the write is done. Returns the family in which a Key was made or changed.
    pub fn written(
        &mut self,
        number: u64,
        made: FinishedWrite,
        used: &[DeviceId],
        keys: &mut Keys,
        families: &Families,
    ) -> Option<Id> {
        let job = self.map.get_mut(&number)?;
        let candidate = job.candidate.clone();
        job.progress.0 = job.progress.1;
        job.intent = None;
        job.result = Some(candidate.clone());
        // Keep a recovery code that may be in force.
        if matches!(made.puk, PukOutcome::Left | PukOutcome::Fixed) {
            job.recovery_code = None;
        }
        tracing::info!(number, key = %made.key, "a Key was made");
        let stays = [made.issuer_authorized, made.candidate_authorized];
        self.note_authorized(number, stays, used, keys);
        self.reread(&candidate, made.key, keys, families);
        let outcome = self.success(number, made);
        if let Some(job) = self.map.get_mut(&number) {
            job.outcome = outcome;
            if let Err(error) = job.wizard.apply(WizardEvent::Written) {
                tracing::error!(number, %error, "a finished write was not expected");
            }
        }
        self.tell_card(number, made.card, keys);
        self.ask_for_replug(number, keys);
        self.ended(number, PairState::Done);
        self.pin_changed(&candidate);
        Some(keys.get(&candidate)?.claims.family?.0)
    }

    /// The outcome of a finished write: what happened to the PUK.
    fn success(&self, number: u64, made: FinishedWrite) -> Outcome {
        let known = self.map.get(&number).is_some_and(|job| job.new_puk.is_some());
        let (word, text) = match made.puk {
            PukOutcome::Replaced if known => return Outcome::default(),
            PukOutcome::Replaced => (
                "replaced",
                "the recovery code that was handed out before the interruption is in force; if nobody took it, it is lost",
            ),
            PukOutcome::Fixed => (
                "left",
                "the token does not let its PUK be changed: it stays as it was, and whoever knows it can set a new PIN",
            ),
            PukOutcome::Left => ("left", "the PUK was not the factory's and stays as it was"),
            PukOutcome::Unknown => (
                "unknown",
                "whether the recovery code is in force could not be learnt; keep the old PUK too",
            ),
        };
        Outcome { text: text.into(), ..Outcome::default() }.with("puk", Detail::Text(word.into()))
    }

    /// Adds to the outcome why a Key has no family card.
    fn tell_card(&mut self, number: u64, card: CardOutcome, keys: &mut Keys) {
        if let Some(candidate) = self.map.get(&number).map(|job| job.candidate.clone()) {
            keys.note_card(&candidate, card);
        }
        let Some((word, why)) = card.why_not() else { return };
        if let Some(job) = self.map.get_mut(&number) {
            job.outcome.add(&format!(
                "the Key does not carry its family's card ({why}); other stations need an export first"
            ));
            job.outcome.details.push(("card", Detail::Text(word.into())));
        }
    }

    /// Notes which tokens of a write (issuer, candidate) stay authorized, unless they were re-plugged.
    fn note_authorized(&self, number: u64, stays: [bool; 2], used: &[DeviceId], keys: &mut Keys) {
        let Some(job) = self.map.get(&number) else { return };
        for (label, stays) in [job.issuer.as_ref(), Some(&job.candidate)].into_iter().zip(stays) {
            if let Some(key) = label.and_then(|label| keys.get_mut(label))
                && key.device.as_ref().is_some_and(|device| used.contains(&device.id))
            {
                key.authorized |= stays;
            }
        }
    }

    /// Asks for a re-plug of the tokens that stay authorized.
    fn ask_for_replug(&mut self, number: u64, keys: &Keys) {
        let Some(job) = self.map.get_mut(&number) else { return };
        let called: Vec<String> = job
            .labels()
            .filter_map(|label| keys.get(label))
            .filter(|key| key.authorized)
            .map(Key::called)
            .collect();
        if !called.is_empty() {
            let called = called.join(" and ");
            job.outcome.add(&format!("unplug {called} now: the token stays authorized until then"));
            job.outcome.details.push(("replug", Detail::Flag(true)));
        }
    }

    /// Updates a Key after its write, without probing the token again.
    fn reread(&self, label: &Label, id: Id, keys: &mut Keys, families: &Families) {
        let registry = families.registry();
        let known = || {
            let record = registry.key(id)?;
            let first = registry.memberships(id)?;
            let shown = record
                .as_ref()
                .and_then(|record| first.iter().find(|(family, _)| *family == record.family));
            let issuing = match shown.and_then(|(_, own)| own.issuing_key.as_ref()) {
                Some(spki) => registry.issuer(Id::of_spki(spki))?,
                None => None,
            };
            Ok::<_, RegistryError>((record, first, issuing))
        };
        let (record, memberships, issuing) = match known() {
            Ok((Some(record), memberships, issuing)) => (record, memberships, issuing),
            Ok((None, ..)) => return,
            Err(error) => return tracing::error!(%error, "a new Key cannot be read"),
        };
        let Some(key) = keys.get_mut(label) else { return };
        let parse = |der: &Vec<u8>| Certificate::parse(der).ok();
        // A member of several families keeps showing its first family.
        if key.id.is_none() {
            let shown = memberships.iter().find(|(family, _)| *family == record.family);
            key.claims = Claims {
                family: shown.map(|(family, own)| (*family, own.role)),
                access: shown.and_then(|(_, own)| parse(&own.certificate)),
                issuing: issuing.and_then(|issuer| issuer.chain.first().and_then(parse)),
                ..Claims::default()
            };
        }
        key.id = Some(id);
        key.guid = record.guid;
        key.serial = record.serial;
        if self.config.require_new_pin {
            key.details.pin = PinState::Set;
        }
        key.details.puk_is_factory = key.details.puk_is_factory.map(|_| false);
        keys.refresh(label, families);
    }

    /// Notes that the write stopped before its end.
    pub fn stopped(
        &mut self,
        number: u64,
        stopped: Stopped,
        used: &[DeviceId],
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        tracing::warn!(number, ?stopped, "a write stopped");
        let stays = [stopped.issuer_authorized, stopped.candidate_authorized];
        self.note_authorized(number, stays, used, keys);
        self.note_new_pin(number, &stopped.stop, keys, families);
        self.take_stop(number, stopped.stop, used, keys, families, by);
        self.ask_for_replug(number, keys);
    }

    /// Shows that the candidate has its new PIN, although the job stopped later.
    fn note_new_pin(&self, number: u64, stop: &Stop, keys: &mut Keys, families: &Families) {
        // A token that was interrupted is read again.
        if matches!(stop, Stop::Interrupted { .. }) {
            return;
        }
        let intent = families.registry().intent(number);
        let is_changed = intent.is_ok_and(|intent| intent.is_some_and(|job| job.made.pin_begun));
        let candidate = self.map.get(&number).and_then(|job| keys.get_mut(&job.candidate));
        if let (true, Some(key)) = (is_changed, candidate) {
            key.details.pin = PinState::Set;
        }
    }

    /// Notes that the write was refused when its turn came, or was lost. An answered Cancel is still carried out.
    pub fn not_written(
        &mut self,
        number: u64,
        error: &Error,
        used: &[DeviceId],
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        if self.is_cancelled(number) {
            self.take_stop(number, Stop::Cancelled, used, keys, families, by);
        } else {
            self.interrupted(number, error, used, keys, families, by);
        }
    }

    fn is_cancelled(&self, number: u64) -> bool {
        let job = self.map.get(&number);
        job.is_some_and(|job| job.stop.load(Ordering::Relaxed))
    }

    fn take_stop(
        &mut self,
        number: u64,
        stop: Stop,
        used: &[DeviceId],
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        let is_cancelled = self.is_cancelled(number);
        match stop {
            // An answered Cancel is carried out, even if the write stopped for another reason first.
            Stop::Pin { .. } | Stop::Interrupted { .. } if is_cancelled => {
                self.take_stop(number, Stop::Cancelled, used, keys, families, by);
            }
            Stop::Cancelled => {
                self.note_cancelled(number, Step::Writing, keys, families, by);
                if let Some(job) = self.map.get_mut(&number)
                    && let Err(error) = job.wizard.apply(WizardEvent::Cancel)
                {
                    tracing::error!(number, %error, "a write was cancelled out of step");
                }
                self.ended(number, PairState::Cancelled);
                self.offer_again_after_replug(number, used, keys);
                self.abandon_or_say(number, keys, families, by);
            }
            Stop::Pin { who, error } => self.pin_lost(number, who, error, keys, families, by),
            Stop::Interrupted { who, error } => {
                let error = match self.side(number, who, keys) {
                    Some(key) => key.token_error(error),
                    None => Error::KeyAbsent("a Key of this job".into()),
                };
                self.interrupted(number, &error, used, keys, families, by);
            }
            Stop::Store(error) => {
                self.interrupted(number, &Error::Store(error), used, keys, families, by);
            }
            Stop::Failed(failure) => {
                let candidate = self.side(number, Who::Candidate, keys);
                let called = candidate.map(Key::called).unwrap_or_default();
                self.give_up(number, &Error::failed(&called, failure), keys, families, by);
            }
        }
    }

    /// Offers a cancelled pair again if one of its Keys was re-plugged before the write noticed the Cancel.
    fn offer_again_after_replug(&mut self, number: u64, used: &[DeviceId], keys: &mut Keys) {
        let stayed = used.iter().all(|device| keys.by_device(device).is_some());
        if !stayed && let Some(job) = self.map.get(&number) {
            self.history.remove(&(job.issuer.clone(), job.candidate.clone()));
        }
    }

    fn side<'a>(&self, number: u64, who: Who, keys: &'a Keys) -> Option<&'a Key> {
        let job = self.map.get(&number)?;
        keys.get(match who {
            Who::Issuer => job.issuer.as_ref()?,
            Who::Candidate | Who::CandidateNew => &job.candidate,
        })
    }

    /// During the write a token refused a PIN that it had accepted before: asks for it again.
    fn pin_lost(
        &mut self,
        number: u64,
        who: Who,
        error: TokenError,
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        let Some(key) = self.side(number, who, keys) else { return };
        let answer = key.token_error(error.clone());
        let device = key.device.as_ref().map(|device| device.id.clone());
        if let Some((_, key)) = device.and_then(|device| keys.by_device(&device)) {
            key.note_refusal(&error);
            let token = key.token();
            if let Some(event) = refusal(token, &error) {
                families.note_event(&event, by);
            }
        }
        let is_read = self.load_intent(number, keys, families);
        if let Some(job) = self.map.get_mut(&number)
            && job.wizard.apply(WizardEvent::PinLost).is_ok()
        {
            job.pins.forget(who);
            job.wizard.need_pin(who);
            job.outcome =
                Outcome::failed(&answer).with("who", Detail::Text(who.as_str().to_owned()));
        }
        // If the owner has left, the next owner has to give the other PINs, too.
        if let Some(job) = self.map.get_mut(&number)
            && job.owner.is_none()
        {
            // If the progress of the write cannot be read, the recovery code that was taken may be in force: keep it.
            if is_read {
                self.forget_given(number, keys, families);
            } else {
                job.pins.let_go();
            }
        }
        // A Key may have been unplugged or re-plugged while the write ran.
        let needed = self.pins_to_ask(number, keys);
        let Some(job) = self.map.get_mut(&number) else { return };
        needed.into_iter().for_each(|who| job.wizard.need_pin(who));
        if !job.has_its_keys(keys)
            && let Err(error) = job.wizard.apply(WizardEvent::KeyLeft)
        {
            tracing::error!(number, %error, "a Key left out of step");
        }
    }

    /// Ends a job that cannot be completed.
    pub fn give_up(
        &mut self,
        number: u64,
        error: &Error,
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        let token = self.token(number, keys);
        let event = AuditEvent::JobFailed { serialization: number, error: error.name(), token };
        families.note_event(&event, by);
        if let Some(job) = self.map.get_mut(&number) {
            if let Err(refusal) = job.wizard.apply(WizardEvent::Abandoned) {
                tracing::error!(number, %refusal, "a job failed out of step");
            }
            let stage = job.stage.map(|stage| stage.as_str().to_owned()).unwrap_or_default();
            job.outcome = Outcome::failed(error).with("stage", Detail::Text(stage));
        }
        self.ended(number, PairState::Done);
        if matches!(error, Error::Foreign { .. }) {
            self.is_foreign(number, keys, families);
        }
        self.abandon_or_say(number, keys, families, by);
    }

    /// Shows that the closer look found the candidate in use, until the candidate is re-plugged.
    fn is_foreign(&self, number: u64, keys: &mut Keys, families: &Families) {
        let Some(job) = self.map.get(&number) else { return };
        let candidate = job.candidate.clone();
        if let Some(key) = keys.get_mut(&candidate) {
            key.claims.foreign = true;
            key.claims.unknown_profile = true;
        }
        keys.refresh(&candidate, families);
    }
}
