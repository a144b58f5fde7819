//! What was plugged in and what was pulled out: one event for one physical plug.
//!
//! Two sources stand behind one channel: the kernel by way of udevd ([`UdevSource`]) and, for tests and
//! demos, a Unix socket on which card programs plug themselves in (`VirtualReader`).

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

/// Names one plugged-in device from its plug to its unplug; never used again for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub String);

/// A token that was plugged in: where, what it says it is, and how to talk to it.
#[derive(Clone)]
pub struct Device {
    /// Names this plug.
    pub id: DeviceId,
    /// The physical place, stable over re-plugs: `usb-1-2.3` for hub ports, `virtual-1` for the virtual reader.
    pub port: String,
    /// The product name, for people.
    pub model: String,
    /// The USB serial number, where there is one. A hint: some products give every unit the same.
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
    /// It was pulled out.
    Unplugged(DeviceId),
    /// Everything that was plugged in when the source started has been reported.
    Settled,
}

/// Where events go. Called from the source's own thread; must not block.
pub type Sink = Arc<dyn Fn(PlugEvent) + Send + Sync>;

/// Why a source could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no udev monitor.
    #[error("udev cannot be listened to: {0}; is systemd-udevd running?")]
    Monitor(#[source] io::Error),
    /// Another program serves this socket.
    #[error("{} is in use by another program; stop it or choose another path", .0.display())]
    SocketInUse(PathBuf),
    /// The socket cannot be made.
    #[error("the virtual reader's socket {} cannot be made: {source}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
