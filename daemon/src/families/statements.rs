//! Makes, signs and keeps statements on Keys.

use std::collections::BTreeMap;

use keywright_base::clock;
use keywright_proto::{
    Effect, Id, PublicKey, Target, Tree, Unsigned,
    statement::{Statement as Stating, is_plausible, next_version},
    tree::TreeHead,
};

use super::{Families, Issuing, random, unsupported};
use crate::{
    error::Error,
    registry::{
        Batch,
        records::{LockEntry, Statement},
    },
    trust::Statements,
};

/// A statement that is not signed yet.
#[derive(Debug)]
pub(super) struct NewStatement {
    pub(super) key: Id,
    family: Id,
    version: u64,
    salt_seed: [u8; 32],
    /// The Locks that it lists, by id; `None` if it allows every Lock.
    entries: Option<Vec<LockEntry>>,
    /// The newest statement when this one was prepared. Another one may be committed first.
    before: Option<Vec<u8>>,
}

impl NewStatement {
    /// The numbers of allowed and of denied Locks.
    pub(super) fn effects(&self) -> (usize, usize) {
        let listed = self.entries.as_deref().unwrap_or_default();
        let allowed = listed.iter().filter(|entry| entry.allow).count();
        (allowed, listed.len() - allowed)
    }

    fn leaves(&self) -> Vec<(Target, Effect)> {
        match &self.entries {
            None => vec![(Target::All, Effect::Allow)],
            Some(listed) => listed.iter().map(LockEntry::leaf).collect(),
        }
    }
}

impl Families {
    /// Makes a statement on a Key with these Locks, or with `None`, that it may access every Lock. `statements` are
    /// those on the Key.
    pub(super) fn new_statement(
        &self,
        key: Id,
        family: Id,
        statements: &Statements,
        entries: Option<Vec<LockEntry>>,
    ) -> Result<NewStatement, Error> {
        let newest = self.newest_among(key, statements)?;
        let version = next_version(newest, clock::unix_millis())
            .map_err(|error| Error::LimitExceeded(error.to_string()))?;
        let before = self.registry.statement(key, family)?.map(|statement| statement.cose);
        Ok(NewStatement { key, family, version, salt_seed: random()?, entries, before })
    }

    /// The newest version of a statement on a Key that this station knows or a Lock has reported.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn newest_version(&self, key: Id, family: Id) -> Result<Option<u64>, Error> {
        self.newest_among(key, &self.moment().statements(&self.registry, key, family)?)
    }

    /// A version that a Lock reports, but no station has sent here, is accepted only within the tolerance for clocks:
    /// otherwise a Lock that lies could use up all versions.
    fn newest_among(&self, key: Id, statements: &Statements) -> Result<Option<u64>, Error> {
        let now = clock::unix_millis();
        let reported =
            self.registry.signed_confirmations(key)?.into_iter().map(|(_, w)| w.newest_version);
        let plausible = reported.filter(|version| is_plausible(*version, now));
        Ok(statements.newest_version().into_iter().chain(plausible).max())
    }

    /// The statement to sign.
    pub(super) fn unsigned_statement(
        &self,
        issuing: &Issuing,
        new: &NewStatement,
        subject: &PublicKey,
    ) -> Result<Unsigned, Error> {
        let tree = tree(&new.salt_seed, new.leaves())?;
        Stating { subject, version: Some(new.version), tree, revokes: None }
            .unsigned(&issuing.chain)
            .map_err(unsupported)
    }

    /// Puts a signed statement, unless another one was committed first.
    pub(super) fn put_statement(
        &self,
        batch: &mut Batch,
        new: NewStatement,
        cose: Vec<u8>,
    ) -> Result<(), Error> {
        let NewStatement { key, family, version, salt_seed, entries, before } = new;
        let newest = self.registry.statement(key, family)?.map(|statement| statement.cose);
        if newest != before {
            return Err(Error::Stale(format!("the rights of Key {key}")));
        }
        let statements = self.moment().statements(&self.registry, key, family)?;
        let (everywhere, entries) = match entries {
            None => (Some(true), Vec::new()),
            Some(listed) => (None, listed),
        };
        let issued = clock::unix_seconds();
        let statement =
            Statement::new(Some(version), cose, salt_seed, everywhere, &entries, issued);
        batch.put_older_statements(key, family, statements.to_keep_beside(&statement, &entries));
        batch.put_statement(key, family, statement, entries);
        Ok(())
    }

    /// Drops Locks that were removed from the family: the next statement does not name them.
    pub(super) fn forget_removed(
        &self,
        family: Id,
        entries: &mut BTreeMap<Id, LockEntry>,
    ) -> Result<(), Error> {
        for (lock, _) in self.registry.removed_locks(family)? {
            entries.remove(&lock);
        }
        Ok(())
    }
}

/// The effect of the statements on each Lock that one of them lists. If none is effective because its signer was
/// revoked, the newest one is re-issued if `take_up_void`; otherwise the Lock is denied.
pub(super) fn in_force(statements: &Statements, take_up_void: bool) -> BTreeMap<Id, LockEntry> {
    let listed = statements.listed().into_iter();
    let with_effect = listed.map(|(lock, entry)| {
        let void = || statements.void_at(lock).filter(|_| take_up_void);
        let effective = statements.in_effect_at(lock).or_else(void);
        let allow = effective.is_some_and(|(newest, _)| newest.effect == Effect::Allow);
        (lock, LockEntry { allow, ..entry })
    });
    with_effect.collect()
}

/// The head of the tree with these leaves, in this order.
pub(super) fn tree(seed: &[u8; 32], leaves: Vec<(Target, Effect)>) -> Result<TreeHead, Error> {
    let tree = Tree::of_statement(seed, leaves)
        .map_err(|error| Error::LimitExceeded(error.to_string()))?;
    Ok(tree.head())
}
