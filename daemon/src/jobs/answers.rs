//! The calls that answer a wizard's questions, and the check of who may make them.

use std::sync::{Arc, atomic::Ordering};

use keywright_proto::Kind;
use keywright_rules::decision::PairState;
use keywright_token::RecoveryCode;

use super::{Jobs, Serialization, pins::Pins};
use crate::{
    audit::AuditEvent,
    caller::Caller,
    error::Error,
    families::{Asker, Families, checked},
    keys::Keys,
    serialization::wizard::{Refusal, Step, WizardEvent},
};

impl Jobs {
    /// The serialization, if this caller may drive it: its owner, or anybody while it has no owner.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotOwner`].
    pub fn driven(&mut self, number: u64, caller: &Caller) -> Result<&mut Serialization, Error> {
        let job = self.job_mut(number)?;
        match &job.owner {
            Some(owner) if *owner != caller.name => Err(Error::NotOwner { owner: owner.clone() }),
            _ => Ok(job),
        }
    }

    /// Makes the first caller whose call succeeds the owner, and publishes the change.
    pub fn claim_if_free(&mut self, number: u64, caller: &Caller, succeeded: bool) {
        if succeeded && let Some(job) = self.map.get_mut(&number) {
            job.owner.get_or_insert_with(|| caller.name.clone());
            // Who saved it before a restart is not known any more: whoever goes on with it.
            if job.intent.is_some() {
                job.saved_by.get_or_insert(caller.uid);
            }
        }
        self.announce(number);
    }

    /// Release.
    pub fn release(
        &mut self,
        number: u64,
        caller: &Caller,
        keys: &Keys,
        families: &Families,
    ) -> Result<(), Error> {
        self.driven(number, caller)?;
        self.let_go(number, keys, families);
        Ok(())
    }

    /// A bus name lost its owner: releases its serializations.
    pub fn bus_name_left(&mut self, name: &str, keys: &Keys, families: &Families) {
        let driven = self.numbers(|job| job.owner.as_deref() == Some(name));
        driven.into_iter().for_each(|number| self.let_go(number, keys, families));
    }

    /// Releases a serialization. The next owner cannot use the PINs of the last one, nor a recovery code that the last
    /// one took.
    fn let_go(&mut self, number: u64, keys: &Keys, families: &Families) {
        let Some(job) = self.map.get_mut(&number) else { return };
        job.owner = None;
        // A running write keeps its PINs; if it asks for one again, `pin_lost` decides.
        if matches!(job.wizard.step(), Step::Pins | Step::AwaitingKey) {
            self.forget_given(number, keys, families);
        }
    }

    /// Forgets the PINs and the recovery code of the last owner. They are asked for now, or when both Keys are plugged
    /// in again.
    pub(super) fn forget_given(&mut self, number: u64, keys: &Keys, families: &Families) {
        let Some(job) = self.map.get_mut(&number) else { return };
        job.pins.let_go();
        let retake = job.intent.is_none() && job.new_puk.is_some() && job.recovery_code.is_none();
        let needed = self.pins_to_ask(number, keys);
        // If no new code can be made, the code that was taken stays.
        let code = if retake { self.new_recovery_code(number, keys, families).ok() } else { None };
        let Some(job) = self.map.get_mut(&number) else { return };
        if job.wizard.step() == Step::Pins {
            needed.into_iter().for_each(|who| job.wizard.need_pin(who));
        }
        if let Some(code) = code {
            job.new_puk.clone_from(&code);
            job.recovery_code = code;
        }
    }

