//! The grants of one Key for many Locks, one after the other: what they have in common is made once.

use keywright_proto::{
    Effect, Grant, Id, Leaf, Target,
    tree::{Hash, Tree},
};

use super::{
    damaged,
    rights::{access_chain, effect},
};
use crate::{
    error::Error,
    registry::{
        Registry,
        records::{Scope, Statement},
    },
    trust::Moment,
};

/// What the grants of a Key have in common, while its newest statement is all that counts of it.
pub struct Grants {
    key: Id,
    family: Id,
    statement: Statement,
    /// Lock, key hash, allowed.
    entries: Vec<(Id, Hash, bool)>,
    tree: Tree,
    access_chain: Vec<Vec<u8>>,
}

impl Grants {
    /// None where several statements have to be compared, or the statement is about every Lock: then
    /// [`super::grant`] answers.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn of(
        registry: &Registry,
        key: Id,
        family: Id,
        moment: Moment,
    ) -> Result<Option<Self>, Error> {
        let Some(statement) = registry.statement(key, family)? else { return Ok(None) };
        if statement.scope == Scope::All
            || moment.competing_statements(registry, key, family)?.is_some()
        {
            return Ok(None);
        }
        let entries = registry.statement_entries(key, family)?;
        let entries: Vec<_> = entries.iter().map(|e| (e.lock, e.key_hash, e.allow)).collect();
        let leaf = |(_, hash, allow): &(Id, Hash, bool)| {
            Leaf::new(&statement.salt_seed, Target::Lock(*hash), effect(*allow))
        };
        let tree = Tree::new(entries.iter().map(leaf)).map_err(damaged)?;
        let access_chain = access_chain(registry, key, family)?;
        Ok(Some(Self { key, family, statement, entries, tree, access_chain }))
    }

    /// Whether they are about this Key, and nothing was said of it since.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn are_current(&self, registry: &Registry, key: Id, moment: Moment) -> Result<bool, Error> {
        Ok(self.key == key
            && registry.statement(key, self.family)?.is_some_and(|now| now == self.statement)
            && moment.competing_statements(registry, key, self.family)?.is_none())
    }

    /// The grant for one Lock; none where nothing is said of it.
    pub fn at(&self, lock: Id) -> Option<Vec<u8>> {
        let place = self.entries.binary_search_by_key(&lock, |entry| entry.0).ok()?;
        let (_, hash, allow) = self.entries.get(place)?;
        let (index, effect) = (place as u64, effect(*allow));
        let grant = Grant {
            statement: self.statement.cose.clone(),
            leaf: Leaf::new(&self.statement.salt_seed, Target::Lock(*hash), effect),
            index,
            path: self.tree.path(index)?,
            access_chain: match effect {
                Effect::Allow => self.access_chain.clone(),
                Effect::Deny => Vec::new(),
            },
        };
        Some(grant.encode())
    }
}
