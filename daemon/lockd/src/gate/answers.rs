//! What the gate answers: confirmations, and which of them are still owed.

use keywright_proto::{Confirmation, Effect, tree::Hash};

use super::Gate;
use crate::{error::Error, key::Key, rules};

impl Gate {
    /// What the Lock does for a Key now.
    pub fn does(&self, key: &Hash, now: u64) -> Effect {
        self.keys.get(key).map_or(Effect::Deny, |key| self.effect(key, now))
    }

    /// Whether no confirmation went out for a statement.
    pub fn is_unanswered(&self, key: &Hash, statement: &Hash) -> bool {
        self.keys.get(key).is_some_and(|key| key.unanswered.contains(statement))
    }

    /// Statements that no confirmation went out for, and that do not wait: Key and digest.
    pub fn unanswered(&self, now: u64) -> Vec<(Hash, Hash)> {
        let clock = self.clock(now);
        let of = |(hash, key): (&Hash, &Key)| {
            let due = key.words.iter().filter(|word| !rules::waits(word, clock));
            let due = due.filter(|word| key.unanswered.contains(&word.digest));
            due.map(|word| (*hash, word.digest)).collect::<Vec<_>>()
        };
        self.keys.iter().filter(|(_, key)| !key.unanswered.is_empty()).flat_map(of).collect()
    }

    /// Whether a statement waits for its time.
    pub fn is_parked(&self, key: &Hash, statement: &Hash, now: u64) -> bool {
        let words = self.keys.get(key).map_or(&[][..], |key| &key.words);
        let word = words.iter().find(|word| word.digest == *statement);
        word.is_some_and(|word| rules::waits(word, self.clock(now)))
    }

    /// The signed confirmation of a statement: what this Lock does for that Key now.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn confirm(&self, key: &Hash, statement: Hash, now: u64) -> Result<Vec<u8>, Error> {
        let words = self.keys.get(key).map_or(&[][..], |key| &key.words);
        let newest_version = rules::newest_version(words, self.clock(now));
        let said = Confirmation { statement, effect: self.does(key, now), newest_version };
        let unsigned = said.unsigned(self.identity.public());
        self.identity.sign(unsigned.map_err(|error| Error::System(error.to_string()))?)
    }

    /// Notes that a confirmation went out.
    ///
    /// # Errors
    /// It cannot be saved; it will go out once more.
    pub fn answered(&mut self, hash: &Hash, statement: &Hash) -> Result<(), Error> {
        let Some(key) = self.keys.get_mut(hash) else { return Ok(()) };
        let at = key.words.iter().position(|word| word.digest == *statement);
        let mut record = self.store.read(hash)?;
        if let Some(entry) = at.and_then(|at| record.entries.get_mut(at)).filter(|e| !e.answered) {
            entry.answered = true;
            self.store.write(hash, &record)?;
        }
        key.unanswered.remove(statement);
        Ok(())
    }
}
