//! Makes the grants of one Key for many Locks: the tree and the chain that they share are built once.

use std::collections::HashMap;

use keywright_proto::{Effect, Grant, Id, Leaf, Tree};

use super::{damaged, rights::access_chain};
use crate::{
    error::Error,
    registry::{
        Registry,
        records::{LockEntry, Statement},
    },
    trust::Moment,
};

/// What the grants of a Key share, as long as its newest statement alone decides.
pub struct Grants {
    key: Id,
    family: Id,
    statement: Statement,
    /// Sorted by Lock.
    entries: Vec<LockEntry>,
    tree: Tree,
    /// The index in the tree of each entry's leaf.
    indexes: Vec<u64>,
    access_chain: Vec<Vec<u8>>,
}

impl Grants {
    /// Prepares the grants of a Key. None if several statements have to be compared or the statement is about every Lock:
    /// use [`super::grant`] then.
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
        if statement.everywhere.is_some()
            || moment.competing_statements(registry, key, family)?.is_some()
        {
            return Ok(None);
        }
        let entries = registry.statement_entries(key, family)?;
        let leaves = statement.leaves(&entries);
        let indexes: HashMap<_, _> = leaves.iter().copied().zip(0..).collect();
        let index = |entry: &LockEntry| indexes.get(&entry.leaf()).copied().unwrap_or_default();
        let indexes = entries.iter().map(index).collect();
        let tree = Tree::of_statement(&statement.salt_seed, leaves).map_err(damaged)?;
        let access_chain = access_chain(registry, key, family)?;
        Ok(Some(Self { key, family, statement, entries, tree, indexes, access_chain }))
    }

    /// Whether these are the grants of this Key, and no statement on it has come since.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn are_current(&self, registry: &Registry, key: Id, moment: Moment) -> Result<bool, Error> {
        Ok(self.key == key
            && registry.statement(key, self.family)?.is_some_and(|now| now == self.statement)
            && moment.competing_statements(registry, key, self.family)?.is_none())
    }

    /// The grant for one Lock; none if the statement does not list it.
    pub fn at(&self, lock: Id) -> Option<Vec<u8>> {
        let place = self.entries.binary_search_by_key(&lock, |entry| entry.lock).ok()?;
        let (target, effect) = self.entries.get(place)?.leaf();
        let index = *self.indexes.get(place)?;
        let grant = Grant {
            statement: self.statement.cose.clone(),
            leaf: Leaf::new(&self.statement.salt_seed, target, effect),
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
