//! Interrupted jobs: how they wait for their Keys, are recognized, resumed or rolled back.

use keywright_proto::ErrorName;
use keywright_rules::presence::Claims;
use keywright_token::hotplug::{Device, DeviceId};

use super::{Jobs, Serialization};
use crate::{
    audit::AuditEvent,
    error::Error,
    families::{Asker, Families},
    keys::{Key, Keys},
    registry::records::Intent,
    serialization::{
        left_behind, roll_back,
        wizard::{Selection, Step, Wizard, WizardEvent},
    },
    view::{Detail, Label, Outcome},
};

impl Jobs {
    /// The write was interrupted: the serialization is at `awaiting-key` until both Keys are plugged in.
    pub fn interrupted(
        &mut self,
        number: u64,
        error: &Error,
        used: &[DeviceId],
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        self.load_intent(number, keys, families);
        let text = match error {
            Error::KeyAbsent(key) => format!(
                "the write was interrupted: {key} was unplugged; plug it in again to go on, or cancel"
            ),
            other => format!(
                "the write was interrupted: {other}; to go on, unplug both Keys and plug them in again"
            ),
        };
        let Some(job) = self.map.get_mut(&number) else { return };
        if job.wizard.apply(WizardEvent::Interrupted).is_err() {
            return;
        }
        job.owner = None;
        job.pins = Default::default();
        // A Cancel of the interrupted write does not apply to the resumed one.
        job.stop = Default::default();
        let name = match error {
            Error::Store(_) => error.name(),
            _ => ErrorName::Interrupted,
        };
        let (serialization, error) = (number, error.name());
        let token = keys.token(&job.candidate);
        families.note_event(&AuditEvent::JobInterrupted { serialization, error, token }, by);
        let Some(job) = self.map.get_mut(&number) else { return };
        let stage = job.stage.map(|stage| stage.as_str().to_owned()).unwrap_or_default();
        job.outcome = Outcome { error: Some(name), text, details: Vec::new() }
            .with("stage", Detail::Text(stage));
        self.announce(number);
        // A Key that was re-plugged while the write still ran has been announced already.
        let replugged = used.iter().any(|device| keys.by_device(device).is_none());
        if replugged {
            self.resume_if_complete(number, keys);
        }
    }

    /// Loads the saved state of a job. Returns whether it could be read.
    pub(super) fn load_intent(
        &mut self,
        number: u64,
        keys: &mut Keys,
        families: &Families,
    ) -> bool {
        let read = families.registry().intent(number).inspect_err(|error| {
            tracing::error!(number, %error, "the intent of a job cannot be read");
        });
        let is_read = read.is_ok();
        let intent = read.unwrap_or_default();
        let Some(job) = self.map.get_mut(&number) else { return is_read };
        // A token with a key of this job also has the job's GUID, so no other blank token can be mistaken for it.
        if let Some(intent) = &intent
            && let (Some(guid), Some(_)) = (intent.candidate.guid, &intent.made.access_key)
            && let Some(key) = keys.get_mut(&job.candidate)
        {
            key.guid = Some(guid);
        }
        job.intent = intent;
        is_read
    }

    /// Rolls back where no caller waits: a failure is shown in the outcome.
    pub(super) fn abandon_or_say(
        &mut self,
        number: u64,
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) {
        if let Err(error) = self.abandon(number, keys, families, by)
            && let Some(job) = self.map.get_mut(&number)
        {
            job.outcome = Outcome::failed(&error);
        }
    }

