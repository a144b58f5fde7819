//! Serializations: the offers, the running jobs, their answers, and how each one ends.
//!
//! A job here never talks to a token. [`Jobs::order`] makes the order for its write, which the station runs on a thread
//! of its own; the result comes back to this module.
//!
//! | file | what |
//! | --- | --- |
//! | `serialization` | one serialization: its answers, its driver, its outcome |
//! | `offers` | from the present Keys to offers and decisions |
//! | `offers` | from the plugged-in Keys to offers and decisions |
//! | `orders` | makes the order for its write |
//! | `endings` `interruptions` | how a write ends; how an interrupted job waits, is resumed or rolled back |

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

/// All serializations, and the pairs that are not offered again.
pub struct Jobs {
    map: BTreeMap<u64, Serialization>,
    /// Pairs that were cancelled or are done, until one of the two Keys is re-plugged.
    history: BTreeMap<(Option<Label>, Label), PairState>,
    /// What was last published on the bus.
    shown: BTreeMap<u64, SerializationView>,
    shown_decisions: Vec<DecisionView>,
    outbox: Outbox,
    config: Config,
}

impl Jobs {
    /// Starts without any job.
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

    /// The serialization with this number.
    pub fn get(&self, number: u64) -> Option<&Serialization> {
        self.map.get(&number)
    }

    /// The serialization that a caller named.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job(&self, number: u64) -> Result<&Serialization, Error> {
        self.map.get(&number).ok_or_else(|| no_serialization(number))
    }

    /// Like [`Self::job`], mutable.
    pub(super) fn job_mut(&mut self, number: u64) -> Result<&mut Serialization, Error> {
        self.map.get_mut(&number).ok_or_else(|| no_serialization(number))
    }

    /// All serializations.
    pub fn iter(&self) -> impl Iterator<Item = &Serialization> {
        self.map.values()
    }

    /// The numbers of the serializations that satisfy a condition.
    fn numbers(&self, is_wanted: impl Fn(&Serialization) -> bool) -> Vec<u64> {
        let wanted = self.map.iter().filter(|(_, job)| is_wanted(job));
        wanted.map(|(number, _)| *number).collect()
    }

    /// Whether a Key is part of any serialization.
    pub fn involve(&self, label: &Label) -> bool {
        self.map.values().any(|job| job.involves(label))
    }

    /// Checks that no other job has half-made this Key. A half-made Key can be used only by its own job.
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

    /// Whether another job has begun to write this Key and not ended.
    fn is_half_made(&self, label: &str, own: Option<u64>) -> bool {
        self.map.iter().any(|(number, job)| {
            let begun = job.intent.is_some() || job.wizard.step() == Step::Writing;
            begun && job.candidate == label && !job.has_ended() && own != Some(*number)
        })
    }

    /// The candidate's token as the audit log names it.
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

    /// Publishes a serialization if it has changed.
    pub fn announce(&mut self, number: u64) {
        let Some(serialization) = self.map.get(&number) else { return };
        let view = serialization.view();
        if self.shown.get(&number) != Some(&view) {
            self.shown.insert(number, view.clone());
            self.outbox.send(Output::Serialization(number, Box::new(view)));
        }
    }

    /// Publishes every serialization that has changed.
    pub fn publish(&mut self) {
        self.numbers(|_| true).into_iter().for_each(|number| self.announce(number));
    }

    /// Publishes the decisions if they have changed.
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
