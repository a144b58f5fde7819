//! Serializations: what is offered, what is being made, what has been answered, and how each one ends.
//!
//! A job here never talks to a token. It says what a write needs ([`Jobs::order`]) and takes over how that ended; the
//! station runs it on a thread of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `serialization` | one serialization: its answers, its driver, its outcome |
//! | `offers` | from the present Keys to offers and decisions |
//! | `start` `answers` `selection` `review` `pins` | from its start to the last PIN, call by call |
//! | `orders` | what its write is given |
//! | `endings` `interruptions` | how a write ends, how a job waits for a Key, is taken up again or rolled back |

mod answers;
mod endings;
mod interruptions;
mod offers;
mod orders;
mod pins;
mod review;
mod selection;
mod serialization;
mod start;

use std::collections::BTreeMap;

pub use pins::Given;
pub use selection::LockChoice;
pub use serialization::Serialization;

use keywright_rules::decision::PairState;

use crate::{
    audit::Token,
    config::Config,
    error::Error,
    families::Families,
    keys::Keys,
    outbox::{Outbox, Output},
    serialization::wizard::Step,
    view::{DecisionView, Label, SerializationView},
};

/// All serializations, and which pairs are not offered again.
pub struct Jobs {
    map: BTreeMap<u64, Serialization>,
    /// Pairs that were cancelled or are done, until one of the two is re-plugged.
    history: BTreeMap<(Option<Label>, Label), PairState>,
    /// What the bus was last told.
    shown: BTreeMap<u64, SerializationView>,
    shown_decisions: Vec<DecisionView>,
    outbox: Outbox,
    config: Config,
}

impl Jobs {
    /// No job yet.
    pub fn new(outbox: Outbox, config: Config) -> Self {
        Self {
            map: BTreeMap::new(),
            history: BTreeMap::new(),
            shown: BTreeMap::new(),
            shown_decisions: Vec::new(),
            outbox,
            config,
        }
    }

    /// A serialization, if there is one with this number.
    pub fn get(&self, number: u64) -> Option<&Serialization> {
        self.map.get(&number)
    }

    /// The serialization that a caller names.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job(&self, number: u64) -> Result<&Serialization, Error> {
        self.map.get(&number).ok_or_else(|| no_serialization(number))
    }

    /// The same, to change it.
    pub(super) fn job_mut(&mut self, number: u64) -> Result<&mut Serialization, Error> {
        self.map.get_mut(&number).ok_or_else(|| no_serialization(number))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Serialization> {
        self.map.values()
    }

    /// The numbers of those for which this is so.
    fn numbers(&self, is_wanted: impl Fn(&Serialization) -> bool) -> Vec<u64> {
        let wanted = self.map.iter().filter(|(_, job)| is_wanted(job));
        wanted.map(|(number, _)| *number).collect()
    }

    /// Whether a Key is part of any.
    pub fn involve(&self, label: &Label) -> bool {
        self.map.values().any(|job| job.involves(label))
    }

    /// A half-made Key is for its own job alone, until that is done or rolled back.
    ///
    /// # Errors
    /// [`Error::KeyBusy`].
    pub fn is_free(&self, label: &Label, own: Option<u64>, keys: &Keys) -> Result<(), Error> {
        if !self.is_half_made(label, own) {
            return Ok(());
        }
        let holder = "a serialization that has to be finished or cancelled first".into();
        Err(Error::KeyBusy { key: keys.called(label), holder })
    }

    /// Whether the write of another job that makes this Key has begun and not ended.
    fn is_half_made(&self, label: &str, own: Option<u64>) -> bool {
        self.map.iter().any(|(number, job)| {
            let begun = job.intent.is_some() || job.wizard.step() == Step::Writing;
            begun && job.candidate == label && !job.has_ended() && own != Some(*number)
        })
    }

    /// The token of which a job makes something, as the log of events names it.
    fn token(&self, number: u64, keys: &Keys) -> Token {
        self.map.get(&number).map(|job| keys.token(&job.candidate)).unwrap_or_default()
    }

    /// Stops showing a serialization.
    fn remove(&mut self, number: u64, keys: &mut Keys, families: &Families) {
        let Some(job) = self.map.remove(&number) else { return };
        if self.shown.remove(&number).is_some() {
            self.outbox.send(Output::SerializationGone(number));
        }
        for label in job.labels() {
            keys.forget_if_unknown(label, self.involve(label), families);
        }
    }

    /// Tells the bus how a serialization stands, if that has changed.
    pub fn announce(&mut self, number: u64) {
        let Some(serialization) = self.map.get(&number) else { return };
        let view = serialization.view();
        if self.shown.get(&number) != Some(&view) {
            self.shown.insert(number, view.clone());
            self.outbox.send(Output::Serialization(number, Box::new(view)));
        }
    }

    /// Tells the bus of every serialization that has changed.
    pub fn publish(&mut self) {
        self.numbers(|_| true).into_iter().for_each(|number| self.announce(number));
    }

    /// Tells the bus of the decisions, if they have changed.
    pub fn publish_decisions(&mut self, keys: &Keys, families: &Families) {
        let decisions = self.decisions(keys, families);
        if self.shown_decisions != decisions {
            self.shown_decisions.clone_from(&decisions);
            self.outbox.send(Output::Decisions(decisions));
        }
    }
}

fn no_serialization(number: u64) -> Error {
    Error::NotFound(format!("serialization {number}"))
}
