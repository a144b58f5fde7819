//! How many rights of a Key are active, and how many pending.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{
    Effect, Id,
    rights::{RightState, VersionedEffect},
};

use super::{right_at, state};
use crate::{
    registry::{
        Registry, RegistryError,
        records::{Confirmation, Statement},
    },
    trust::{
        Moment, Statements,
        confirmation::{confirmed_effect, effect_of},
    },
};

/// Rights by state. Rights that are being removed are not counted.
#[derive(Default)]
struct Tally {
    active: u32,
    pending: u32,
}

impl Tally {
    fn add(&mut self, state: RightState, rights: u32) {
        match state {
            RightState::Active => self.active = self.active.saturating_add(rights),
            RightState::Pending => self.pending = self.pending.saturating_add(rights),
            RightState::Removing | RightState::None => {}
        }
    }
}

/// Whether a confirmation changes how a right with this effect is counted.
fn matters(effect: Option<VersionedEffect>, confirmation: Confirmation) -> bool {
    let counted = |confirmed| {
        let state = state(effect, confirmed);
        matches!(state, RightState::Active | RightState::Pending).then_some(state)
    };
    counted(Some(effect_of(confirmation))) != counted(None)
}

/// Counts the active and the pending rights of a Key in a family.
///
/// Where the newest statement alone decides, only its number of Locks is read until the first Lock confirms that it allows
/// the Key: a family may have 100,000 Locks.
///
/// # Errors
/// The registry cannot be read.
pub fn count_rights(
    registry: &Registry,
    key: Id,
    family: Id,
    moment: Moment,
) -> Result<(u32, u32), RegistryError> {
    let confirmations: BTreeMap<Id, Confirmation> =
        registry.confirmations(key)?.into_iter().collect();
    let removed: BTreeSet<Id> =
        registry.removed_locks(family)?.into_iter().map(|(lock, _)| lock).collect();
    let tally = match moment.competing_statements(registry, key, family)? {
        Some(statements) => {
            count_competing(registry, key, family, &statements, &confirmations, &removed)?
        }
        None => match registry.statement(key, family)? {
            Some(statement) => {
                count_single(registry, key, family, &statement, confirmations, &removed)?
            }
            None => Tally::default(),
        },
    };
    Ok((tally.active, tally.pending))
}

/// Counts where several statements have to be compared, Lock by Lock.
fn count_competing(
    registry: &Registry,
    key: Id,
    family: Id,
    statements: &Statements,
    confirmations: &BTreeMap<Id, Confirmation>,
    removed: &BTreeSet<Id>,
) -> Result<Tally, RegistryError> {
    let mut tally = Tally::default();
    for lock in statements.locks(registry, family)?.into_iter().filter(|l| !removed.contains(l)) {
        let Some((effect, _)) = right_at(statements, lock) else { continue };
        // The weight of a confirmation takes more reading: only where the confirmation could matter.
        let confirmed = match confirmations.get(&lock).filter(|kept| matters(effect, **kept)) {
            Some(_) => confirmed_effect(registry, Some(statements), key, lock)?,
            None => None,
        };
        tally.add(state(effect, confirmed.map(|(effect, _)| effect)), 1);
    }
    Ok(tally)
}

/// Counts where the newest statement alone decides.
fn count_single(
    registry: &Registry,
    key: Id,
    family: Id,
    statement: &Statement,
    mut confirmations: BTreeMap<Id, Confirmation>,
    removed: &BTreeSet<Id>,
) -> Result<Tally, RegistryError> {
    let version = statement.version;
    let effect = |allow| Some(VersionedEffect { version, effect: Effect::of(allow) });
    let confirmed = |lock| confirmations.get(&lock).copied().map(effect_of);
    let mut tally = Tally::default();
    match statement.everywhere {
        Some(allow) => {
            let effect = effect(allow);
            confirmations.retain(|_, kept| matters(effect, *kept));
            let mut unconfirmed = registry.family(family)?.map_or(0, |family| family.locks);
            for (lock, kept) in confirmations {
                // A Key of several families has confirmations of other families' Locks.
                if registry.lock_summary(family, lock)?.is_some() {
                    tally.add(state(effect, Some(effect_of(kept))), 1);
                    unconfirmed = unconfirmed.saturating_sub(1);
                }
            }
            tally.add(state(effect, None), unconfirmed);
        }
        None => {
            let both = [effect(true), effect(false)];
            let is_unconfirmed =
                !confirmations.values().any(|kept| both.iter().any(|e| matters(*e, *kept)));
            if is_unconfirmed && removed.is_empty() {
                tally.add(state(effect(true), None), statement.allowed);
                tally.add(
                    state(effect(false), None),
                    statement.listed.saturating_sub(statement.allowed),
                );
            } else {
                for entry in registry.statement_entries(key, family)? {
                    if !removed.contains(&entry.lock) {
                        tally.add(state(effect(entry.allow), confirmed(entry.lock)), 1);
                    }
                }
            }
        }
    }
    Ok(tally)
}
