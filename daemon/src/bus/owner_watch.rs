//! Front-ends that own a serialization: when one leaves the bus, the station is told.

use std::{
    collections::{BTreeSet, HashMap},
    future::poll_fn,
    pin::Pin,
};

use futures_core::Stream;
use tokio::task::{AbortHandle, spawn};
use zbus::{Connection, fdo::DBusProxy};

use crate::station::Handle;

/// Watches exactly the names that own something: nobody else's coming and going wakes the daemon.
pub struct OwnerWatch {
    connection: Connection,
    station: Handle,
    watched: HashMap<String, AbortHandle>,
}

impl OwnerWatch {
    /// Watches nobody yet.
    pub fn new(connection: &Connection, station: Handle) -> Self {
        Self { connection: connection.clone(), station, watched: HashMap::new() }
    }

    /// From now on, watches these unique names and no others.
    pub fn watch(&mut self, names: &BTreeSet<String>) {
        self.watched.retain(|name, watch| {
            let wanted = names.contains(name);
            if !wanted {
                watch.abort();
            }
            wanted
        });
        for name in names {
            if !self.watched.contains_key(name) {
                let watch =
                    spawn(watch(self.connection.clone(), self.station.clone(), name.clone()));
                self.watched.insert(name.clone(), watch.abort_handle());
            }
        }
    }
}

async fn watch(connection: Connection, station: Handle, name: String) {
    // A name that cannot be watched may be gone: better that others can take over.
    if let Err(error) = until_gone(&connection, &name).await {
        tracing::warn!(name, %error, "cannot watch a front-end");
    }
    station.tell(move |station| station.bus_name_left(&name));
}

async fn until_gone(connection: &Connection, name: &str) -> zbus::Result<()> {
    let bus = DBusProxy::new(connection).await?;
    let mut changes = bus.receive_name_owner_changed_with_args(&[(0, name)]).await?;
    // It may have left before the watch began.
    if bus.name_has_owner(name.try_into()?).await? {
        poll_fn(|context| Pin::new(&mut changes).poll_next(context)).await;
    }
    Ok(())
}
