//! One serialization, from the offer to its end: its owner, answers and outcome.

use std::sync::{Arc, atomic::AtomicBool};

use keywright_token::RecoveryCode;

use super::pins::Pins;
use crate::{
    keys::Keys,
    registry::records::{Intent, LockEntry},
    serialization::{
        stage::Stage,
        wizard::{Who, Wizard},
    },
    view::{Label, Outcome, SerializationView},
};

/// A serialization on the bus.
pub struct Serialization {
    /// The issuing Key; `None` for a new Master.
    pub issuer: Option<Label>,
    /// The Key that is being made or changed.
    pub candidate: Label,
    /// The answers and the step.
    pub wizard: Wizard,
    /// The Locks that were selected one by one; from Save on, all selected Locks.
    pub locks: Arc<[LockEntry]>,
    /// The unique bus name of the front-end that owns it.
    pub owner: Option<String>,
    /// The user who saved it.
    pub saved_by: Option<u32>,
    /// The PINs that its tokens accepted.
    pub pins: Pins,
    /// The current state, in words.
    pub outcome: Outcome,
    /// The stage of the write.
    pub stage: Option<Stage>,
    /// Steps done, and steps in total.
    pub progress: (u32, u32),
    /// The saved state of its write, once that has begun.
    pub intent: Option<Intent>,
    /// The recovery code, until it is taken.
    pub recovery_code: Option<RecoveryCode>,
    /// The same code for the write, which needs it even after it was taken.
    pub new_puk: Option<RecoveryCode>,
    /// Set to stop a running write.
    pub stop: Arc<AtomicBool>,
    /// The finished Key.
    pub result: Option<Label>,
}

impl Serialization {
    /// Makes an offer.
    pub fn new(issuer: Option<Label>, candidate: Label, wizard: Wizard) -> Self {
        Self {
            issuer,
            candidate,
            wizard,
            locks: Arc::default(),
            owner: None,
            saved_by: None,
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

    /// Whether this Key is part of it.
    pub fn involves(&self, label: &Label) -> bool {
        self.candidate == *label || self.issuer.as_ref() == Some(label)
    }

    /// Whether it is for this pair and has not ended.
    pub fn is_live_for(&self, issuer: Option<&str>, candidate: &str) -> bool {
        !self.wizard.step().is_end()
            && self.issuer.as_deref() == issuer
            && self.candidate == candidate
    }

    /// One of its Keys was unplugged: forgets the Key's PIN.
    pub fn key_left(&mut self, label: &Label) {
        self.pins.forget(self.who(label));
    }

    /// Whether it has ended, successfully or not.
    pub fn has_ended(&self) -> bool {
        self.wizard.step().is_end()
    }

    /// Whether all of its Keys are plugged in.
    pub fn has_its_keys(&self, keys: &Keys) -> bool {
        keys.is_present(&self.candidate)
            && self.issuer.as_ref().is_none_or(|issuer| keys.is_present(issuer))
    }

    /// Its Keys: the issuer, if it has one, and the candidate.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.issuer.iter().chain([&self.candidate])
    }

    /// Which of its two Keys has this label.
    pub fn who(&self, label: &Label) -> Who {
        if self.candidate == *label { Who::Candidate } else { Who::Issuer }
    }

    /// The properties that the bus shows.
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