    /// SetKind.
    pub fn set_kind(&mut self, number: u64, caller: &Caller, kind: Kind) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.set_kind(kind)?;
        if kind != Kind::Sub {
            job.locks = Arc::default();
        }
        Ok(())
    }

    /// SetName.
    pub fn set_name(&mut self, number: u64, caller: &Caller, name: String) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(WizardEvent::SetName)?;
        checked(&name)?;
        Ok(job.wizard.set_name(name)?)
    }

    /// Back.
    pub fn back(&mut self, number: u64, caller: &Caller) -> Result<(), Error> {
        Ok(self.driven(number, caller)?.wizard.back()?)
    }

    /// TakeRecoveryCode. The code is for the user who saved the job, also after that user's front-end has left.
    pub fn take_recovery_code(
        &mut self,
        number: u64,
        caller: &Caller,
        keys: &Keys,
        families: &Families,
        by: Asker,
    ) -> Result<RecoveryCode, Error> {
        let job = self.driven(number, caller)?;
        if matches!(job.wizard.step(), Step::Kind | Step::Name | Step::Locks | Step::Review) {
            job.wizard.check(WizardEvent::PinsComplete)?;
        }
        for_saver(job.saved_by, caller.uid)?;
        let code = job.recovery_code.take().ok_or_else(|| {
            Error::NotFound("recovery code: it was taken before, or the PUK is not replaced".into())
        })?;
        let token = keys.token(&job.candidate);
        families.note_event(&AuditEvent::CodeTaken { serialization: number, token }, by);
        Ok(code)
    }

    /// Finish.
    pub fn finish(
        &mut self,
        number: u64,
        caller: &Caller,
        keys: &mut Keys,
        families: &Families,
    ) -> Result<(), Error> {
        match self.driven(number, caller)?.wizard.step() {
            step if step.is_end() => self.remove(number, keys, families),
            at => return Err(Refusal::Step { at }.into()),
        }
        Ok(())
    }

    /// Cancel. Root may cancel a serialization that another caller owns.
    pub fn cancel(
        &mut self,
        number: u64,
        caller: &Caller,
        keys: &mut Keys,
        families: &Families,
        by: Asker,
    ) -> Result<(), Error> {
        match self.driven(number, caller) {
            Err(Error::NotOwner { .. }) if caller.uid == 0 => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let job = self.job_mut(number)?;
        if job.wizard.step() == Step::Writing {
            // The write stops before its next command, and rolls back.
            job.stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if job.has_ended() {
            return Ok(job.wizard.cancel()?);
        }
        job.wizard.check(WizardEvent::Cancel)?;
        // The rollback writes a new outcome.
        let before = std::mem::take(&mut job.outcome);
        // If the rollback fails, the serialization is not cancelled.
        if let Err(error) = self.abandon(number, keys, families, by) {
            self.job_mut(number)?.outcome = before;
            return Err(error);
        }
        let job = self.job_mut(number)?;
        let step = job.wizard.step();
        job.wizard.cancel()?;
        self.note_cancelled(number, step, keys, families, by);
        self.ended(number, PairState::Cancelled);
        Ok(())
    }

    /// Notes that the pair is not offered again before a re-plug, and forgets the PINs.
    pub(super) fn ended(&mut self, number: u64, past: PairState) {
        let Some(job) = self.map.get_mut(&number) else { return };
        job.pins = Pins::default();
        job.new_puk = None;
        self.history.insert((job.issuer.clone(), job.candidate.clone()), past);
    }

    /// Logs that a job was cancelled, if any of it had been saved.
    pub(super) fn note_cancelled(
        &self,
        number: u64,
        step: Step,
        keys: &Keys,
        families: &Families,
        by: Asker,
    ) {
        if matches!(step, Step::Pins | Step::AwaitingKey | Step::Writing) {
            let token = self.token(number, keys);
            families.note_event(&AuditEvent::JobCancelled { serialization: number, token }, by);
        }
    }
}

/// Lets the user who saved a job, and root, have its recovery code.
fn for_saver(saved_by: Option<u32>, uid: u32) -> Result<(), Error> {
    match saved_by {
        Some(saver) if uid != saver && uid != 0 => Err(Error::NotSaver { uid: saver }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one who saved it may have left.
    #[test]
    fn recovery_code_is_for_the_user_who_saved_the_job() {
        for (saved_by, uid, may) in
            [(Some(7), 7, true), (Some(7), 8, false), (Some(7), 0, true), (None, 8, true)]
        {
            assert_eq!(for_saver(saved_by, uid).is_ok(), may, "{saved_by:?} {uid}");
        }
    }
}
