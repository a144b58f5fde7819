//! Reports plugs and unplugs of tokens: one event for each physical plug or unplug.
//!
//! The events come from udevd ([`UdevSource`]) or, in tests and demos, from a Unix socket to which card programs connect
//! (`VirtualReader`).

mod devices;
mod udev;
#[cfg(feature = "virtual-reader")]
mod virtual_reader;
#[cfg(test)]
#[cfg(feature = "virtual-reader")]
mod virtual_reader_tests;

use std::{fmt, io, path::PathBuf, sync::Arc};

pub use udev::UdevSource;
#[cfg(feature = "virtual-reader")]
pub use virtual_reader::VirtualReader;

use crate::Connector;

/// Identifies a device from its plug to its unplug. An id is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub String);

/// A token that was plugged in.
#[derive(Clone)]
pub struct Device {
    /// Identifies this plug.
    pub id: DeviceId,
    /// The physical port, stable over re-plugs: `usb-1-2.3` for port 3 of a hub, `virtual` for the virtual reader.
    pub port: String,
    /// The product name, for display.
    pub model: String,
    /// The USB serial number, if there is one. Not an identity, because some products give every unit the same.
    pub usb_serial: Option<String>,
    /// Opens the token for one job.
    pub connector: Arc<dyn Connector>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} at {}", self.id.0, self.model, self.port)
    }
}

/// A plug or an unplug.
#[derive(Debug, Clone)]
pub enum PlugEvent {
    /// A token was plugged in.
    Plugged(Device),
    /// A token was unplugged.
    Unplugged(DeviceId),
    /// All tokens that were present when the source started have been reported.
    Settled,
}

/// Receives the events. It is called from the source's thread and must not block.
pub type Sink = Arc<dyn Fn(PlugEvent) + Send + Sync>;

/// Why a source of events could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The udev monitor cannot be opened.
    #[error("udev cannot be listened to: {0}; is systemd-udevd running?")]
    Monitor(#[source] io::Error),
    /// Another program listens on this socket.
    #[error("{} is in use by another program; stop it or choose another path", .0.display())]
    SocketInUse(PathBuf),
    /// The socket cannot be created.
    #[error("the virtual reader's socket {} cannot be made: {source}", .path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
