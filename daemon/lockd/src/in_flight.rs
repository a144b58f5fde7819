//! Answers that are on their way to the broker: one of each Key, however often somebody asks and whether or not the broker
//! ever says that it has it.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{Effect, tree::Hash};

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentConfirmation {
    /// SHA-256 of the Key's access key.
    pub key: Hash,
    /// Names the statement that is confirmed.
    pub statement: Hash,
    /// What the Lock did for the Key then.
    pub effect: Effect,
}

/// Answers that the broker has not taken yet.
#[derive(Debug, Default)]
pub struct InFlight {
    /// By number.
    answers: BTreeMap<u64, SentConfirmation>,
    keys: BTreeSet<Hash>,
    next_number: u64,
}

impl InFlight {
    /// Whether an answer on this Key is on its way: another one has to wait until the broker has that.
    pub fn contains(&self, key: &Hash) -> bool {
        self.keys.contains(key)
    }

    /// One more; its number.
    pub fn add(&mut self, sent: SentConfirmation) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.answers.insert(number, sent);
        self.keys.insert(sent.key);
        number
    }

    /// The broker has it.
    pub fn acknowledged(&mut self, number: u64) -> Option<SentConfirmation> {
        let arrived = self.answers.remove(&number)?;
        self.keys.remove(&arrived.key);
        Some(arrived)
    }

    /// The connection is gone: whatever was on its way may be lost.
    pub fn take_all(&mut self) -> impl Iterator<Item = SentConfirmation> {
        self.keys.clear();
        std::mem::take(&mut self.answers).into_values()
    }

    /// Keys and statements.
    pub fn pairs(&self) -> BTreeSet<(Hash, Hash)> {
        self.answers.values().map(|sent| (sent.key, sent.statement)).collect()
    }
}
