//! The wizard of a serialization: its step, its answers, and which event is accepted at which step.
//!
//! [`TRANSITIONS`] defines the wizard. An event without a row for the current step is refused. Nothing here uses a token,
//! a disk or a clock.

use keywright_proto::Kind;
pub use keywright_proto::words::{Step, Who};

/// An event that may move a serialization to another step.
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
    /// The reviewed answers were accepted.
    Save,
    /// Every required PIN was accepted.
    PinsComplete,
    /// During the write, a token refused a PIN that it had accepted before.
    PinLost,
    /// Everything is written and committed.
    Written,
    /// The write was interrupted and can be resumed.
    Interrupted,
    /// The write failed and was rolled back.
    Abandoned,
    /// One of the two Keys was unplugged.
    KeyLeft,
    /// Both Keys are plugged in again.
    KeysBack,
    /// A person cancelled.
    Cancel,
}

/// The kinds to which a transition applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Every kind.
    Any,
    /// Sub Keys, which have the step `locks`.
    Sub,
    /// Masters and Backups.
    Others,
}

/// The step to which a transition leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This step.
    Step(Step),
    /// The step at which a Key was unplugged.
    Before,
}

/// One row: the current step, the event, the kinds, the next step.
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
        // The check for foreign data on the token, or the registry, may fail before the write starts.
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

/// The events that lead from one step to the next while all goes well.
const FORWARD: [WizardEvent; 6] = [
    WizardEvent::SetKind,
    WizardEvent::SetName,
    WizardEvent::SelectLocks,
    WizardEvent::Save,
    WizardEvent::PinsComplete,
    WizardEvent::Written,
];

/// The chosen Locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selection {
    /// All Locks that the family has at Save.
    pub all: bool,
    /// The number of Locks.
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
    /// This kind is not offered for the pair.
    #[error("a {} Key cannot be made of this pair", .0.as_str())]
    Kind(Kind),
    /// The answers changed after the review.
    #[error("revision {given} was reviewed, but the answers are at revision {current}")]
    Revision {
        /// The revision that the front-end gave.
        given: u32,
        /// The current revision.
        current: u32,
    },
}

/// The step of a serialization and the answers given so far.
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
    /// Starts the wizard for an offer of these kinds.
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

    /// Restores the wizard of an interrupted write: the answers are final, and the Keys must be plugged in again.
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

    /// The current step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The offered kinds.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The chosen kind.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// The name of the new Key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The chosen Locks.
    pub fn selection(&self) -> Selection {
        self.selection
    }

    /// The revision of the answers; it grows with every answer.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The PINs that are still required.
    pub fn pins_needed(&self) -> &[Who] {
        &self.pins
    }

    /// The steps for the chosen kind, in order.
    pub fn steps(&self) -> Vec<Step> {
        let only = self.kinds.first().copied().filter(|_| self.kinds.len() == 1);
        let (kind, mut at) = (self.kind.or(only), Step::Kind);
        let mut steps = vec![at];
        while let Some(Target::Step(next)) = target(at, |event| FORWARD.contains(&event), kind) {
            steps.push(next);
            at = next;
        }
        steps
    }

    /// Answers the step `kind`. Repeating the same answer at the step `name` is no error.
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

    /// Answers the step `name`. The caller checks the name first.
    pub fn set_name(&mut self, name: String) -> Result<(), Refusal> {
        let to = self.next(WizardEvent::SetName)?;
        self.name = name;
        self.answer(to);
        Ok(())
    }

    /// Presets the name, before the step is reached.
    pub fn propose_name(&mut self, name: String) {
        self.name = name;
    }

    /// Answers the step `locks`. The caller checks the Locks first.
    pub fn select_locks(&mut self, selection: Selection) -> Result<(), Refusal> {
        let to = self.next(WizardEvent::SelectLocks)?;
        self.selection = selection;
        self.answer(to);
        Ok(())
    }

    /// Presets the Locks, before the step is reached.
    pub fn propose_locks(&mut self, selection: Selection) {
        self.selection = selection;
    }

    /// Checks whether this event is accepted at the current step.
    pub fn check(&self, event: WizardEvent) -> Result<(), Refusal> {
        self.next(event).map(|_| ())
    }

    /// Goes one step back.
    pub fn back(&mut self) -> Result<(), Refusal> {
        self.step = self.next(WizardEvent::Back)?;
        Ok(())
    }

    /// Accepts the reviewed answers and makes them final. `count` is the number of chosen Locks, also if "all" was chosen.
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

    /// Records that a token accepted a PIN. Returns true if it was the last required PIN, which starts the write.
    pub fn pin_accepted(&mut self, who: Who) -> Result<bool, Refusal> {
        let writing = self.next(WizardEvent::PinsComplete)?;
        self.pins.retain(|needed| *needed != who);
        if self.pins.is_empty() {
            self.step = writing;
        }
        Ok(self.pins.is_empty())
    }

    /// Adds a required PIN.
    pub fn need_pin(&mut self, who: Who) {
        if !self.pins.contains(&who) {
            self.pins.push(who);
            self.pins.sort();
        }
    }

    /// Applies an event that is not an answer.
    pub fn apply(&mut self, event: WizardEvent) -> Result<(), Refusal> {
        let to = self.next(event)?;
        if to == Step::AwaitingKey {
            // The answers of an interrupted write are final, so that only PINs are missing.
            self.step_before_absence =
                if event == WizardEvent::Interrupted { Step::Pins } else { self.step };
        }
        self.step = to;
        Ok(())
    }

    /// Cancels. Cancelling twice is no error.
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
        match target(self.step, |on| on == event, self.kind) {
            Some(Target::Step(step)) => Ok(step),
            Some(Target::Before) => Ok(self.step_before_absence),
            None => Err(Refusal::Step { at: self.step }),
        }
    }
}

/// Where the first matching row of [`TRANSITIONS`] leads.
fn target(at: Step, is_wanted: impl Fn(WizardEvent) -> bool, kind: Option<Kind>) -> Option<Target> {
    let fits = |kinds| match kinds {
        Kinds::Any => true,
        Kinds::Sub => kind == Some(Kind::Sub),
        Kinds::Others => kind != Some(Kind::Sub),
    };
    let row = TRANSITIONS
        .iter()
        .find(|(from, on, kinds, _)| *from == at && is_wanted(*on) && fits(*kinds));
    row.map(|(.., target)| *target)
}

#[cfg(test)]
#[path = "wizard_tests.rs"]
mod tests;
