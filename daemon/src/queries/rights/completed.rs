//! Finds rights that Locks have just completed by confirming them, for the signal `RightsConfirmed`.

use keywright_proto::{Id, rights::RightState};

use super::{plain_on, state};
use crate::{
    registry::{Registry, RegistryError},
    trust::{Moment, confirmation::confirmed_effect},
};

/// A Lock, `active` or `removed`, and how many seconds the confirmation took.
pub type CompletedRightRow = (String, &'static str, u64);

/// Of these Locks, whose confirmation for a Key was just stored, lists those with nothing left to confirm.
///
/// # Errors
/// The registry cannot be read.
pub fn completed_rights(
    registry: &Registry,
    key: Id,
    family: Id,
    locks: &[Id],
    moment: Moment,
) -> Result<Vec<CompletedRightRow>, RegistryError> {
    let statements = moment.competing_statements(registry, key, family)?;
    let statement = registry.statement(key, family)?;
    let mut rows = Vec::new();
    for lock in locks {
        let said = match (&statements, &statement) {
            (Some(statements), _) => {
                statements.in_effect_at(*lock).map(|(said, source)| (said, source.statement.issued))
            }
            (None, Some(statement)) => plain_on(registry, key, family, statement, *lock)?,
            (None, None) => None,
        };
        // A Lock that was removed from the family has no rights.
        let said = match registry.removed_lock(family, *lock)? {
            Some(_) => None,
            None => said,
        };
        let confirmed = confirmed_effect(registry, statements.as_ref(), key, *lock)?;
        let (Some((said, issued)), Some((effect, confirmation))) = (said, confirmed) else {
            continue;
        };
        let (word, since) = match state(Some(said), Some(effect)) {
            RightState::Active => ("active", issued),
            RightState::None => {
                let first = registry.right_removed_since(key, family, *lock)?;
                ("removed", first.map_or(issued, |first| first.min(issued)))
            }
            RightState::Pending | RightState::Removing => continue,
        };
        rows.push((lock.to_string(), word, confirmation.time.saturating_sub(since)));
    }
    Ok(rows)
}
