//! What becomes of a serialization when its write ends.

use std::sync::atomic::Ordering;

use keywright_proto::{Certificate, Id};

use super::{
    Station,
    errands::token_error,
    keys::Key,
    view::{Detail, Label, Outcome},
};
use crate::{
    audit::AuditEvent,
    decision::Past,
    error::Error,
    hotplug::DeviceId,
    presence::Claims,
    serialization::{
        card::Carried,
        order::{Made, Puk, Stop, Stopped},
        wizard::{Event, Step, Who},
    },
    token::PinState,
};

impl Station {
    pub(super) fn written(&mut self, number: u64, made: Made, used: &[DeviceId]) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        let candidate = job.candidate.clone();
        job.progress.0 = job.progress.1;
        job.intent = None;
        job.result = Some(candidate.clone());
        // One that may be in force is not withheld.
        if made.puk == Puk::Left {
            job.recovery_code = None;
        }
        tracing::info!(number, key = %made.key, "a Key was made");
        self.note_authorized(number, [made.issuer_authorized, made.candidate_authorized], used);
        self.reread(&candidate, made.key);
        let outcome = self.success(number, made);
        if let Some(job) = self.serializations.get_mut(&number) {
            job.outcome = outcome;
            if let Err(error) = job.wizard.happen(Event::Written) {
                tracing::error!(number, %error, "a finished write was not expected");
            }
        }
        self.tell_card(number, made.card);
        self.ask_for_replug(number);
        self.ended(number, Past::Done);
        self.pin_changed(&candidate);
        if let Some(family) = self.keys.get(&candidate).and_then(|key| key.claims.family) {
            self.refresh_family(family.0);
        }
    }

    /// What a person should know of a finished write: what became of the PUK.
    fn success(&self, number: u64, made: Made) -> Outcome {
        let known = self.serializations.get(&number).is_some_and(|job| job.new_puk.is_some());
        let (word, text) = match made.puk {
            Puk::Replaced if known => return Outcome::default(),
            Puk::Replaced => (
                "replaced",
                "the recovery code that was handed out before the interruption is in force; if nobody took it, it is lost",
            ),
            Puk::Left => ("left", "the PUK was not the factory's and stays as it was"),
            Puk::Unknown => (
                "unknown",
                "whether the recovery code is in force could not be learnt; keep the old PUK too",
            ),
        };
        Outcome { text: text.into(), ..Outcome::default() }.with("puk", Detail::Text(word.into()))
    }

    /// Says why a Key does not carry its family's card.
    fn tell_card(&mut self, number: u64, card: Carried) {
        if let Some(candidate) = self.serializations.get(&number).map(|job| job.candidate.clone()) {
            self.note_card(&candidate, card);
        }
        let Some((word, why)) = card.why_not() else { return };
        if let Some(job) = self.serializations.get_mut(&number) {
            job.outcome.add(&format!(
                "the Key does not carry its family's card ({why}); other stations need an export first"
            ));
            job.outcome.details.push(("card", Detail::Text(word.into())));
        }
    }

    /// Shows which tokens of a write (issuer, candidate) stay authorized, unless they were re-plugged.
    fn note_authorized(&mut self, number: u64, stays: [bool; 2], used: &[DeviceId]) {
        let Some(job) = self.serializations.get(&number) else { return };
        for (label, stays) in [job.issuer.as_ref(), Some(&job.candidate)].into_iter().zip(stays) {
            if let Some(key) = label.and_then(|label| self.keys.get_mut(label))
                && key.device.as_ref().is_some_and(|device| used.contains(&device.id))
            {
                key.authorized |= stays;
            }
        }
    }

    /// Asks for a re-plug of what stays authorized.
    fn ask_for_replug(&mut self, number: u64) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        let called: Vec<String> = [job.issuer.as_ref(), Some(&job.candidate)]
            .into_iter()
            .flatten()
            .filter_map(|label| self.keys.get(label))
            .filter(|key| key.authorized)
            .map(Key::called)
            .collect();
        if !called.is_empty() {
            let called = called.join(" and ");
            job.outcome.add(&format!("unplug {called} now: the token stays authorized until then"));
            job.outcome.details.push(("replug", Detail::Flag(true)));
        }
    }

    /// Takes over what is now on a Key, without asking the token again.
    fn reread(&mut self, label: &Label, id: Id) {
        let known = || {
            let record = self.registry.key(id)?;
            let first = self.registry.memberships(id)?;
            let issuing = match record.as_ref().and_then(|record| record.issuing_key.as_ref()) {
                Some(spki) => self.registry.issuer(Id::of_spki(spki))?,
                None => None,
            };
            Ok::<_, crate::registry::RegistryError>((record, first, issuing))
        };
        let (record, memberships, issuing) = match known() {
            Ok((Some(record), memberships, issuing)) => (record, memberships, issuing),
            Ok((None, ..)) => return,
            Err(error) => return tracing::error!(%error, "a new Key cannot be read"),
        };
        let Some(key) = self.keys.get_mut(label) else { return };
        let parse = |der: &Vec<u8>| Certificate::parse(der).ok();
        // A member of several families keeps showing what it showed: the first family's.
        if key.id.is_none() {
            key.claims = Claims {
                family: Some((record.family, record.role)),
                access: memberships
                    .iter()
                    .find(|(family, _)| *family == record.family)
                    .and_then(|(_, first)| parse(&first.certificate)),
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
        self.refresh(label);
    }

    pub(super) fn stopped(&mut self, number: u64, stopped: Stopped, used: &[DeviceId]) {
        tracing::warn!(number, ?stopped, "a write stopped");
        let stays = [stopped.issuer_authorized, stopped.candidate_authorized];
        self.note_authorized(number, stays, used);
        self.take_stop(number, stopped.stop, used);
        self.ask_for_replug(number);
    }

    /// The write could not begin when it was its turn, or was lost. A Cancel that was answered holds all the same.
    pub(super) fn not_written(&mut self, number: u64, error: &Error, used: &[DeviceId]) {
        if self.is_called_off(number) {
            self.take_stop(number, Stop::Cancelled, used);
        } else {
            self.interrupted(number, error, used);
        }
    }

    fn is_called_off(&self, number: u64) -> bool {
        let job = self.serializations.get(&number);
        job.is_some_and(|job| job.stop.load(Ordering::Relaxed))
    }

    fn take_stop(&mut self, number: u64, stop: Stop, used: &[DeviceId]) {
        let called_off = self.is_called_off(number);
        match stop {
            // A Cancel that was answered holds, even where something else was noticed first.
            Stop::Pin { .. } | Stop::Interrupted { .. } if called_off => {
                self.take_stop(number, Stop::Cancelled, used);
            }
            Stop::Cancelled => {
                self.note_cancelled(number, Step::Writing);
                if let Some(job) = self.serializations.get_mut(&number)
                    && let Err(error) = job.wizard.happen(Event::Cancel)
                {
                    tracing::error!(number, %error, "a write was cancelled out of step");
                }
                self.ended(number, Past::Cancelled);
                self.offer_again_after_replug(number, used);
                self.abandon_or_say(number);
            }
            Stop::Pin { who, error } => self.pin_lost(number, who, error),
            Stop::Interrupted { who, error } => {
                let error = match self.side(number, who) {
                    Some(key) => token_error(key, error),
                    None => Error::KeyAbsent("a Key of this job".into()),
                };
                self.interrupted(number, &error, used);
            }
            Stop::Store(error) => self.interrupted(number, &Error::Store(error), used),
            Stop::Failed(failure) => {
                let called = self.side(number, Who::Candidate).map(Key::called).unwrap_or_default();
                self.give_up(number, &Error::failed(&called, failure));
            }
        }
    }

    /// A pair of which one was re-plugged before its write noticed the Cancel is offered like any other.
    fn offer_again_after_replug(&mut self, number: u64, used: &[DeviceId]) {
        let stayed = used.iter().all(|device| self.present_mut(device).is_some());
        if !stayed && let Some(job) = self.serializations.get(&number) {
            self.history.remove(&(job.issuer.clone(), job.candidate.clone()));
        }
    }

    fn side(&self, number: u64, who: Who) -> Option<&Key> {
        let job = self.serializations.get(&number)?;
        self.keys.get(match who {
            Who::Issuer => job.issuer.as_ref()?,
            Who::Candidate | Who::CandidateNew => &job.candidate,
        })
    }

    /// A token refused in the write what it had accepted before: a person has to give it again.
    fn pin_lost(&mut self, number: u64, who: Who, error: crate::token::TokenError) {
        let Some(key) = self.side(number, who) else { return };
        let answer = token_error(key, error.clone());
        let device = key.device.as_ref().map(|device| device.id.clone());
        if let Some((_, key)) = device.and_then(|device| self.present_mut(&device)) {
            key.note_refusal(&error);
            let token = key.token();
            self.note_refused(token, &error);
        }
        let is_read = self.load_intent(number);
        if let Some(job) = self.serializations.get_mut(&number)
            && job.wizard.happen(Event::PinLost).is_ok()
        {
            job.pins.forget(who);
            job.wizard.need_pin(who);
            job.outcome =
                Outcome::failed(&answer).with("who", Detail::Text(who.as_str().to_owned()));
        }
        // Whoever gave the others may be gone: they do not serve the next one.
        if let Some(job) = self.serializations.get_mut(&number)
            && job.owner.is_none()
        {
            // Where it is not known how far the write came, the code that was taken may be in force, and stays.
            if is_read {
                self.forget_given(number);
            } else {
                job.pins.let_go();
            }
        }
        // One of the Keys may have left, or have come back, while the write ran.
        let needed = self.pins_to_ask(number);
        let Some(job) = self.serializations.get_mut(&number) else { return };
        needed.into_iter().for_each(|who| job.wizard.need_pin(who));
        let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
        let here = present(&job.candidate) && job.issuer.as_ref().is_none_or(present);
        if !here && let Err(error) = job.wizard.happen(Event::KeyLeft) {
            tracing::error!(number, %error, "a Key left out of step");
        }
    }

    /// A job that cannot be done.
    pub(super) fn give_up(&mut self, number: u64, error: &Error) {
        let token = self.token_of(number);
        self.note_event(&AuditEvent::JobFailed {
            serialization: number,
            error: error.name(),
            token,
        });
        if let Some(job) = self.serializations.get_mut(&number) {
            if let Err(refusal) = job.wizard.happen(Event::Abandoned) {
                tracing::error!(number, %refusal, "a job failed out of step");
            }
            let stage = job.stage.map(|stage| stage.as_str().to_owned()).unwrap_or_default();
            job.outcome = Outcome::failed(error).with("stage", Detail::Text(stage));
        }
        self.ended(number, Past::Done);
        if matches!(error, Error::Foreign { .. }) {
            self.is_foreign(number);
        }
        self.abandon_or_say(number);
    }

    /// The closer look saw what could not be seen without the PIN; until it is plugged in again.
    fn is_foreign(&mut self, number: u64) {
        let Some(job) = self.serializations.get(&number) else { return };
        let candidate = job.candidate.clone();
        if let Some(key) = self.keys.get_mut(&candidate) {
            key.claims.foreign = true;
            key.claims.alien = true;
        }
        self.refresh(&candidate);
    }
}
