//! Tells the station when a front-end that owns a serialization leaves the bus.

use std::{
    collections::{BTreeSet, HashMap},
    future::poll_fn,
    pin::Pin,
};

use futures_core::Stream;
use tokio::task::{AbortHandle, spawn};
use zbus::{Connection, fdo::DBusProxy};

use crate::station::Handle;

/// Watches the unique names of owners, and no others: other programs that come and go do not wake the daemon.
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

    /// Watches these unique names from now on, and no others.
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
    // Treat a name that cannot be watched as gone, so that another front-end can take over.
    if let Err(error) = until_gone(&connection, &name).await {
        tracing::warn!(name, %error, "cannot watch a front-end");
    }
    station.tell(move |station| station.bus_name_left(&name));
}

async fn until_gone(connection: &Connection, name: &str) -> zbus::Result<()> {
    let bus = DBusProxy::new(connection).await?;
    let mut changes = bus.receive_name_owner_changed_with_args(&[(0, name)]).await?;
    // The owner may have left before the match rule was added.
    if bus.name_has_owner(name.try_into()?).await? {
        poll_fn(|context| Pin::new(&mut changes).poll_next(context)).await;
    }
    Ok(())
}
