//! One offer, or one job: who drives it, what was answered, how it stands; and the calls that answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use keywright_proto::{Kind, check_name};

use super::{
    Caller, Reply, Station,
    pins::Pins,
    view::{Label, Outcome, SerializationView},
};
use crate::{
    audit::AuditEvent,
    decision::Past,
    error::Error,
    registry::records::{Intent, LockEntry},
    serialization::{
        stage::Stage,
        wizard::{Event, Refusal, Step, Who, Wizard},
    },
    token::RecoveryCode,
};

/// A serialization on the bus.
pub struct Serialization {
    /// The issuing Key; none for a new Master.
    pub issuer: Option<Label>,
    /// The Key that is being made.
    pub candidate: Label,
    /// The answers and the step.
    pub wizard: Wizard,
    /// The Locks that were selected one by one, and all of them from Save on.
    pub locks: Arc<[LockEntry]>,
    /// The unique bus name of the front-end that drives it.
    pub owner: Option<String>,
    /// The PINs that were accepted.
    pub pins: Pins,
    /// How it stands.
    pub outcome: Outcome,
    /// What the write is doing.
    pub stage: Option<Stage>,
    /// Done and total.
    pub progress: (u32, u32),
    /// What its write is on disk with, once that has begun.
    pub intent: Option<Intent>,
    /// The new PUK, until it is taken.
    pub recovery_code: Option<RecoveryCode>,
    /// The same for the write, which needs it whether it was taken or not.
    pub new_puk: Option<RecoveryCode>,
    /// Tells a running write to stop.
    pub stop: Arc<AtomicBool>,
    /// The finished Key.
    pub result: Option<Label>,
}

impl Serialization {
    /// An offer.
    pub fn new(issuer: Option<Label>, candidate: Label, wizard: Wizard) -> Self {
        Self {
            issuer,
            candidate,
            wizard,
            locks: Arc::default(),
            owner: None,
            pins: Pins::default(),
            outcome: Outcome::default(),
            stage: None,
            progress: (0, 0),
            intent: None,
            recovery_code: None,
            new_puk: None,
            stop: Arc::default(),
            result: None,
        }
    }

    /// This Key is part of it.
    pub fn involves(&self, label: &Label) -> bool {
        self.candidate == *label || self.issuer.as_ref() == Some(label)
    }

    /// It is under way for this pair.
    pub fn is_live_for(&self, issuer: Option<&str>, candidate: &str) -> bool {
        !self.wizard.step().is_end()
            && self.issuer.as_deref() == issuer
            && self.candidate == candidate
    }

    /// One of its Keys left: what that token accepted counts no more.
    pub fn key_left(&mut self, label: &Label) {
        self.pins.forget(self.who(label));
    }

    /// Which of its two Keys this is.
    pub fn who(&self, label: &Label) -> Who {
        if self.candidate == *label { Who::Candidate } else { Who::Issuer }
    }

    /// What the bus shows.
    pub fn view(&self) -> SerializationView {
        let selection = self.wizard.selection();
        SerializationView {
            issuer: self.issuer.clone(),
            candidate: self.candidate.clone(),
            result: self.result.clone(),
            kinds: self.wizard.kinds().to_vec(),
            kind: self.wizard.kind(),
            name: self.wizard.name().to_owned(),
            selected: selection.count,
            all_locks: selection.all,
            step: self.wizard.step(),
            steps: self.wizard.steps(),
            revision: self.wizard.revision(),
            pins_needed: self.wizard.pins_needed().to_vec(),
            progress: self.progress,
            stage: self.stage,
            owner: self.owner.clone(),
            outcome: self.outcome.clone(),
        }
    }
}

impl Station {
    pub(super) fn job(&mut self, number: u64) -> Result<&mut Serialization, Error> {
        self.serializations
            .get_mut(&number)
            .ok_or_else(|| Error::NotFound(format!("serialization {number}")))
    }

    /// The serialization, if this caller may drive it. Claiming is left to [`Self::answered`].
    pub(super) fn driven(
        &mut self,
        number: u64,
        caller: &Caller,
    ) -> Result<&mut Serialization, Error> {
        let job = self.job(number)?;
        match &job.owner {
            Some(owner) if *owner != caller.name => Err(Error::NotOwner { owner: owner.clone() }),
            _ => Ok(job),
        }
    }

