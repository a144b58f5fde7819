//! Applies the rules of `keywright_proto::trust` to what the registry holds: which issuers of a family are trusted, and
//! which of the statements on a Key is in effect at a Lock.
//!
//! Every function that returns a `RegistryError` fails only if the registry cannot be read.

pub mod confirmation;
pub mod membership;
mod statements;
mod superseded;

use std::collections::BTreeSet;

use keywright_proto::{
    Certificate, Effect, Facts, Id, Judgement, Role, Standing,
    family::Authorities,
    rights::VersionedEffect,
    statement::{Claimed, claimed},
    tree::Hash,
    trust::Revocation,
};
pub use statements::{FamilyStatements, Source, Statements};
pub use superseded::without_superseded;

use crate::registry::{Registry, RegistryError, records};

/// The time at which trust is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The uptime of this station, in seconds ([`Registry::uptime`]): a wall clock can be set.
    pub now: u64,
    /// How long a Backup's revocation of the Master or of a Backup above it is delayed, in seconds.
    pub delay: u64,
}

impl Moment {
    /// The present; `delay` in seconds.
    pub fn now(registry: &Registry, delay: u64) -> Self {
        Self { now: registry.uptime(), delay }
    }

    /// The statements on a Key, if several have to be compared; none if the newest one alone decides.
    pub fn competing_statements(
        self,
        registry: &Registry,
        key: Id,
        family: Id,
    ) -> Result<Option<Statements>, RegistryError> {
        let alone = registry.revocations(family)?.is_empty()
            && !registry.has_older_statements(key, family)?
            && !registry.statement(key, family)?.is_some_and(|newest| newest.is_mixed());
        if alone {
            return Ok(None);
        }
        let statements = self.statements(registry, key, family)?;
        Ok((!statements.is_single()).then_some(statements))
    }

    /// The statements on a Key, however many there are.
    pub fn statements(
        self,
        registry: &Registry,
        key: Id,
        family: Id,
    ) -> Result<Statements, RegistryError> {
        let judgement = facts(registry, family, &[key])?.map(|facts| self.judge(&facts));
        Statements::read(registry, key, family, judgement)
    }

    /// The statements of a family, to be read Key by Key: its issuers are judged once. `members` are those of the family.
    pub fn family_statements<'a>(
        self,
        registry: &'a Registry,
        family: Id,
        members: &[(Id, records::Membership)],
    ) -> Result<FamilyStatements<'a>, RegistryError> {
        let issuers = members.iter().filter(|(_, own)| own.issuing_key.is_some());
        let issuers: Vec<Id> = issuers.map(|(key, _)| *key).collect();
        let judgement = facts(registry, family, &issuers)?.map(|facts| self.judge(&facts));
        FamilyStatements::new(registry, family, judgement)
    }

    /// Judges which issuers are trusted.
    pub fn judge(self, facts: &Facts) -> Judgement {
        facts.judge(self.delay, self.now)
    }
}

/// The CAs of a family, as they were verified when they were put into the registry; none if the family is not pinned here.
pub fn authorities(registry: &Registry, family: Id) -> Result<Option<Authorities>, RegistryError> {
    let Some(known) = registry.family(family)? else { return Ok(None) };
    let Ok(root) = Certificate::parse(&known.root) else { return Ok(None) };
    let mut authorities = Authorities::new(root);
    for der in registry.ca_certificates(family)? {
        if let Ok(ca) = Certificate::parse(&der) {
            authorities.insert(ca);
        }
    }
    Ok(Some(authorities))
}

/// What is known of a family's issuing keys and revocations, and whose the access keys of revoked issuers and of these
/// `keys` are; none if the family is not pinned here. The records of Keys are not read: a revocation is in force whether or
/// not the record of its Key can be read.
pub fn facts(registry: &Registry, family: Id, keys: &[Id]) -> Result<Option<Facts>, RegistryError> {
    let Some(authorities) = authorities(registry, family)? else { return Ok(None) };
    let mut facts = Facts::new(authorities.root().public_key());
    let routes = authorities.routes();
    for chain in authorities.certificates().flat_map(|ca| routes.of(ca)) {
        facts.learn_chain(&chain);
    }
    let revocations = registry.revocations(family)?;
    let named: BTreeSet<Id> =
        revocations.iter().map(|r| r.key).chain(keys.iter().copied()).collect();
    for key in named {
        for der in registry.access_certificates(key, family)? {
            let access = Certificate::parse(&der).ok();
            let access = access.filter(|access| access.role().is_some_and(Role::is_issuer));
            for chain in access.iter().flat_map(|access| routes.of(access)) {
                facts.learn_chain(&chain);
            }
        }
    }
    let seen = registry.revocation_uptimes(family)?;
    for revocation in revocations {
        // It was verified on import.
        if let Some(Claimed { signer, subject, revokes, digest, .. }) = claimed(&revocation.cose) {
            let issuer = revokes;
            // Without an uptime its delay has not begun: `Families::date_revocations` begins it.
            let seen = seen.get(&digest).copied().unwrap_or(u64::MAX);
            facts.learn_revocation(Revocation { signer, subject, issuer }, seen);
        }
    }
    Ok(Some(facts))
}

/// Whether an issuing key is trusted. One that is not judged, because too many are below its first-level CA, is not; all are
/// where nothing is judged, because the family is not pinned here.
pub fn stands(judgement: Option<&Judgement>, issuing_key: &Hash) -> bool {
    judgement.is_none_or(|judgement| judgement.standing(issuing_key) == Some(Standing::Stands))
}

/// The Keys that are revoked by one of these revocations, which are of one family.
pub fn revoked(revocations: &[records::Revocation], judgement: Option<&Judgement>) -> BTreeSet<Id> {
    let said = VersionedEffect { version: None, effect: Effect::Deny };
    let in_force = revocations.iter().filter(|revocation| {
        let weighed = match (judgement, claimed(&revocation.cose)) {
            (Some(judgement), Some(by)) => judgement.weigh(&by.signer, &by.subject, said),
            _ => Some(said),
        };
        weighed.is_some_and(|weighed| weighed.version.is_none())
    });
    in_force.map(|revocation| revocation.key).collect()
}
