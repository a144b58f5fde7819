//! From format 3 to 4: the audit log is chained over the lines that are exported of it.
//!
//! The hashes of formats 1 to 3 were over the bytes of the records, which no other program could check. The old chain
//! is checked once more and a new one is made. A last event says so; it holds the end of the old chain.

use keywright_proto::audit::{LoggedEvent as AuditEvent, NOTHING, REWRITTEN};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Changes, RegistryError, View};
use crate::registry::codec;

/// Table of events: byte, position as eight bytes → [`AuditRecord`].
pub(in crate::registry) const AUDIT: u8 = 0x60;
/// Key of the only [`AuditExtent`], which format 4 adds.
pub(in crate::registry) const AUDIT_EXTENT: u8 = 0x61;

/// As formats 1 to 5 have it; what `previous` is a hash of changes with format 4.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct AuditRecord {
    pub(in crate::registry) time: u64,
    pub(in crate::registry) event: String,
    pub(in crate::registry) fields: Vec<(String, String)>,
    pub(in crate::registry) previous: [u8; 32],
}

/// As formats 4 and 5 have it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct AuditExtent {
    pub(in crate::registry) first: u64,
    pub(in crate::registry) bytes: u64,
}

pub(super) fn migrate(view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
    let mut new = NewLog { position: 0, previous: NOTHING, bytes: 0 };
    let (mut old_hash, mut first_break, mut newest) = (NOTHING, None, 0);
    for record in view.all(vec![AUDIT]) {
        let (place, payload) = record?;
        let AuditRecord { time, event, fields, previous } = codec::decode(&payload)?;
        let is_next = place.get(1..) == Some(&new.position.to_be_bytes());
        if first_break.is_none() && !(is_next && previous == old_hash) {
            first_break = Some(new.position);
        }
        old_hash = Sha256::digest(&payload).into();
        newest = time;
        changes.remove(place.to_vec());
        new.append(changes, time, event, fields)?;
    }
    if new.position > 0 {
        let mut fields = vec![
            ("events".into(), new.position.to_string()),
            ("head".into(), hex::encode(old_hash)),
        ];
        fields.extend(first_break.map(|position| ("broken".into(), position.to_string())));
        new.append(changes, newest, REWRITTEN.into(), fields)?;
    }
    changes.put(vec![AUDIT_EXTENT], &AuditExtent { first: 0, bytes: new.bytes })
}

/// The end of the new chain.
struct NewLog {
    position: u64,
    previous: [u8; 32],
    bytes: u64,
}

impl NewLog {
    fn append(
        &mut self,
        changes: &mut Changes,
        time: u64,
        event: String,
        mut fields: Vec<(String, String)>,
    ) -> Result<(), RegistryError> {
        fields.sort();
        let (position, previous) = (self.position, self.previous);
        let record = AuditRecord { time, event, fields, previous };
        let payload = codec::encode(&record)?;
        let AuditRecord { time, event, fields, previous } = record;
        self.previous = AuditEvent { position, time, event, fields, previous }.hash();
        self.position += 1;
        self.bytes += payload.len() as u64;
        changes.put_bytes([&[AUDIT], &position.to_be_bytes()[..]].concat(), payload);
        Ok(())
    }
}
