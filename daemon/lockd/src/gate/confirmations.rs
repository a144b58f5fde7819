//! Confirmations: what the Lock signs about a statement, and which statements are not confirmed yet.

use keywright_proto::{Confirmation, Effect, tree::Hash};

use super::Gate;
use crate::{error::Error, key::Key, rules};

impl Gate {
    /// The effect in force for a Key.
    pub fn effect_on(&self, key: &Hash, now: u64) -> Effect {
        self.keys.get(key).map_or(Effect::Deny, |key| self.effect(key, now))
    }

    /// Whether a statement was not confirmed yet.
    pub fn is_unconfirmed(&self, key: &Hash, statement: &Hash) -> bool {
        self.keys.get(key).is_some_and(|key| key.unconfirmed.contains(statement))
    }

    /// Key and digest of each statement that was not confirmed yet and is not parked.
    pub fn unconfirmed(&self, now: u64) -> Vec<(Hash, Hash)> {
        let clock = self.clock(now);
        let of = |(hash, key): (&Hash, &Key)| {
            let due = key.statements.iter().filter(|kept| !kept.is_parked(clock));
            let due = due.filter(|kept| key.unconfirmed.contains(&kept.digest));
            due.map(|kept| (*hash, kept.digest)).collect::<Vec<_>>()
        };
        self.keys.iter().filter(|(_, key)| !key.unconfirmed.is_empty()).flat_map(of).collect()
    }

    /// Whether a statement is parked.
    pub fn is_parked(&self, key: &Hash, statement: &Hash, now: u64) -> bool {
        let statements = self.keys.get(key).map_or(&[][..], |key| &key.statements);
        let kept = statements.iter().find(|kept| kept.digest == *statement);
        kept.is_some_and(|kept| kept.is_parked(self.clock(now)))
    }

    /// Signs a confirmation of a statement, with the effect in force for its Key.
    pub fn confirm(&self, key: &Hash, statement: Hash, now: u64) -> Result<Vec<u8>, Error> {
        let statements = self.keys.get(key).map_or(&[][..], |key| &key.statements);
        let newest_version = rules::newest_version(statements, self.clock(now));
        let confirmation =
            Confirmation { statement, effect: self.effect_on(key, now), newest_version };
        let unsigned = confirmation.unsigned(self.identity.public());
        self.identity.sign(unsigned.map_err(|error| Error::System(error.to_string()))?)
    }

    /// Notes that a statement was confirmed.
    ///
    /// # Errors
    /// That cannot be saved; the statement is confirmed once more.
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
