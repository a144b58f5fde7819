//! The wizard: which step a serialization is at, and what may happen there (contract section 3).
//!
//! [`TRANSITIONS`] is the whole of it: an event that has no row at a step is refused there. Nothing here
//! asks a token, a disk or a clock.

use keywright_proto::Kind;
pub use keywright_proto::words::{Step, Who};

/// What can happen to a serialization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WizardEvent {
    /// The kind was chosen.
    SetKind,
    /// The name was given.
    SetName,
    /// The Locks were chosen.
    SelectLocks,
    /// One step back.
    Back,
    /// What was reviewed is right.
    Save,
    /// Every PIN that is needed was accepted.
    PinsComplete,
    /// A token refused in the write a PIN that it had accepted before.
    PinLost,
    /// Everything is written and committed.
    Written,
    /// The write was broken off and can be taken up again.
    Interrupted,
    /// The write was given up and rolled back.
    Abandoned,
    /// One of the two Keys was unplugged.
    KeyLeft,
    /// Both are there (again).
    KeysBack,
    /// A person gives up.
    Cancel,
}

/// Which kinds an edge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Whatever the kind.
    Any,
    /// Sub Keys, which are asked for Locks.
    Sub,
    /// The others.
    Others,
}

/// Where an edge leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To this step.
    Step(Step),
    /// Back to where the Key was missed.
    Before,
}

/// One row: at this step, this event, for these kinds, leads there.
pub type Transition = (Step, WizardEvent, Kinds, Target);

/// The transition table.
pub const TRANSITIONS: &[Transition] = {
    use {Kinds::*, Step as S, Target::Before, WizardEvent as E};
    const fn to(step: Step) -> Target {
        Target::Step(step)
    }
    &[
        (S::Kind, E::SetKind, Any, to(S::Name)),
        (S::Name, E::SetName, Sub, to(S::Locks)),
        (S::Name, E::SetName, Others, to(S::Review)),
        (S::Locks, E::SelectLocks, Sub, to(S::Review)),
        (S::Review, E::Save, Any, to(S::Pins)),
        (S::Pins, E::PinsComplete, Any, to(S::Writing)),
        (S::Writing, E::Written, Any, to(S::Finished)),
        (S::Writing, E::PinLost, Any, to(S::Pins)),
        (S::Writing, E::Interrupted, Any, to(S::AwaitingKey)),
        (S::Writing, E::Abandoned, Any, to(S::Failed)),
        (S::Writing, E::Cancel, Any, to(S::Cancelled)),
        // A closer look, or the store, may end the job before its write.
        (S::Pins, E::Abandoned, Any, to(S::Failed)),
        (S::Name, E::Back, Any, to(S::Kind)),
        (S::Locks, E::Back, Any, to(S::Name)),
        (S::Review, E::Back, Sub, to(S::Locks)),
        (S::Review, E::Back, Others, to(S::Name)),
        (S::Kind, E::KeyLeft, Any, to(S::AwaitingKey)),
        (S::Name, E::KeyLeft, Any, to(S::AwaitingKey)),
        (S::Locks, E::KeyLeft, Any, to(S::AwaitingKey)),
        (S::Review, E::KeyLeft, Any, to(S::AwaitingKey)),
        (S::Pins, E::KeyLeft, Any, to(S::AwaitingKey)),
        (S::AwaitingKey, E::KeysBack, Any, Before),
        (S::Kind, E::Cancel, Any, to(S::Cancelled)),
        (S::Name, E::Cancel, Any, to(S::Cancelled)),
        (S::Locks, E::Cancel, Any, to(S::Cancelled)),
        (S::Review, E::Cancel, Any, to(S::Cancelled)),
        (S::Pins, E::Cancel, Any, to(S::Cancelled)),
        (S::AwaitingKey, E::Cancel, Any, to(S::Cancelled)),
    ]
};

/// Which Locks were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selection {
    /// Every Lock that the family has at Save.
    pub all: bool,
    /// How many.
    pub count: u32,
}

/// Why an answer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The serialization is at another step.
    #[error("this serialization is at step \"{}\", where that cannot be done", .at.as_str())]
    Step {
        /// The step.
        at: Step,
    },
    /// It offers other kinds.
    #[error("a {} Key cannot be made of this pair", .0.as_str())]
    Kind(Kind),
    /// What was reviewed is not what is answered now.
    #[error("revision {given} was reviewed, but the answers are at revision {current}")]
    Revision {
        /// What the front-end gave.
        given: u32,
        /// What the serialization is at.
        current: u32,
    },
}

/// The answers so far, and the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wizard {
    kinds: Vec<Kind>,
    kind: Option<Kind>,
    name: String,
    selection: Selection,
    revision: u32,
    step: Step,
    step_before_absence: Step,
    pins: Vec<Who>,
}

impl Wizard {
    /// An offer of these kinds, at its first step.
    pub fn new(kinds: &[Kind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            kind: None,
            name: String::new(),
            selection: Selection::default(),
            revision: 0,
            step: Step::Kind,
            step_before_absence: Step::Kind,
            pins: Vec::new(),
        }
    }

