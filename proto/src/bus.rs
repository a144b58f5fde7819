//! The names of the D-Bus API (`docs/dbus.md`), for the daemon and its clients alike.

/// The well-known name.
pub const NAME: &str = "org.keywright1";
/// The path of the manager and of the object manager.
pub const MANAGER_PATH: &str = "/org/keywright1";
/// The interface at [`MANAGER_PATH`].
pub const MANAGER: &str = "org.keywright1.Manager";
/// The interface of a Key.
pub const KEY: &str = "org.keywright1.Key";
/// The interface of a serialization.
pub const SERIALIZATION: &str = "org.keywright1.Serialization";
/// What every error name begins with.
pub const ERROR_PREFIX: &str = "org.keywright1.Error.";
/// Where "none" is meant by an object path.
pub const NO_OBJECT: &str = "/";
/// What stands before the name of a group where Locks are selected.
pub const GROUP_PREFIX: &str = "group:";

/// The path of the Key with this label. Clients treat it as opaque.
pub fn key_path(label: &str) -> String {
    format!("{MANAGER_PATH}/keys/{label}")
}

/// The path of the serialization with this number.
pub fn serialization_path(number: u64) -> String {
    format!("{MANAGER_PATH}/serializations/{number}")
}

/// The label in a Key's path, if it is one.
pub fn key_label(path: &str) -> Option<&str> {
    let label = path.strip_prefix(MANAGER_PATH)?.strip_prefix("/keys/")?;
    (!label.is_empty() && !label.contains('/')).then_some(label)
}

/// The number in a serialization's path, if it is one.
pub fn serialization_number(path: &str) -> Option<u64> {
    path.strip_prefix(MANAGER_PATH)?.strip_prefix("/serializations/")?.parse().ok()
}

/// The polkit actions.
pub mod action {
    /// List and get.
    pub const INSPECT: &str = "org.keywright1.inspect";
    /// Start and drive a serialization.
    pub const SERIALIZE: &str = "org.keywright1.serialize";
    /// Change Keys and their rights.
    pub const MANAGE_KEYS: &str = "org.keywright1.manage-keys";
    /// Add and rename Locks.
    pub const MANAGE_LOCKS: &str = "org.keywright1.manage-locks";
}
