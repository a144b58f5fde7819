//! The station with troublesome tokens: pulled out at the worst moment, held by another program, or silent.

mod bench;
mod probes;

use std::sync::{Arc, Mutex, mpsc};

use bench::{Bench, Free, PATIENCE, key};
use keywright_proto::ErrorName;
use keywright_token::{
    Connector, Limits, Transport, TransportError,
    hotplug::{Device, DeviceId, PlugEvent},
};
use keywrightd::{
    config::Config,
    outbox::Output,
    registry::Registry,
    station::{Handle, Station},
};

/// A blank token that is pulled out right after its last answer in the first probe.
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
            self.station.tell(|station| station.hotplug(PlugEvent::Unplugged(id())));
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
        // The probe's messages to the station are in its mailbox before this.
        if let Some(done) = self.done.take() {
            self.station.tell(move |_| done.send(()).unwrap());
        }
    }
}

/// A token that does not answer until the test allows it.
struct Silent(Mutex<mpsc::Receiver<()>>);

impl Connector for Silent {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let _ = self.0.lock().unwrap().recv();
        Err(TransportError::Timeout)
    }
}

#[tokio::test]
async fn silent_token_does_not_delay_the_others() {
    let mut bench = Bench::start();
    let (answer, answered) = mpsc::channel();
    bench.plug("silent", Silent(Mutex::new(answered)));
    bench.plug("one", Free);
    bench.plug("two", Free);
    let decided =
        |output| matches!(output, Output::Decisions(pairs) if pairs.len() == 1).then_some(());
    bench.until(decided).await;
    // The token answers at last.
    drop(answer);
    let silent = |output| key(output).filter(|(_, view)| view.port == "silent");
    let (_, view) = bench.until(silent).await;
    assert_eq!(view.state, "unusable");
    assert_eq!(view.trouble.unwrap().error, ErrorName::TokenFailed);
}

#[test]
fn key_unplugged_before_its_answer_is_handled_is_not_shown() {
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
        station.hotplug(PlugEvent::Settled);
        station.hotplug(PlugEvent::Plugged(device));
    });
    is_done.recv().unwrap();
    while let Ok(output) = outputs.try_recv() {
        if let Output::Key(_, view) = output {
            assert!(!view.present, "{view:?}");
        }
    }
}

/// Reports so many refused calls of a user to a new station, and returns the log.
fn refuse(registry: &Registry, uid: u32, calls: u32) -> Vec<keywright_proto::audit::LoggedEvent> {
    let (station, outputs) = Station::start(registry.clone(), Config::default()).unwrap();
    for _ in 0..calls {
        station.tell(move |station| station.refused_call(Some(uid), "org.keywright1.inspect"));
    }
    // It handles its messages in order.
    let (done, is_done) = mpsc::channel();
    station.tell(move |_| done.send(()).unwrap());
    is_done.recv_timeout(PATIENCE).unwrap();
    drop(outputs);
    registry.audit_page(0, 100).unwrap()
}

#[test]
fn refused_calls_are_logged_at_a_limited_rate() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::open(&state.path().join("registry")).unwrap();
    let log = refuse(&registry, 7, 10_000);
    assert_eq!(log.len(), 1, "{log:?}");
    let fields = ["action", "calls", "uid"].map(|name| log[0].field(name).unwrap());
    assert_eq!(fields, ["org.keywright1.inspect", "1", "7"]);
    // The daemon exits when idle, and every call starts it again.
    for _ in 0..5 {
        let again = refuse(&registry, 7, 1);
        assert_eq!(again.len(), 1, "{again:?}");
    }
    assert_eq!(refuse(&registry, 8, 1).len(), 2, "another user is another matter");
}
