//! A caller of the D-Bus API, and checks of the errors that it gets.

use zbus::{Connection, OwnedObjectPath, Result, proxy::CacheProperties};

use crate::api::{KeyProxy, ManagerProxy, SerializationProxy};

/// One caller, with its own connection.
#[derive(Clone)]
pub struct Client(Connection);

impl Client {
    /// A caller on this connection.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// The manager.
    pub async fn manager(&self) -> ManagerProxy<'static> {
        let builder = ManagerProxy::builder(&self.0);
        builder.cache_properties(CacheProperties::No).build().await.unwrap()
    }

    /// A Key.
    pub async fn key(&self, path: &OwnedObjectPath) -> KeyProxy<'static> {
        KeyProxy::builder(&self.0).path(path.clone()).build().await.unwrap()
    }

    /// A serialization.
    pub async fn serialization(&self, path: &OwnedObjectPath) -> SerializationProxy<'static> {
        SerializationProxy::builder(&self.0).path(path.clone()).build().await.unwrap()
    }
}

/// The name of an error without its prefix, such as `PinInvalid`.
///
/// Panics on an error that is not the daemon's own.
#[track_caller]
pub fn error_name(error: &zbus::Error) -> &str {
    match error {
        zbus::Error::MethodError(name, Some(text), _) => {
            assert!(text.len() > 20, "{name} does not say what happened: {text:?}");
            let name = name.as_str().strip_prefix("org.keywright1.Error.");
            name.unwrap_or_else(|| panic!("not an error of docs/dbus.md: {error}"))
        }
        _ => panic!("not an error of docs/dbus.md: {error}"),
    }
}

/// Panics unless the call was refused with this error.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T>, name: &str) {
    match result {
        Ok(answer) => panic!("expected {name}, but it was done: {answer:?}"),
        Err(error) => assert_eq!(error_name(&error), name, "{error}"),
    }
}
