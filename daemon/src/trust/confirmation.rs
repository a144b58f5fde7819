//! What a Lock's word on a Key counts for. It is about one statement, and falls with it: a Lock that has confirmed the
//! revocation of a Key goes back on that once it hears that the revoker was revoked, and one that admits a Key no longer
//! does once whoever had allowed it was.

use std::cmp::Ordering;

use keywright_proto::{
    Confirmation, Effect, Id,
    rights::{VersionedEffect, newest},
    tree::Hash,
};

use super::Statements;
use crate::registry::{Registry, RegistryError, records};

/// What a Lock's last word on a Key counts for; `words` are what is said of the Key where that has to be compared. None
/// where it has said nothing, or nothing that counts.
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
    let counts = statements.confirmed_effect(said, about.map(|about| about.statement).as_ref());
    Ok(counts.map(|said| (said, confirmed)))
}

/// What is kept of a Lock's confirmation.
pub fn effect_of(confirmed: records::Confirmation) -> VersionedEffect {
    VersionedEffect { version: confirmed.version, effect: Effect::of(confirmed.allow) }
}

/// Whether a new word of a Lock takes the place of one that is known: a hostile carrier may bring old ones again. Both
/// come with what they count for.
pub fn supersedes(
    new: (Option<VersionedEffect>, VersionedEffect),
    old: (Option<VersionedEffect>, VersionedEffect),
) -> bool {
    let newer = |new: VersionedEffect, old: VersionedEffect| match newest([old, new]) {
        _ if new == old => Ordering::Equal,
        Some(newest) if newest == new => Ordering::Greater,
        _ => Ordering::Less,
    };
    let counts = match (new.0, old.0) {
        (Some(new), Some(old)) => newer(new, old),
        (new, old) => new.is_some().cmp(&old.is_some()),
    };
    counts.then(newer(new.1, old.1)).is_gt()
}

impl Statements {
    /// What a Lock's word counts for that it acts on a statement, by its digest where that is known.
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
            // A revocation that waits for its time is heard all the same.
            (Some(source), None) => {
                self.weigh(source, said).or_else(|| Some(said).filter(|_| stands(source.signer)))
            }
            (Some(source), Some(_)) => self.weigh(source, said),
            (None, None) => Some(said).filter(|_| self.is_revoked()),
            // One of those that said something later had said this too. Which, is not known any more; if it may be one
            // that does not stand, the Lock is asked once more.
            (None, Some(version)) => {
                let mut later =
                    self.sources.iter().filter(|source| source.statement.version > Some(version));
                later.all(|source| stands(source.signer)).then_some(said)
            }
        }
    }
}
