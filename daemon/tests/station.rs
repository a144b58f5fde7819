//! The station with a token that is pulled out at the worst moment.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex, mpsc};

use keywrightd::{
    config::Config,
    hotplug::{Device, DeviceId, Event},
    registry::Registry,
    station::{Handle, Station, view::Output},
    token::{Connector, Limits, Transport, TransportError},
};

/// A blank token that is pulled out right after its last answer to the first look.
struct Leaving {
    station: Handle,
    done: Mutex<Option<mpsc::Sender<()>>>,
}

struct Answers {
    station: Handle,
    left: u8,
    done: Option<mpsc::Sender<()>>,
}

fn id() -> DeviceId {
    DeviceId("test#1".into())
}

impl Connector for Leaving {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let done = self.done.lock().unwrap().take();
        Ok(Box::new(Answers { station: self.station.clone(), left: 4, done }))
    }
}

impl Transport for Answers {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        if self.left == 0 {
            return Err(TransportError::Gone);
        }
        self.left -= 1;
        if self.left == 0 {
            self.station.tell(|station| station.hotplug(Event::Unplugged(id())));
        }
        let select = command[1] == 0xA4;
        Ok(if select { vec![0x90, 0] } else { vec![0x6A, 0x82] })
    }

    fn limits(&self) -> Limits {
        Limits { extended: true, longest_command: 3072 }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // All that the look told the station is in its mailbox before this.
        if let Some(done) = self.done.take() {
            self.station.tell(move |_| done.send(()).unwrap());
        }
    }
}

#[test]
fn a_key_that_left_while_its_answer_was_on_the_way_is_not_shown() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::open(&state.path().join("registry")).unwrap();
    let (station, mut outputs) = Station::start(registry, Config::default()).unwrap();
    let (done, is_done) = mpsc::channel();
    let connector = Leaving { station: station.clone(), done: Mutex::new(Some(done)) };
    let device = Device {
        id: id(),
        port: "test".into(),
        model: "Test".into(),
        usb_serial: None,
        connector: Arc::new(connector),
    };
    station.tell(|station| {
        station.hotplug(Event::Settled);
        station.hotplug(Event::Plugged(device));
    });
    is_done.recv().unwrap();
    while let Ok(output) = outputs.try_recv() {
        if let Output::Key(_, view) = output {
            assert!(!view.present, "{view:?}");
        }
    }
}