    /// Answers a call that drives a serialization; the first that succeeds claims it.
    pub(super) fn answered<T: Send + 'static>(
        &mut self,
        number: u64,
        caller: &Caller,
        result: Result<T, Error>,
        reply: Reply<T>,
    ) {
        if result.is_ok()
            && let Some(job) = self.serializations.get_mut(&number)
        {
            job.owner.get_or_insert_with(|| caller.name.clone());
        }
        self.announce(number);
        reply.answer(self, result);
    }

    /// Claim.
    pub fn claim(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).map(|_| ());
        self.answered(number, &caller, result, reply);
    }

    /// Release. Nobody's serialization is released already.
    pub fn release(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).map(|_| ());
        if result.is_ok() {
            self.let_go(number);
        }
        reply.answer(self, result);
    }

    /// A name left the bus: what it drove is nobody's now.
    pub fn bus_name_left(&mut self, name: &str) {
        let driven: Vec<u64> = self
            .serializations
            .iter()
            .filter(|(_, job)| job.owner.as_deref() == Some(name))
            .map(|(number, _)| *number)
            .collect();
        driven.into_iter().for_each(|number| self.let_go(number));
    }

    /// Nobody drives it any more. PINs that one person gave do not serve the next one, nor does a
    /// recovery code that somebody took who is gone.
    fn let_go(&mut self, number: u64) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        job.owner = None;
        // A write goes on with what it was given; what it asks for again is for `pin_lost`.
        if matches!(job.wizard.step(), Step::Pins | Step::AwaitingKey) {
            self.forget_given(number);
        }
    }

    /// Forgets what the last driver gave and took. It is asked for now, or when both Keys are there again.
    pub(super) fn forget_given(&mut self, number: u64) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        job.pins.let_go();
        let retake = job.intent.is_none() && job.new_puk.is_some() && job.recovery_code.is_none();
        let needed = self.pins_to_ask(number);
        // Where none can be made, the one that was taken stays.
        let code = if retake { self.new_recovery_code(number).ok() } else { None };
        let Some(job) = self.serializations.get_mut(&number) else { return };
        if job.wizard.step() == Step::Pins {
            needed.into_iter().for_each(|who| job.wizard.need_pin(who));
        }
        if let Some(code) = code {
            job.new_puk.clone_from(&code);
            job.recovery_code = code;
        }
    }

    /// SetKind.
    pub fn set_kind(&mut self, number: u64, caller: Caller, kind: Kind, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.set_kind(kind)?;
            if kind != Kind::Sub {
                job.locks = Arc::default();
            }
            Ok(())
        });
        self.answered(number, &caller, result, reply);
    }

    /// SetName.
    pub fn set_name(&mut self, number: u64, caller: Caller, name: String, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.check(Event::SetName)?;
            checked(&name)?;
            Ok(job.wizard.set_name(name)?)
        });
        self.answered(number, &caller, result, reply);
    }

    /// Back.
    pub fn back(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| Ok(job.wizard.back()?));
        self.answered(number, &caller, result, reply);
    }

    /// TakeRecoveryCode.
    pub fn take_recovery_code(&mut self, number: u64, caller: Caller, reply: Reply<RecoveryCode>) {
        let result = self.driven(number, &caller).and_then(|job| {
            if matches!(job.wizard.step(), Step::Kind | Step::Name | Step::Locks | Step::Review) {
                job.wizard.check(Event::PinsComplete)?;
            }
            job.recovery_code.take().ok_or_else(|| {
                Error::NotFound(
                    "recovery code: it was taken before, or the PUK is not replaced".into(),
                )
            })
        });
        if result.is_ok() {
            let token = self.token_of(number);
            self.note_event(&AuditEvent::CodeTaken { serialization: number, token });
        }
        self.answered(number, &caller, result, reply);
    }

    /// Finish.
    pub fn finish(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| match job.wizard.step() {
            step if step.is_end() => Ok(()),
            at => Err(Refusal::Step { at }.into()),
        });
        if result.is_ok() {
            self.remove_serialization(number);
        }
        reply.answer(self, result);
    }

    /// Cancel. Root may cancel what another drives.
    pub fn cancel(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = match self.driven(number, &caller) {
            Err(Error::NotOwner { .. }) if caller.uid == 0 => self.call_off(number),
            Err(error) => Err(error),
            Ok(_) => self.call_off(number),
        };
        // It claims: whoever cancels can read what is left on the tokens before it goes.
        self.answered(number, &caller, result, reply);
    }

    fn call_off(&mut self, number: u64) -> Result<(), Error> {
        let job = self.job(number)?;
        if job.wizard.step() == Step::Writing {
            // The write stops before its next command, and rolls back.
            job.stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if job.wizard.step().is_end() {
            return Ok(job.wizard.cancel()?);
        }
        job.wizard.check(Event::Cancel)?;
        // What would have let it go on counts no more.
        let before = std::mem::take(&mut job.outcome);
        // What cannot be rolled back is not called off.
        if let Err(error) = self.abandon(number) {
            self.job(number)?.outcome = before;
            return Err(error);
        }
        let job = self.job(number)?;
        let step = job.wizard.step();
        job.wizard.cancel()?;
        self.note_cancelled(number, step);
        self.ended(number, Past::Cancelled);
        Ok(())
    }

    /// The pair is not offered again before a re-plug; its PINs are forgotten.
    pub(super) fn ended(&mut self, number: u64, past: Past) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        job.pins = Pins::default();
        job.new_puk = None;
        self.history.insert((job.issuer.clone(), job.candidate.clone()), past);
    }
}

/// A name that may be given.
pub(super) fn checked(name: &str) -> Result<(), Error> {
    check_name(name).map_err(|error| Error::InvalidArgument(error.to_string()))
}