    /// A write that was interrupted: what was reviewed stands, the Keys have to come back.
    pub fn resumed(kind: Kind, name: String, selection: Selection) -> Self {
        Self {
            kind: Some(kind),
            name,
            selection,
            step: Step::AwaitingKey,
            step_before_absence: Step::Pins,
            ..Self::new(&[kind])
        }
    }

    /// The step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// What may be made.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// What is to be made.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// How it is to be called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which Locks.
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// Grows with every answer.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The PINs that are still needed.
    pub fn pins_needed(&self) -> &[Who] {
        &self.pins
    }

    /// The steps of this kind of job, in order.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Kind, Step::Name];
        if self.kind.or(self.kinds.first().copied().filter(|_| self.kinds.len() == 1))
            == Some(Kind::Sub)
        {
            steps.push(Step::Locks);
        }
        steps.extend([Step::Review, Step::Pins, Step::Writing, Step::Finished]);
        steps
    }

    /// Answers `kind`. The answer that was given already is no error at a later step.
    pub fn set_kind(&mut self, kind: Kind) -> Result<(), Refusal> {
        if self.kind == Some(kind) && matches!(self.step, Step::Name) {
            return Ok(());
        }
        let to = self.next(WizardEvent::SetKind)?;
        if !self.kinds.contains(&kind) {
            return Err(Refusal::Kind(kind));
        }
        if self.kind.is_some_and(|before| before != kind) {
            self.selection = Selection::default();
        }
        self.kind = Some(kind);
        self.answer(to);
        Ok(())
    }

    /// Answers `name`; the caller has checked it.
    pub fn set_name(&mut self, name: String) -> Result<(), Refusal> {
        let to = self.next(WizardEvent::SetName)?;
        self.name = name;
        self.answer(to);
        Ok(())
    }

    /// Proposes a name before the step is reached.
    pub fn propose_name(&mut self, name: String) {
        self.name = name;
    }

    /// Answers `locks`; the caller has checked them.
    pub fn select_locks(&mut self, selection: Selection) -> Result<(), Refusal> {
        let to = self.next(WizardEvent::SelectLocks)?;
        self.selection = selection;
        self.answer(to);
        Ok(())
    }

    /// Proposes Locks before the step is reached.
    pub fn propose_locks(&mut self, selection: Selection) {
        self.selection = selection;
    }

    /// Whether this call could be made now.
    pub fn check(&self, event: WizardEvent) -> Result<(), Refusal> {
        self.next(event).map(|_| ())
    }

    /// One step back.
    pub fn back(&mut self) -> Result<(), Refusal> {
        self.step = self.next(WizardEvent::Back)?;
        Ok(())
    }

    /// Accepts what was reviewed. `count` is how many Locks "all" means from now on.
    pub fn save(&mut self, revision: u32, count: u32, pins: Vec<Who>) -> Result<(), Refusal> {
        let to = self.next(WizardEvent::Save)?;
        if revision != self.revision {
            return Err(Refusal::Revision { given: revision, current: self.revision });
        }
        self.selection.count = count;
        self.pins = pins;
        self.step = to;
        Ok(())
    }

    /// A PIN was accepted. True when it was the last one that is needed: the write begins.
    pub fn pin_accepted(&mut self, who: Who) -> Result<bool, Refusal> {
        let writing = self.next(WizardEvent::PinsComplete)?;
        self.pins.retain(|needed| *needed != who);
        if self.pins.is_empty() {
            self.step = writing;
        }
        Ok(self.pins.is_empty())
    }

    /// A PIN is needed (again).
    pub fn need_pin(&mut self, who: Who) {
        if !self.pins.contains(&who) {
            self.pins.push(who);
            self.pins.sort();
        }
    }

    /// Something happened that is nobody's answer.
    pub fn apply(&mut self, event: WizardEvent) -> Result<(), Refusal> {
        let to = self.next(event)?;
        if to == Step::AwaitingKey {
            // After a broken write there is nothing to be reviewed again: only PINs are missing.
            self.step_before_absence =
                if event == WizardEvent::Interrupted { Step::Pins } else { self.step };
        }
        self.step = to;
        Ok(())
    }

    /// Gives up. Giving up twice is no error.
    pub fn cancel(&mut self) -> Result<(), Refusal> {
        if matches!(self.step, Step::Cancelled | Step::Failed) {
            return Ok(());
        }
        self.apply(WizardEvent::Cancel)
    }

    fn answer(&mut self, to: Step) {
        self.revision += 1;
        self.step = to;
    }

    fn next(&self, event: WizardEvent) -> Result<Step, Refusal> {
        let fits = |edge: &Kinds| match edge {
            Kinds::Any => true,
            Kinds::Sub => self.kind == Some(Kind::Sub),
            Kinds::Others => self.kind != Some(Kind::Sub),
        };
        let edge = TRANSITIONS
            .iter()
            .find(|(from, on, when, _)| *from == self.step && *on == event && fits(when));
        match edge {
            Some((.., Target::Step(step))) => Ok(*step),
            Some((.., Target::Before)) => Ok(self.step_before_absence),
            None => Err(Refusal::Step { at: self.step }),
        }
    }
}

#[cfg(test)]
#[path = "wizard_tests.rs"]
mod tests;
