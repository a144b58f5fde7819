//! Rows of the Manager's lists.

use keywright_proto::Role;
use serde::Serialize;

use crate::{
    model::word_or_empty,
    proxy::{GroupRowWire, IssuerRowWire, KeyRowWire, LockRowWire, RightRowWire, WaitingRowWire},
};

/// A Key in `ListKeys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct KeyRow {
    pub id: String,
    pub name: String,
    /// None for a role that this version does not know.
    #[serde(serialize_with = "word_or_empty")]
    pub role: Option<Role>,
    pub family: String,
    pub last_seen: u64,
}

/// A Lock in `ListLocks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct LockRow {
    pub id: String,
    pub name: String,
    pub family: String,
    pub online: bool,
    pub last_seen: u64,
}

/// A right in `ListRights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct RightRow {
    pub lock_id: String,
    pub name: String,
    /// `pending`, `active` or `removing`.
    pub state: String,
    pub since: u64,
}

/// A pending signature in `ListWaiting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct WaitingRow {
    /// `crl-entry`, `certificate`, `ca-certificate` or `statement`.
    pub what: String,
    /// The Key or Lock it is for; empty if the certificate was never delivered.
    pub id: String,
    pub name: String,
    /// The certificate's serial number, in hex.
    pub serial: String,
    /// The id of the Key that has to sign; empty if any Master or Backup of the family can.
    pub signer: String,
}

impl From<WaitingRowWire> for WaitingRow {
    fn from((what, id, name, serial, signer): WaitingRowWire) -> Self {
        Self { what, id, name, serial, signer }
    }
}

/// An issuing key in `ListIssuers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct IssuerRow {
    pub id: String,
    /// The id of its Key; empty if nobody knows that Key here.
    pub key_id: String,
    pub key_name: String,
    /// How many certificates it is from the root; -1 if no believed issuing key certified it.
    pub depth: i32,
    /// The ids of the issuing keys that certified it.
    pub certified_by: Vec<String>,
    /// `believed`, `deposed`, `revoked`, `orphaned` or `ignored`.
    pub standing: String,
    /// Unix seconds; 0 if that was not noted.
    pub since: u64,
    /// `job`, `key`, `import`, `link`, `lock`, or empty if that was not noted.
    pub origin: String,
}

impl From<IssuerRowWire> for IssuerRow {
    fn from(
        (id, key_id, key_name, depth, certified_by, standing, since, origin): IssuerRowWire,
    ) -> Self {
        Self { id, key_id, key_name, depth, certified_by, standing, since, origin }
    }
}

/// A group of Locks in `ListGroups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "columns of docs/dbus.md, by their names")]
pub struct GroupRow {
    pub family: String,
    pub name: String,
    pub locks: u32,
}

impl From<GroupRowWire> for GroupRow {
    fn from((family, name, locks): GroupRowWire) -> Self {
        Self { family, name, locks }
    }
}

impl From<KeyRowWire> for KeyRow {
    fn from((id, name, role, family, last_seen): KeyRowWire) -> Self {
        Self { id, name, role: role.parse().ok(), family, last_seen }
    }
}

impl From<LockRowWire> for LockRow {
    fn from((id, name, family, online, last_seen): LockRowWire) -> Self {
        Self { id, name, family, online, last_seen }
    }
}

impl From<RightRowWire> for RightRow {
    fn from((lock_id, name, state, since): RightRowWire) -> Self {
        Self { lock_id, name, state, since }
    }
}
