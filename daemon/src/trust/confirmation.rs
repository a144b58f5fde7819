//! The weight of a Lock's confirmation. A confirmation is about one statement and loses its weight with it: once the Lock
//! learns that the signer was revoked, it no longer acts on that signer's revocations and rights.

use std::cmp::Ordering;

use keywright_proto::{
    Confirmation, Effect, Id,
    rights::{VersionedEffect, newest},
    tree::Hash,
};

use super::Statements;
use crate::registry::{Registry, RegistryError, records};

/// The effect that a Lock's last confirmation for a Key proves, with the confirmation. None if the Lock has confirmed
/// nothing, or only a statement that is not in force any more. `statements` are those on the Key, if several have to be
/// compared.
///
/// # Errors
/// The registry cannot be read.
pub fn confirmed_effect(
    registry: &Registry,
    statements: Option<&Statements>,
    key: Id,
    lock: Id,
) -> Result<Option<(VersionedEffect, records::Confirmation)>, RegistryError> {
    let Some(confirmed) = registry.confirmation(key, lock)? else { return Ok(None) };
    let said = effect_of(confirmed);
    let Some(statements) = statements else { return Ok(Some((said, confirmed))) };
    let word = registry.signed_confirmation(key, lock)?;
    let about = word.and_then(|word| Confirmation::claimed(&word.cose).ok());
    let weight = statements.confirmed_effect(said, about.map(|about| about.statement).as_ref());
    Ok(weight.map(|effect| (effect, confirmed)))
}

/// The effect that a Lock confirmed.
pub fn effect_of(confirmed: records::Confirmation) -> VersionedEffect {
    VersionedEffect { version: confirmed.version, effect: Effect::of(confirmed.allow) }
}

/// Whether a new confirmation replaces a known one. A hostile broker may replay old ones. Each is given by its weight, if
/// it has any, and by the effect that the Lock confirmed.
pub fn supersedes(
    new: (Option<VersionedEffect>, VersionedEffect),
    old: (Option<VersionedEffect>, VersionedEffect),
) -> bool {
    let newer = |new: VersionedEffect, old: VersionedEffect| match newest([old, new]) {
        _ if new == old => Ordering::Equal,
        Some(newest) if newest == new => Ordering::Greater,
        _ => Ordering::Less,
    };
    let by_weight = match (new.0, old.0) {
        (Some(new), Some(old)) => newer(new, old),
        (new, old) => new.is_some().cmp(&old.is_some()),
    };
    by_weight.then(newer(new.1, old.1)).is_gt()
}

impl Statements {
    /// Weight of a Lock's confirmation of the statement with this digest; none if the confirmation proves nothing.
    pub fn confirmed_effect(
        &self,
        said: VersionedEffect,
        about: Option<&Hash>,
    ) -> Option<VersionedEffect> {
        let source = about.and_then(|about| {
            self.sources.iter().find(|source| source.digest.as_ref() == Some(about))
        });
        let stands = |signer: Option<Hash>| signer.is_none_or(|signer| self.stands(&signer));
        match (source, said.version) {
            // Locks confirm a delayed revocation too.
            (Some(source), None) => {
                self.weigh(source, said).or_else(|| Some(said).filter(|_| stands(source.signer)))
            }
            (Some(source), Some(_)) => self.weigh(source, said),
            (None, None) => Some(said).filter(|_| self.is_revoked()),
            // The statement was superseded by a newer one of the same signer, and nobody knows which signer that was. If
            // it may have been one that was revoked, the Lock has to confirm again.
            (None, Some(version)) => {
                let mut later =
                    self.sources.iter().filter(|source| source.statement.version > Some(version));
                later.all(|source| stands(source.signer)).then_some(said)
            }
        }
    }
}
