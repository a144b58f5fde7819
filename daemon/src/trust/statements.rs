//! The statements on a Key: which of them is in effect at a Lock, given which of their signers are trusted.
//!
//! Every function that returns a `RegistryError` fails only if the registry cannot be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keywright_proto::{
    Effect, Id, Judgement,
    rights::{VersionedEffect, newest},
    statement::claimed,
    tree::Hash,
};

use super::{stands, without_superseded};
use crate::registry::{
    Registry, RegistryError, StatementWithEntries,
    records::{self, LockEntry, Statement},
};

/// One statement or revocation of a Key.
#[derive(Debug, Clone)]
pub struct Source {
    /// The statement.
    pub statement: Statement,
    /// The Locks that it lists, sorted.
    pub entries: Vec<LockEntry>,
    /// The key hash of its signer; none if its claims cannot be read.
    pub signer: Option<Hash>,
    /// The digest by which confirmations refer to it.
    pub digest: Option<Hash>,
    subject: Option<Hash>,
}

/// All statements on one Key in one family.
pub struct Statements {
    /// The newest statement first, then others of other signers, then revocations.
    pub sources: Vec<Source>,
    subject: Hash,
    judgement: Option<Arc<Judgement>>,
}

/// The statements of a family under one judgement.
pub struct FamilyStatements<'a> {
    registry: &'a Registry,
    family: Id,
    judgement: Option<Arc<Judgement>>,
    revocations: BTreeMap<Id, Vec<records::Revocation>>,
}

impl<'a> FamilyStatements<'a> {
    /// Prepares the statements of a family. Without a judgement every signer is trusted.
    pub fn new(
        registry: &'a Registry,
        family: Id,
        judgement: Option<Judgement>,
    ) -> Result<Self, RegistryError> {
        let mut revocations = BTreeMap::<Id, Vec<_>>::new();
        for revocation in registry.revocations(family)? {
            revocations.entry(revocation.key).or_default().push(revocation);
        }
        Ok(Self { registry, family, judgement: judgement.map(Arc::new), revocations })
    }

    /// All statements on one Key.
    pub fn of(&self, key: Id) -> Result<Statements, RegistryError> {
        let revocations = self.revocations.get(&key).cloned().unwrap_or_default();
        Statements::with(self.registry, key, self.family, self.judgement.clone(), revocations)
    }
}

impl Source {
    fn new(statement: Statement, entries: Vec<LockEntry>) -> Self {
        let claimed = claimed(&statement.cose);
        let (signer, digest) = (claimed.map(|said| said.signer), claimed.map(|said| said.digest));
        Self { statement, entries, signer, digest, subject: claimed.map(|said| said.subject) }
    }

    /// Its effect at a Lock; none if it does not name the Lock. Of two leaves for a Lock the one that denies decides.
    fn effect_at(&self, lock: Id) -> Option<VersionedEffect> {
        let listed = self.entries.binary_search_by_key(&lock, |entry| entry.lock).ok();
        let listed = listed.and_then(|place| self.entries.get(place)).map(|entry| entry.allow);
        let allow = listed.into_iter().chain(self.statement.everywhere).min()?;
        Some(VersionedEffect { version: self.statement.version, effect: Effect::of(allow) })
    }

    /// Whether it is newer than another statement of its signer at every Lock that the other one names.
    fn outdoes(&self, other: &Self) -> bool {
        let names = |lock: Id| self.entries.binary_search_by_key(&lock, |entry| entry.lock).is_ok();
        other.statement.version.is_some()
            && other.statement.version < self.statement.version
            && other.signer == self.signer
            && (self.statement.everywhere.is_some()
                || (other.statement.everywhere.is_none()
                    && other.entries.iter().all(|entry| names(entry.lock))))
    }

    /// Its effect at every Lock of the family, if it has one.
    fn effect_everywhere(&self) -> Option<VersionedEffect> {
        let effect = Effect::of(self.statement.everywhere?);
        Some(VersionedEffect { version: self.statement.version, effect })
    }
}

impl Statements {
    /// Reads the statements on a Key from the registry. Without a judgement every signer is trusted.
    pub fn read(
        registry: &Registry,
        key: Id,
        family: Id,
        judgement: Option<Judgement>,
    ) -> Result<Self, RegistryError> {
        let revocations = registry.revocations(family)?.into_iter().filter(|r| r.key == key);
        Self::with(registry, key, family, judgement.map(Arc::new), revocations)
    }

    fn with(
        registry: &Registry,
        key: Id,
        family: Id,
        judgement: Option<Arc<Judgement>>,
        revocations: impl IntoIterator<Item = records::Revocation>,
    ) -> Result<Self, RegistryError> {
        let all = registry.all_statements(key, family)?.into_iter();
        let mut sources: Vec<_> = all.map(|(said, entries)| Source::new(said, entries)).collect();
        for revocation in revocations {
            let records::Revocation { cose, salt_seed, first_seen, .. } = revocation;
            let statement = Statement::new(None, cose, salt_seed, Some(false), &[], first_seen);
            sources.push(Source::new(statement, Vec::new()));
        }
        let subject = sources.iter().find_map(|source: &Source| source.subject).unwrap_or_default();
        Ok(Self { sources, subject, judgement })
    }

