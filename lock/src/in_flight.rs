//! Answers that are on their way to the broker: one of each Key, however often somebody asks and whether or not the broker
//! ever says that it has it.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::tree::Hash;

/// Answers that the broker has not taken yet.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Key and statement, by number.
    answers: BTreeMap<u64, (Hash, Hash)>,
    keys: BTreeSet<Hash>,
    next_number: u64,
}

impl InFlight {
    /// Whether an answer on this Key is on its way: another one has to wait until the broker has that.
    pub fn has(&self, key: &Hash) -> bool {
        self.keys.contains(key)
    }

    /// One more; its number.
    pub fn add(&mut self, key: Hash, statement: Hash) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.answers.insert(number, (key, statement));
        self.keys.insert(key);
        number
    }

    /// The broker has it; Key and statement.
    pub fn arrived(&mut self, number: u64) -> Option<(Hash, Hash)> {
        let arrived = self.answers.remove(&number)?;
        self.keys.remove(&arrived.0);
        Some(arrived)
    }

    /// The connection is gone: whatever was on its way may be lost.
    pub fn lost(&mut self) -> impl Iterator<Item = (Hash, Hash)> {
        self.keys.clear();
        std::mem::take(&mut self.answers).into_values()
    }

    /// Keys and statements.
    pub fn pairs(&self) -> BTreeSet<(Hash, Hash)> {
        self.answers.values().copied().collect()
    }
}
