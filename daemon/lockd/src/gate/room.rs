//! Room for new Keys. It is counted for each first-level CA, so that a stolen Backup fills only the room of those below it,
//! and what has no weight any more makes room.

use std::collections::BTreeSet;

use keywright_proto::{Effect, Id, Role, Standing, VerifiedGrant, tree::Hash};

use super::{Gate, not_saved};
use crate::{
    clock::Now,
    error::Refusal,
    key::Key,
    rules::{self, KeptStatement},
};

/// Keys that only denials are kept of have twice as much room as those that are allowed.
const DENIALS: usize = 2;

impl Gate {
    /// Makes room for a statement about a Key, if a first-level CA has used up its own.
    ///
    /// # Errors
    /// [`Refusal::TooManyKeys`], or a forgotten record cannot be removed.
    pub(super) fn make_room(
        &mut self,
        hash: &Hash,
        new: &KeptStatement,
        grant: &VerifiedGrant,
        now: Now,
    ) -> Result<(), Refusal> {
        let is_of_group = |kept: &&KeptStatement| kept.group == new.group;
        let allows = |key: &Key| {
            key.statements.iter().filter(is_of_group).any(|one| one.content.effect == Effect::Allow)
        };
        let denies = new.content.effect == Effect::Deny;
        match self.keys.get(hash) {
            // A Key that is known here can always be denied.
            Some(_) if denies => return Ok(()),
            Some(key) if allows(key) => return Ok(()),
            _ => {}
        }
        let of_group: Vec<_> = self
            .keys
            .values()
            .filter(|key| key.statements.iter().any(|one| is_of_group(&one)))
            .collect();
        let max_keys = self.limits.max_keys;
        let all_full = of_group.len() >= max_keys.saturating_mul(1 + DENIALS);
        let allows_full = !denies && of_group.iter().filter(|key| allows(key)).count() >= max_keys;
        let judgement =
            if all_full || allows_full { self.judged_with(grant, now) } else { return Ok(()) };
        let issuers = self.facts.issuers();
        let access: BTreeSet<Hash> =
            issuers.values().flat_map(|issuer| &issuer.access_keys).copied().collect();
        let names_issuer = |subject: &Hash, one: &KeptStatement| {
            let named = one.names.is_some_and(|named| issuers.contains_key(&named));
            one.content.version.is_none()
                && (named || access.contains(subject) || issuers.contains_key(subject))
        };
        // The first revocation of an issuing key always finds room: there are only so many of them.
        if names_issuer(hash, new) && !self.is_revoked_already(hash, new) {
            return Ok(());
        }
        let expendable = self.keys.iter().find(|(other, key)| {
            // Its access certificate says whose an issuing key is.
            !key.role().is_some_and(Role::is_issuer)
                && (!allows_full || allows(key))
                && rules::is_expendable(&key.statements, new, &judgement, |one| {
                    names_issuer(other, one)
                })
        });
        let expendable = expendable.map(|(other, _)| *other);
        let may = judgement.standing(&new.signer) == Some(Standing::Stands);
        match expendable.filter(|_| may) {
            Some(other) => self.forget(&other),
            None => Err(Refusal::TooManyKeys(max_keys)),
        }
    }

    /// Whether somebody of the same first-level CA, as near to the root, has revoked the same issuing key.
    fn is_revoked_already(&self, hash: &Hash, new: &KeptStatement) -> bool {
        let Some(named) = new.names else { return self.keys.contains_key(hash) };
        self.keys.values().flat_map(|key| &key.statements).any(|one| {
            one.group == new.group && one.distance <= new.distance && one.names == Some(named)
        })
    }

    /// Forgets a Key. What its record had revoked, if anything, is nobody's issuing key.
    fn forget(&mut self, hash: &Hash) -> Result<(), Refusal> {
        tracing::info!(key = %Id::of_hash(hash), "forgotten, to make room: nothing about it is in effect");
        self.revocations.delete(hash).map_err(not_saved)?;
        self.store.delete(hash).map_err(not_saved)?;
        self.keys.remove(hash);
        Ok(())
    }
}
