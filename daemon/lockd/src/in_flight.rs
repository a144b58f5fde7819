//! Confirmations on their way to the broker: at most one for each Key, so that a broker that replays grants and never
//! acknowledges cannot fill the memory.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{Effect, tree::Hash};

/// A confirmation that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentConfirmation {
    /// SHA-256 of the Key's access key.
    pub key: Hash,
    /// The digest of the confirmed statement.
    pub statement: Hash,
    /// The effect that was confirmed.
    pub effect: Effect,
}

/// Confirmations that the broker has not acknowledged yet.
#[derive(Debug, Default)]
pub struct InFlight {
    /// By message number.
    confirmations: BTreeMap<u64, SentConfirmation>,
    keys: BTreeSet<Hash>,
    next_number: u64,
}

impl InFlight {
    /// Whether a confirmation for this Key is in flight: the next one has to wait for its acknowledgement.
    pub fn contains(&self, key: &Hash) -> bool {
        self.keys.contains(key)
    }

    /// Adds a confirmation and returns its message number.
    pub fn add(&mut self, sent: SentConfirmation) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.confirmations.insert(number, sent);
        self.keys.insert(sent.key);
        number
    }

    /// Removes the confirmation that the broker acknowledged.
    pub fn acknowledged(&mut self, number: u64) -> Option<SentConfirmation> {
        let sent = self.confirmations.remove(&number)?;
        self.keys.remove(&sent.key);
        Some(sent)
    }

    /// Removes all confirmations, because the connection is gone and they may be lost.
    pub fn take_all(&mut self) -> impl Iterator<Item = SentConfirmation> {
        self.keys.clear();
        std::mem::take(&mut self.confirmations).into_values()
    }

    /// Key and statement of each confirmation in flight.
    pub fn pairs(&self) -> BTreeSet<(Hash, Hash)> {
        self.confirmations.values().map(|sent| (sent.key, sent.statement)).collect()
    }
}
