//! A station, and simulated tokens to plug into it.

use std::{sync::Arc, time::Duration};

use keywright_token::{
    Connector, Limits, Transport, TransportError,
    hotplug::{Device, DeviceId, PlugEvent},
};
use keywrightd::{
    config::Config,
    outbox::Output,
    registry::Registry,
    station::{Handle, Station},
    view::KeyView,
};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

/// How long to wait for an expected event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A station and its outputs.
pub struct Bench {
    pub station: Handle,
    pub outputs: UnboundedReceiver<Output>,
    _state: tempfile::TempDir,
}

impl Bench {
    pub fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::open(&state.path().join("registry")).unwrap();
        let (station, outputs) = Station::start(registry, Config::default()).unwrap();
        station.tell(|station| station.hotplug(PlugEvent::Settled));
        Self { station, outputs, _state: state }
    }

    pub fn plug(&self, name: &str, connector: impl Connector + 'static) {
        let device = Device {
            id: DeviceId(format!("{name}#1")),
            port: name.into(),
            model: "Test".into(),
            usb_serial: None,
            connector: Arc::new(connector),
        };
        self.station.tell(|station| station.hotplug(PlugEvent::Plugged(device)));
    }

    /// Waits for an output for which `find` returns a value.
    pub async fn until<T>(&mut self, find: impl Fn(Output) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = find(self.outputs.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("it comes in time")
    }
}

pub fn key(output: Output) -> Option<(String, KeyView)> {
    match output {
        Output::Key(label, view) => Some((label, *view)),
        _ => None,
    }
}

/// A blank token.
pub struct Blank;

impl Transport for Blank {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let select = command[1] == 0xA4;
        Ok(if select { vec![0x90, 0] } else { vec![0x6A, 0x82] })
    }

    fn limits(&self) -> Limits {
        Limits { extended: true, longest_command: 3072 }
    }
}

pub struct Free;

impl Connector for Free {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(Blank))
    }
}
