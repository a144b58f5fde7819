//! What became of rights whose Locks have just confirmed: for whoever is told of it.

use keywright_proto::{Id, rights::RightState};

use super::{plain_on, state};
use crate::{
    judging::{Moment, heard::heard},
    registry::{Registry, RegistryError},
};

/// A Lock, `active` or `removed`, and for how many seconds that was waited for.
pub type SettledRow = (String, &'static str, u64);

/// Of these Locks, whose word on a Key was just kept, those that have nothing more to confirm.
///
/// # Errors
/// The registry cannot be read.
pub fn settled(
    registry: &Registry,
    key: Id,
    family: Id,
    locks: &[Id],
    moment: Moment,
) -> Result<Vec<SettledRow>, RegistryError> {
    let words = moment.compare(registry, key, family)?;
    let statement = registry.statement(key, family)?;
    let mut rows = Vec::new();
    for lock in locks {
        let said = match (&words, &statement) {
            (Some(words), _) => {
                words.on(*lock).map(|(said, source)| (said, source.statement.issued))
            }
            (None, Some(statement)) => plain_on(registry, key, family, statement, *lock)?,
            (None, None) => None,
        };
        // A Lock that left its family has no rights.
        let said = match registry.removed_lock(family, *lock)? {
            Some(_) => None,
            None => said,
        };
        let heard = heard(registry, words.as_ref(), key, *lock)?;
        let (Some((said, issued)), Some((heard, confirmed))) = (said, heard) else { continue };
        let (word, since) = match state(Some(said), Some(heard)) {
            RightState::Active => ("active", issued),
            RightState::None => {
                let first = registry.right_removed_since(key, family, *lock)?;
                ("removed", first.map_or(issued, |first| first.min(issued)))
            }
            RightState::Pending | RightState::Removing => continue,
        };
        rows.push((lock.to_string(), word, confirmed.time.saturating_sub(since)));
    }
    Ok(rows)
}
