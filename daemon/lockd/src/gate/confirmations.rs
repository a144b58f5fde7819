//! What the gate answers: confirmations, and which of them are still owed.

use keywright_proto::{Confirmation, Effect, tree::Hash};

use super::Gate;
use crate::{error::Error, key::Key, rules};

impl Gate {
    /// What the Lock does for a Key now.
    pub fn effect_on(&self, key: &Hash, now: u64) -> Effect {
        self.keys.get(key).map_or(Effect::Deny, |key| self.effect(key, now))
    }

    /// Whether no confirmation went out for a statement.
    pub fn is_unconfirmed(&self, key: &Hash, statement: &Hash) -> bool {
        self.keys.get(key).is_some_and(|key| key.unconfirmed.contains(statement))
    }

    /// Statements that no confirmation went out for, and that do not wait: Key and digest.
    pub fn unconfirmed(&self, now: u64) -> Vec<(Hash, Hash)> {
        let clock = self.clock(now);
        let of = |(hash, key): (&Hash, &Key)| {
            let due = key.statements.iter().filter(|kept| !rules::waits(kept, clock));
            let due = due.filter(|kept| key.unconfirmed.contains(&kept.digest));
            due.map(|kept| (*hash, kept.digest)).collect::<Vec<_>>()
        };
        self.keys.iter().filter(|(_, key)| !key.unconfirmed.is_empty()).flat_map(of).collect()
    }

    /// Whether a statement waits for its time.
    pub fn is_parked(&self, key: &Hash, statement: &Hash, now: u64) -> bool {
        let statements = self.keys.get(key).map_or(&[][..], |key| &key.statements);
        let kept = statements.iter().find(|kept| kept.digest == *statement);
        kept.is_some_and(|kept| rules::waits(kept, self.clock(now)))
    }

    /// The signed confirmation of a statement: what this Lock does for that Key now.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn confirm(&self, key: &Hash, statement: Hash, now: u64) -> Result<Vec<u8>, Error> {
        let statements = self.keys.get(key).map_or(&[][..], |key| &key.statements);
        let newest_version = rules::newest_version(statements, self.clock(now));
        let said = Confirmation { statement, effect: self.effect_on(key, now), newest_version };
        let unsigned = said.unsigned(self.identity.public());
        self.identity.sign(unsigned.map_err(|error| Error::System(error.to_string()))?)
    }

    /// Notes that a confirmation went out.
    ///
    /// # Errors
    /// It cannot be saved; it will go out once more.
    pub fn set_confirmed(&mut self, hash: &Hash, statement: &Hash) -> Result<(), Error> {
        let Some(key) = self.keys.get_mut(hash) else { return Ok(()) };
        let at = key.statements.iter().position(|kept| kept.digest == *statement);
        let mut record = self.store.read(hash)?;
        if let Some(entry) = at.and_then(|at| record.entries.get_mut(at)).filter(|e| !e.confirmed) {
            entry.confirmed = true;
            self.store.write(hash, &record)?;
        }
        key.unconfirmed.remove(statement);
        Ok(())
    }
}
