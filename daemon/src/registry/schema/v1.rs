//! From format 1 to 2: statements are found by their digests.

use keywright_proto::statement;
use serde::{Deserialize, Serialize};

use super::{Changes, RegistryError, View};
use crate::registry::codec;

/// Table of the newest statements: byte, Key, family → [`Statement`].
pub(in crate::registry) const STATEMENTS: u8 = 0x40;
/// Table that format 2 adds: byte, digest → [`StatementRef`].
pub(in crate::registry) const STATEMENT_DIGESTS: u8 = 0x47;

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

/// As formats 2 to 5 have it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct StatementRef {
    pub(in crate::registry) key: [u8; 16],
    pub(in crate::registry) family: [u8; 16],
    pub(in crate::registry) version: Option<u64>,
}

pub(super) fn migrate(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    for record in view.all(vec![STATEMENTS]) {
        let (place, payload) = record?;
        let Statement { version, cose, .. } = codec::decode(&payload)?;
        let (key, family) = key_and_family(&place)?;
        if let Some(digest) = statement::digest(&cose) {
            let place = [&[STATEMENT_DIGESTS], &digest[..]].concat();
            changes.put(place, &StatementRef { key, family, version })?;
        }
    }
    Ok(())
}

/// The ids in the key of a statement.
fn key_and_family(place: &[u8]) -> Result<([u8; 16], [u8; 16]), RegistryError> {
    let ids = place.get(1..).unwrap_or_default();
    match (ids.first_chunk(), ids.last_chunk()) {
        (Some(key), Some(family)) if ids.len() == 32 => Ok((*key, *family)),
        _ => Err(RegistryError::damaged("a statement's key has another length")),
    }
}
