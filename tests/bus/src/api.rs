//! The D-Bus API, written against `docs/dbus.md` and without the code of the client library.
#![allow(missing_docs, reason = "docs/dbus.md says what the methods do")]

use std::collections::HashMap;

use zbus::{Fd, ObjectPath, OwnedFd, OwnedObjectPath, Result, Variant};

/// The well-known name.
pub const NAME: &str = "org.keywright1";
/// Where the manager and the object manager are.
pub const MANAGER_PATH: &str = "/org/keywright1";
/// The path that means none.
pub const NONE: ObjectPath<'static> = ObjectPath::from_static_str_unchecked("/");

/// `a{sv}`.
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;
/// Key id, name, role, family, last seen.
pub type KeyRow = (String, String, String, String, u64);
/// Lock id, name, family, online, last seen.
pub type LockRow = (String, String, String, bool, u64);
/// Lock id, name, state, since.
pub type RightRow = (String, String, String, u64);
/// Lock id, `active` or `removed`, for how many seconds that was waited for.
pub type ConfirmedRow = (String, String, u64);
/// What is to be signed, Key or Lock id, its name, serial number, who signs.
pub type WaitingRow = (String, String, String, String, String);
/// Family, name, how many Locks.
pub type GroupRow = (String, String, u32);
/// Issuer or `/`, other Key, reason.
pub type Decision = (OwnedObjectPath, OwnedObjectPath, String);

/// The manager.
#[zbus::proxy(
    interface = "org.keywright1.Manager",
    default_service = "org.keywright1",
    default_path = "/org/keywright1"
)]
pub trait Manager {
    #[zbus(property)]
    fn version(&self) -> Result<String>;
    #[zbus(property)]
    fn decisions(&self) -> Result<Vec<Decision>>;
    fn start_serialization(
        &self,
        issuer: &ObjectPath<'_>,
        candidate: &ObjectPath<'_>,
        options: Options<'_>,
    ) -> Result<OwnedObjectPath>;
    fn add_lock(
        &self,
        issuer: &ObjectPath<'_>,
        name: &str,
        csr_pem: &str,
        pin: Fd<'_>,
    ) -> Result<(String, String)>;
    fn remove_lock(&self, issuer: &ObjectPath<'_>, lock_id: &str, pin: Fd<'_>) -> Result<()>;
    #[zbus(property)]
    fn lost_registry(&self) -> Result<String>;
    fn acknowledge_lost_registry(&self) -> Result<()>;
    #[allow(clippy::type_complexity, reason = "the row is as docs/dbus.md has it")]
    fn list_issuers(
        &self,
        family: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<(String, String, String, i32, Vec<String>, String, u64, String)>, String)>;
    fn list_waiting(
        &self,
        family: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<WaitingRow>, String)>;
    fn list_keys(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<KeyRow>, String)>;
    fn list_locks(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<LockRow>, String)>;
    fn list_rights(&self, key_id: &str, after: &str, limit: u32)
    -> Result<(Vec<RightRow>, String)>;
    fn change_rights(
        &self,
        issuer: &ObjectPath<'_>,
        key_id: &str,
        add: &[&str],
        remove: &[&str],
        pin: Fd<'_>,
    ) -> Result<()>;
    fn revoke_key(
        &self,
        issuer: &ObjectPath<'_>,
        key_id: &str,
        reason: &str,
        pin: Fd<'_>,
    ) -> Result<()>;
    fn rename_key(&self, id: &str, name: &str) -> Result<()>;
    fn rename_lock(&self, id: &str, name: &str) -> Result<()>;
    fn issue_soft_key(
        &self,
        issuer: &ObjectPath<'_>,
        name: &str,
        csr_pem: &str,
        locks: &[&str],
        pin: Fd<'_>,
    ) -> Result<(String, String)>;
    fn get_family_bundle(&self, family: &str) -> Result<(String, String)>;
    fn get_grant(&self, key_id: &str, lock_id: &str) -> Result<Vec<u8>>;
    fn apply_confirmation(&self, confirmation: &[u8]) -> Result<()>;
    #[zbus(signal)]
    fn rights_confirmed(&self, key_id: String, rights: Vec<ConfirmedRow>) -> Result<()>;
    fn export_family(&self, family: &str, out: Fd<'_>) -> Result<()>;
    fn import_family(&self, from: Fd<'_>) -> Result<u32>;
    fn export_audit(&self, out: Fd<'_>) -> Result<()>;
    fn list_groups(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<GroupRow>, String)>;
    fn set_group(&self, family: &str, name: &str, add: &[&str], remove: &[&str]) -> Result<u32>;
    fn remove_group(&self, family: &str, name: &str) -> Result<()>;
}

/// A Key.
#[zbus::proxy(interface = "org.keywright1.Key", default_service = "org.keywright1")]
pub trait Key {
    fn get_certificate_chain(&self, family: &str) -> Result<String>;
    fn change_pin(&self, old: Fd<'_>, new: Fd<'_>) -> Result<()>;
    fn unblock_pin(&self, code: Fd<'_>, new: Fd<'_>) -> Result<()>;
}

/// A serialization.
#[zbus::proxy(interface = "org.keywright1.Serialization", default_service = "org.keywright1")]
pub trait Serialization {
    fn claim(&self) -> Result<()>;
    fn release(&self) -> Result<()>;
    fn set_kind(&self, kind: &str) -> Result<()>;
    fn set_name(&self, name: &str) -> Result<()>;
    fn back(&self) -> Result<()>;
    fn select_locks(&self, ids: &[&str], all: bool) -> Result<()>;
    fn review(&self) -> Result<(HashMap<String, zbus::OwnedVariant>, u32)>;
    fn save(&self, revision: u32) -> Result<()>;
    fn provide_pin(&self, who: &str, pin: Fd<'_>, options: Options<'_>) -> Result<()>;
    fn take_recovery_code(&self) -> Result<OwnedFd>;
    fn finish(&self) -> Result<()>;
    fn cancel(&self) -> Result<()>;
}
