//! zbus proxies of the D-Bus interfaces in `docs/dbus.md`. [`crate::Client`] and [`crate::Wizard`] wrap
//! them; use these for calls that the wrappers do not cover.
//!
//! Calls that may need an administrator's password allow polkit to ask for it (`allow_interactive_auth`).

use std::collections::HashMap;

use zbus::{Fd, ObjectPath, OwnedFd, OwnedObjectPath, OwnedVariant, Variant, proxy};

/// A row of `ListKeys`: id, name, role, family, last seen (Unix seconds).
pub type KeyRowWire = (String, String, String, String, u64);
/// A row of `ListLocks`: id, name, family, online, last seen (Unix seconds).
pub type LockRowWire = (String, String, String, bool, u64);
/// A row of `ListRights`: Lock id, Lock name, state, since (Unix seconds).
pub type RightRowWire = (String, String, String, u64);
/// A row of `ListWaiting`: what, id, name, serial number, signer.
pub type WaitingRowWire = (String, String, String, String, String);
/// A row of `ListIssuers`: id, Key's id, Key's name, depth, ids of its issuers, standing, since (Unix seconds), origin.
pub type IssuerRowWire = (String, String, String, i32, Vec<String>, String, u64, String);
/// A row of `ListGroups`: family, name, number of Locks.
pub type GroupRowWire = (String, String, u32);
/// An `a{sv}` argument.
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;

/// `org.keywright1.Manager`.
#[proxy(
    interface = "org.keywright1.Manager",
    default_service = "org.keywright1",
    default_path = "/org/keywright1"
)]
pub trait Manager {
    /// The daemon's version.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;

    /// Pairs of present Keys without an offer: issuer or `/`, other Key, reason.
    #[zbus(property)]
    fn decisions(&self) -> zbus::Result<Vec<(OwnedObjectPath, OwnedObjectPath, String)>>;

    /// Where a damaged registry was set aside, until somebody acknowledges it.
    #[zbus(property)]
    fn lost_registry(&self) -> zbus::Result<String>;

    /// Acknowledges that it is lost.
    #[zbus(allow_interactive_auth)]
    fn acknowledge_lost_registry(&self) -> zbus::Result<()>;

