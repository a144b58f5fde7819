//! From format 2 to 3: it is kept since when rights are removed, and Locks can be removed.
//!
//! Format 2 did not keep when a right was removed. Of the rights that are removed, the time of the newest statement is
//! all that is known.

use serde::{Deserialize, Serialize};

use super::{Changes, RegistryError, View};
use crate::registry::codec;

/// Table of the newest statements: byte, Key, family → [`Statement`].
pub(in crate::registry) const STATEMENTS: u8 = 0x40;
/// Table of what they list: byte, Key, family, first Lock of the chunk → [`LockEntry`]s.
pub(in crate::registry) const STATEMENT_ENTRIES: u8 = 0x41;
/// Table that format 3 adds: byte, Key, family, first Lock of the chunk → [`RemovedRight`]s.
pub(in crate::registry) const REMOVED_RIGHTS: u8 = 0x49;
/// How many of them make a chunk.
const PER_CHUNK: usize = 140;

/// As formats 1 to 4 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Statement {
    pub(in crate::registry) version: Option<u64>,
    pub(in crate::registry) cose: Vec<u8>,
    pub(in crate::registry) salt_seed: [u8; 32],
    pub(in crate::registry) scope: Scope,
    pub(in crate::registry) allowed: u32,
    pub(in crate::registry) issued: u64,
}

/// As formats 1 to 4 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) enum Scope {
    All,
    Listed(u32),
}

/// As formats 1 to 5 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct LockEntry {
    pub(in crate::registry) lock: [u8; 16],
    pub(in crate::registry) key_hash: [u8; 32],
    pub(in crate::registry) allow: bool,
}

/// As formats 3 to 5 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct RemovedRight {
    pub(in crate::registry) lock: [u8; 16],
    pub(in crate::registry) since: u64,
}

pub(super) fn migrate(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    for record in view.all(vec![STATEMENTS]) {
        let (place, payload) = record?;
        let Statement { issued, .. } = codec::decode(&payload)?;
        let key_and_family = place.get(1..).unwrap_or_default();
        let mut removed = Vec::new();
        for chunk in view.all([&[STATEMENT_ENTRIES], key_and_family].concat()) {
            let entries: Vec<LockEntry> = codec::decode(&chunk?.1)?;
            let denied = entries.into_iter().filter(|entry| !entry.allow);
            removed.extend(denied.map(|entry| RemovedRight { lock: entry.lock, since: issued }));
        }
        // Entries are sorted by Lock, and so are these.
        for chunk in removed.chunks(PER_CHUNK) {
            let first = chunk.first().map(|right| right.lock).unwrap_or_default();
            changes.put([&[REMOVED_RIGHTS], key_and_family, &first].concat(), &chunk)?;
        }
    }
    Ok(())
}