    /// Rolls back a job, and shows in the outcome what is left on the token.
    pub(super) fn abandon(
        &mut self,
        number: u64,
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) -> Result<(), Error> {
        let rolled_back = roll_back(families.registry(), number, by.0).inspect_err(|error| {
            tracing::error!(number, %error, "a job could not be rolled back");
        })?;
        // A recovery code that may be in force can still be taken; any other is dropped.
        if !rolled_back.as_ref().is_some_and(|intent| intent.made.puk_begun)
            && let Some(job) = self.map.get_mut(&number)
        {
            job.recovery_code = None;
        }
        let Some(intent) = rolled_back else { return Ok(()) };
        let left = left_behind(&intent);
        let candidate = intent.candidate.label.clone();
        if let Some(job) = self.map.get_mut(&number) {
            job.intent = None;
            if !left.is_empty() {
                let left = left.join(", ");
                job.outcome.add(&format!("left on the token, for the next job to replace: {left}"));
            } else if job.outcome.text.is_empty() {
                job.outcome.add("nothing was written");
            }
            job.outcome.details.push(("left", Detail::Text(left.join(","))));
            if intent.made.puk_begun {
                job.outcome.details.push(("puk", Detail::Text("unknown".into())));
            }
        }
        // The token may have its new GUID or not: the next probe reads it.
        if let Some(key) = keys.get_mut(&candidate)
            && intent.made.looked
            && intent.candidate.guid.is_some()
        {
            key.guid = intent.candidate.guid;
        }
        keys.refresh(&candidate, families);
        keys.forget_if_unknown(&candidate, self.involve(&candidate), families);
        Ok(())
    }

    /// Shows a job that was interrupted before the daemon started.
    pub fn take_up(&mut self, intent: Intent, keys: &mut Keys, families: &Families) {
        let number = intent.number;
        let locks = families.registry().intent_entries(number).unwrap_or_default();
        let selected = locks.iter().filter(|entry| entry.allow).count();
        let count = u32::try_from(selected).unwrap_or(u32::MAX);
        let wizard =
            Wizard::resumed(intent.kind, intent.name.clone(), Selection { all: false, count });
        let issuer = intent.issuer.as_ref().map(|issuer| issuer.label.clone());
        let candidate = intent.candidate.label.clone();
        keys.show_absent(candidate.clone(), || Key {
            guid: intent.candidate.guid,
            usb_serial: intent.candidate.usb_serial.clone(),
            port: intent.candidate.port.clone(),
            model: intent.candidate.model.clone(),
            serial: intent.candidate.serial.clone(),
            ..Key::default()
        });
        if let (Some(label), Some(by)) = (&issuer, &intent.issuer)
            && let Some(key) = keys.get_mut(label)
        {
            key.port.clone_from(&by.port);
        }
        let mut job = Serialization::new(issuer, candidate, wizard);
        job.locks = locks.into();
        job.outcome = Outcome {
            error: Some(ErrorName::Interrupted),
            text: "the write was interrupted; plug both Keys in to go on, or cancel it".into(),
            details: Vec::new(),
        };
        job.intent = Some(intent);
        self.map.insert(number, job);
    }

    /// The candidate of an interrupted job that this token is. It is recognized by the GUID that the job gave it, by
    /// its access key, or, before anything was written, as a blank token.
    pub fn interrupted_candidate(
        &self,
        device: &Device,
        claims: &Claims,
        guid: Option<[u8; 16]>,
        families: &Families,
    ) -> Option<Label> {
        self.map
            .values()
            .filter(|job| {
                job.wizard.step() == Step::AwaitingKey || job.wizard.step() == Step::Writing
            })
            .find_map(|job| {
                // A write that still runs has its intent only on disk.
                let intent = match &job.intent {
                    Some(intent) => Some(intent.clone()),
                    None => intent_of(&job.candidate, families),
                }?;
                let by_key = claims
                    .access_key()
                    .is_some_and(|key| intent.made.access_key.as_deref() == Some(key.spki_der()));
                let by_guid = guid.is_some() && guid == intent.candidate.guid;
                // Before anything was written, the token is still blank.
                let was = &intent.candidate;
                let untouched = intent.made.access_key.is_none()
                    && claims.access.is_none()
                    && !claims.foreign
                    && (guid, &device.usb_serial, &device.port)
                        == (was.guid_before, &was.usb_serial, &was.port);
                (by_key || by_guid || untouched).then(|| job.candidate.clone())
            })
    }
}

fn intent_of(candidate: &Label, families: &Families) -> Option<Intent> {
    let intents = families.registry().intents().ok()?;
    intents.into_iter().find(|intent| intent.candidate.label == *candidate)
}