    /// Starts a serialization.
    #[zbus(allow_interactive_auth)]
    fn start_serialization(
        &self,
        issuer: &ObjectPath<'_>,
        candidate: &ObjectPath<'_>,
        options: Options<'_>,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Certifies a Lock with an issuing Key.
    #[zbus(allow_interactive_auth)]
    fn add_lock(
        &self,
        issuer: &ObjectPath<'_>,
        name: &str,
        csr_pem: &str,
        pin: Fd<'_>,
    ) -> zbus::Result<(String, String)>;

    /// Removes a Lock from its family.
    #[zbus(allow_interactive_auth)]
    fn remove_lock(&self, issuer: &ObjectPath<'_>, lock_id: &str, pin: Fd<'_>) -> zbus::Result<()>;

    /// Returns one page of the signatures that are pending in a family.
    fn list_waiting(
        &self,
        family: &str,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<WaitingRowWire>, String)>;

    /// Returns one page of the issuing keys of a family.
    fn list_issuers(
        &self,
        family: &str,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<IssuerRowWire>, String)>;

    /// Returns one page of the known Keys.
    fn list_keys(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<KeyRowWire>, String)>;

    /// Returns one page of the known Locks.
    fn list_locks(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<LockRowWire>, String)>;

    /// Returns one page of a Key's rights.
    fn list_rights(
        &self,
        key_id: &str,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<RightRowWire>, String)>;

    /// Adds and removes rights.
    #[zbus(allow_interactive_auth)]
    fn change_rights(
        &self,
        issuer: &ObjectPath<'_>,
        key_id: &str,
        add: &[&str],
        remove: &[&str],
        pin: Fd<'_>,
    ) -> zbus::Result<()>;

    /// Revokes a Key for good.
    #[zbus(allow_interactive_auth)]
    fn revoke_key(
        &self,
        issuer: &ObjectPath<'_>,
        key_id: &str,
        reason: &str,
        pin: Fd<'_>,
    ) -> zbus::Result<()>;

    /// Renames a Key on this station.
    #[zbus(allow_interactive_auth)]
    fn rename_key(&self, id: &str, name: &str) -> zbus::Result<()>;

    /// Renames a Lock on this station.
    #[zbus(allow_interactive_auth)]
    fn rename_lock(&self, id: &str, name: &str) -> zbus::Result<()>;

    /// Issues a Soft Key.
    #[zbus(allow_interactive_auth)]
    fn issue_soft_key(
        &self,
        issuer: &ObjectPath<'_>,
        name: &str,
        csr_pem: &str,
        locks: &[&str],
        pin: Fd<'_>,
    ) -> zbus::Result<(String, String)>;

    /// Returns a family's roots and CRLs as PEM.
    fn get_family_bundle(&self, family: &str) -> zbus::Result<(String, String)>;

    /// Returns a statement with its inclusion proof.
    fn get_grant(&self, key_id: &str, lock_id: &str) -> zbus::Result<Vec<u8>>;

    /// Imports a Lock's confirmation that was carried by hand.
    #[zbus(allow_interactive_auth)]
    fn apply_confirmation(&self, confirmation: &[u8]) -> zbus::Result<()>;

    /// Writes a family's signed objects to a file.
    #[zbus(allow_interactive_auth)]
    fn export_family(&self, family: &str, out: Fd<'_>) -> zbus::Result<()>;

    /// Merges another station's export.
    #[zbus(allow_interactive_auth)]
    fn import_family(&self, input: Fd<'_>) -> zbus::Result<u32>;

    /// Writes the audit log to a file.
    #[zbus(allow_interactive_auth)]
    fn export_audit(&self, out: Fd<'_>) -> zbus::Result<()>;

    /// Returns one page of the groups of Locks.
    fn list_groups(
        &self,
        filter: Options<'_>,
        after: &str,
        limit: u32,
    ) -> zbus::Result<(Vec<GroupRowWire>, String)>;

    /// Creates or changes a group of Locks.
    #[zbus(allow_interactive_auth)]
    fn set_group(
        &self,
        family: &str,
        name: &str,
        add: &[&str],
        remove: &[&str],
    ) -> zbus::Result<u32>;

    /// Deletes a group of Locks.
    #[zbus(allow_interactive_auth)]
    fn remove_group(&self, family: &str, name: &str) -> zbus::Result<()>;
}

/// `org.keywright1.Key`. [`crate::Watch`] follows its properties.
#[proxy(interface = "org.keywright1.Key", default_service = "org.keywright1")]
pub trait Key {
    /// Returns the certificate chain in a family as PEM, leaf first; an empty family is the Key's own.
    fn get_certificate_chain(&self, family: &str) -> zbus::Result<String>;

    /// Changes the PIN.
    #[zbus(allow_interactive_auth)]
    fn change_pin(&self, old: Fd<'_>, new: Fd<'_>) -> zbus::Result<()>;

    /// Sets a new PIN with the recovery code (the PUK).
    #[zbus(allow_interactive_auth)]
    fn unblock_pin(&self, code: Fd<'_>, new: Fd<'_>) -> zbus::Result<()>;
}

/// `org.keywright1.Serialization`. [`crate::Watch`] follows its properties.
#[proxy(interface = "org.keywright1.Serialization", default_service = "org.keywright1")]
pub trait Serialization {
    /// Claims the serialization for the caller.
    #[zbus(allow_interactive_auth)]
    fn claim(&self) -> zbus::Result<()>;

    /// Releases the claim.
    #[zbus(allow_interactive_auth)]
    fn release(&self) -> zbus::Result<()>;

    /// Answers the step `kind`.
    #[zbus(allow_interactive_auth)]
    fn set_kind(&self, kind: &str) -> zbus::Result<()>;

    /// Answers the step `name`.
    #[zbus(allow_interactive_auth)]
    fn set_name(&self, name: &str) -> zbus::Result<()>;

    /// Goes one step back.
    #[zbus(allow_interactive_auth)]
    fn back(&self) -> zbus::Result<()>;

    /// Answers the step `locks`: replaces the selection.
    #[zbus(allow_interactive_auth)]
    fn select_locks(&self, ids: &[&str], all: bool) -> zbus::Result<()>;

    /// Returns the summary of what will be written, and its revision.
    #[zbus(allow_interactive_auth)]
    fn review(&self) -> zbus::Result<(HashMap<String, OwnedVariant>, u32)>;

    /// Answers the step `review`.
    #[zbus(allow_interactive_auth)]
    fn save(&self, revision: u32) -> zbus::Result<()>;

    /// Answers the step `pins`, one PIN per call.
    #[zbus(allow_interactive_auth)]
    fn provide_pin(&self, who: &str, pin: Fd<'_>, options: Options<'_>) -> zbus::Result<()>;

    /// Returns the recovery code, once.
    #[zbus(allow_interactive_auth)]
    fn take_recovery_code(&self) -> zbus::Result<OwnedFd>;

    /// Removes the finished object.
    #[zbus(allow_interactive_auth)]
    fn finish(&self) -> zbus::Result<()>;

    /// Cancels the serialization.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;
}