    /// Whether the newest statement alone decides, so that nothing has to be compared.
    pub fn is_single(&self) -> bool {
        let [newest, others @ ..] = self.sources.as_slice() else { return true };
        !newest.statement.is_mixed()
            && newest.signer.is_none_or(|signer| self.stands(&signer))
            && others.iter().all(|other| newest.outdoes(other))
    }

    pub(super) fn stands(&self, signer: &Hash) -> bool {
        stands(self.judgement.as_deref(), signer)
    }

    /// Whether a statement's signer is trusted.
    pub fn is_by_standing_signer(&self, source: &Source) -> bool {
        source.signer.is_some_and(|signer| self.stands(&signer))
    }

    pub(super) fn weigh(&self, source: &Source, said: VersionedEffect) -> Option<VersionedEffect> {
        match (&self.judgement, source.signer) {
            (Some(judgement), Some(signer)) => judgement.weigh(&signer, &self.subject, said),
            _ => Some(said),
        }
    }

    /// The effect in force at a Lock, and the statement that has it.
    pub fn in_effect_at(&self, lock: Id) -> Option<(VersionedEffect, &Source)> {
        let weighed = || {
            self.sources
                .iter()
                .filter_map(|source| Some((self.weigh(source, source.effect_at(lock)?)?, source)))
        };
        let in_effect = newest(weighed().map(|(effect, _)| effect))?;
        weighed().find(|(effect, _)| *effect == in_effect)
    }

    /// The newest effect at a Lock whether or not its signer is trusted. If no effect is in force, another issuer has to
    /// sign this one again.
    pub fn void_at(&self, lock: Id) -> Option<(VersionedEffect, &Source)> {
        let versioned = self.sources.iter().filter(|source| source.statement.version.is_some());
        let said = versioned.filter_map(|source| Some((source.effect_at(lock)?, source)));
        said.max_by_key(|(said, _)| said.version)
    }

    /// Whether a right is void because its signer was revoked. Rights at `removed` Locks are ignored.
    pub fn lacks_signer(&self, removed: &BTreeSet<Id>) -> bool {
        let allowed = self.sources.iter().any(|source| source.statement.everywhere == Some(true));
        let void = |lock: &Id| {
            !removed.contains(lock)
                && self.in_effect_at(*lock).is_none()
                && self.void_at(*lock).is_some_and(|(said, _)| said.effect == Effect::Allow)
        };
        (allowed && self.everywhere().is_none()) || self.listed().keys().any(void)
    }

    /// Whether a revocation of this Key is in force.
    pub fn is_revoked(&self) -> bool {
        let revocations = self.sources.iter().filter(|source| source.statement.version.is_none());
        let revoked = VersionedEffect { version: None, effect: Effect::Deny };
        revocations.filter_map(|source| self.weigh(source, revoked)).any(|s| s.version.is_none())
    }

    /// The revocation of this Key that is still delayed. Locks must get it now, because each of them counts the delay from
    /// when it first saw the revocation.
    pub fn delayed_revocation(&self) -> Option<&Source> {
        let revoked = VersionedEffect { version: None, effect: Effect::Deny };
        self.sources.iter().find(|source| {
            source.statement.version.is_none()
                && source.signer.is_some_and(|signer| self.stands(&signer))
                && self.weigh(source, revoked).is_none()
        })
    }

    /// The effect in force at every Lock of the family, if there is one.
    pub fn everywhere(&self) -> Option<VersionedEffect> {
        newest(
            self.sources
                .iter()
                .filter_map(|source| self.weigh(source, source.effect_everywhere()?)),
        )
    }

    /// Every Lock that a statement is about, by id. A revocation ends existing rights and adds no Lock.
    pub fn locks(&self, registry: &Registry, family: Id) -> Result<Vec<Id>, RegistryError> {
        let everywhere = |source: &Source| {
            source.statement.everywhere.is_some() && source.statement.version.is_some()
        };
        if self.sources.iter().any(everywhere) {
            return Ok(registry.lock_entries(family)?.into_iter().map(|e| e.lock).collect());
        }
        Ok(self.listed().into_keys().collect())
    }

    /// Every Lock that a statement lists, with its entry.
    pub fn listed(&self) -> BTreeMap<Id, LockEntry> {
        let all = self.sources.iter().flat_map(|source| &source.entries);
        all.map(|entry| (entry.lock, *entry)).collect()
    }

    /// The newest version of a trusted signer: a new statement needs a higher one.
    pub fn newest_version(&self) -> Option<u64> {
        let versions = self.sources.iter().filter_map(|source| {
            let deny = VersionedEffect { version: source.statement.version, effect: Effect::Deny };
            let said = self.weigh(source, deny)?;
            said.version
        });
        versions.max()
    }

    /// The versions of one signer's statements.
    pub fn versions_of(&self, signer: &Hash) -> impl Iterator<Item = u64> {
        let by = move |source: &&Source| source.signer == Some(*signer);
        self.sources.iter().filter(by).filter_map(|source| source.statement.version)
    }

    /// The older statements that still decide at some Lock beside a new statement, and have to be kept.
    pub fn to_keep_beside(
        &self,
        new: &Statement,
        entries: &[LockEntry],
    ) -> Vec<StatementWithEntries> {
        let versioned = self.sources.iter().filter(|source| source.statement.version.is_some());
        let known = versioned.map(|source| (source.statement.clone(), source.entries.clone()));
        let mut kept = without_superseded(known.chain([(new.clone(), entries.to_vec())]).collect());
        kept.retain(|(statement, _)| statement != new);
        kept
    }
}
