//! Keys of records: the first byte is the table, then come fields of fixed length, numbers big-endian. So a page of a
//! list is a range of keys.

use keywright_proto::Id;

use super::error::RegistryError;

/// The tables. All are in one sled tree, because only then is a commit atomic. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    /// → schema number, four bytes big-endian: readable whatever else changes.
    Schema = 0x01,
    /// → [`super::store::Head`]
    Head = 0x02,
    /// → the first serialization number not yet reserved
    Numbers = 0x03,
    /// family → [`super::records::Family`]
    Families = 0x10,
    /// issuing key → [`super::records::Issuer`]
    Issuers = 0x11,
    /// family, SHA-256 of the certificate → a CA certificate, DER: all of them, the root included
    CaCertificates = 0x12,
    /// Key → [`super::records::Key`]
    Keys = 0x20,
    /// complement of last_seen, Key → nothing: the index of Keys by last seen, newest first
    KeysBySeen = 0x21,
    /// Key, family → [`super::records::Membership`]
    Memberships = 0x22,
    /// family, Key → nothing: the index of Keys by family
    KeysByFamily = 0x23,
    /// family, Key, SHA-256 of the certificate → an access certificate, DER, beside the one in the membership
    OtherCertificates = 0x24,
    /// Lock → [`super::records::Lock`]
    Locks = 0x30,
    /// family, Lock → [`super::records::LockSummary`]
    LocksByFamily = 0x31,
    /// group → [`super::records::Group`]
    Groups = 0x32,
    /// group, first Lock of the chunk → Locks
    GroupLocks = 0x33,
    /// Key, family → [`super::records::Statement`]
    Statements = 0x40,
    /// Key, family, first Lock of the chunk → entries
    StatementEntries = 0x41,
    /// Key, Lock → [`super::records::Confirmation`]
    Confirmations = 0x42,
    /// Key, family, digest → [`super::records::Statement`]s that are kept beside the newest one
    OlderStatements = 0x43,
    /// Key, family, digest, first Lock of the chunk → entries
    OlderEntries = 0x44,
    /// family, digest → [`super::records::Revocation`]
    Revocations = 0x45,
    /// Key, Lock → [`super::records::SignedConfirmation`]
    SignedConfirmations = 0x46,
    /// digest → [`super::records::StatementRef`]
    StatementDigests = 0x47,
    /// family, issuing key → its self-signed certificate, DER, made when the Master was revoked
    Roots = 0x48,
    /// Key, family, first Lock of the chunk → [`super::records::RemovedRight`]s
    RemovedRights = 0x49,
    /// family, Lock, signer → [`super::records::LockRemoval`]
    LockRemovals = 0x4a,
    /// family, Lock → [`super::records::Lock`]; the Lock has no record in `Locks` and `LocksByFamily` then
    RemovedLocks = 0x4b,
    /// family, digest of a revocation → the uptime of this station when it first saw it, in seconds
    RevocationUptimes = 0x4c,
    /// family, issuing key → [`super::found_issuers::FoundIssuer`]
    FoundIssuers = 0x4d,
    /// number → [`super::records::Intent`]
    Intents = 0x50,
    /// number, first Lock of the chunk → entries
    IntentEntries = 0x51,
    /// GUID → [`super::records::Leftover`]
    Leftovers = 0x52,
    /// position → [`super::records::AuditRecord`]
    Audit = 0x60,
    /// → [`super::records::AuditExtent`]
    AuditExtent = 0x61,
    /// key of a large record, position → the rest of it
    Pieces = 0xf0,
}

/// Tables small enough to be counted whenever the registry is opened.
pub(super) const SMALL: [Table; 5] =
    [Table::Families, Table::Issuers, Table::Intents, Table::IntentEntries, Table::Leftovers];

impl Table {
    /// The key of a table's only record, or the prefix of all its records.
    pub(super) fn key(self) -> Vec<u8> {
        vec![self as u8]
    }

    /// A key, or a prefix of keys, with these fields.
    pub(super) fn with(self, fields: &[&[u8]]) -> Vec<u8> {
        let mut key = self.key();
        fields.iter().for_each(|field| key.extend_from_slice(field));
        key
    }

    pub(super) fn of(self, id: Id) -> Vec<u8> {
        self.with(&[id.as_bytes()])
    }

    pub(super) fn of_two(self, first: Id, second: Id) -> Vec<u8> {
        self.with(&[first.as_bytes(), second.as_bytes()])
    }

    pub(super) fn at(self, number: u64) -> Vec<u8> {
        self.with(&[&number.to_be_bytes()])
    }
}

/// The id at the end of a stored key.
pub(super) fn id_at_end(key: &[u8]) -> Result<Id, RegistryError> {
    key.last_chunk().copied().map(Id::from_bytes).ok_or_else(too_short)
}

/// The number at the end of a stored key.
pub(super) fn number_at_end(key: &[u8]) -> Result<u64, RegistryError> {
    key.last_chunk().copied().map(u64::from_be_bytes).ok_or_else(too_short)
}

fn too_short() -> RegistryError {
    RegistryError::damaged("a record's key is too short")
}

/// The first key after all keys with this prefix. There is one, because a prefix begins with a table.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_prefix_is_the_next_key_after_it() {
        assert_eq!(end_of(&[0x10, 0x07]), [0x10, 0x08]);
        assert_eq!(end_of(&[0x10, 0xff, 0xff]), [0x11]);
    }
}
