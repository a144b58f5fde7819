//! The station with tokens that misbehave: pulled out at the worst moment, held by another program, silent.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use keywright_proto::ErrorName;
use keywrightd::{
    clock::unix_seconds,
    config::Config,
    hotplug::{Device, DeviceId, Event},
    registry::Registry,
    station::{
        Handle, Station,
        view::{KeyView, Output},
    },
    token::{Connector, Limits, Transport, TransportError},
};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

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

/// How long an event may take that comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A station, and what it puts out.
struct Bench {
    station: Handle,
    outputs: UnboundedReceiver<Output>,
    _state: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::open(&state.path().join("registry")).unwrap();
        let (station, outputs) = Station::start(registry, Config::default()).unwrap();
        station.tell(|station| station.hotplug(Event::Settled));
        Self { station, outputs, _state: state }
    }

    fn plug(&self, name: &str, connector: impl Connector + 'static) {
        let device = Device {
            id: DeviceId(format!("{name}#1")),
            port: name.into(),
            model: "Test".into(),
            usb_serial: None,
            connector: Arc::new(connector),
        };
        self.station.tell(|station| station.hotplug(Event::Plugged(device)));
    }

    /// Waits for an output that `find` takes.
    async fn until<T>(&mut self, find: impl Fn(Output) -> Option<T>) -> T {
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

fn key(output: Output) -> Option<(String, KeyView)> {
    match output {
        Output::Key(label, view) => Some((label, *view)),
        _ => None,
    }
}

/// A blank token that another program holds until it is told not to.
struct Held {
    released: Mutex<mpsc::Receiver<()>>,
    is_free: AtomicBool,
}

impl Connector for Held {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        if self.is_free.load(Ordering::SeqCst) {
            return Ok(Box::new(Blank));
        }
        Err(TransportError::Busy { holder: "pcscd".into() })
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        // It is let go, taken again before it is looked at, and let go for good.
        let released = self.released.lock().unwrap().recv_timeout(PATIENCE).is_ok();
        self.is_free.store(attempts > 0, Ordering::SeqCst);
        released
    }
}

/// A blank token.
struct Blank;

impl Transport for Blank {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let select = command[1] == 0xA4;
        Ok(if select { vec![0x90, 0] } else { vec![0x6A, 0x82] })
    }

    fn limits(&self) -> Limits {
        Limits { extended: true, longest_command: 3072 }
    }
}

struct Free;

impl Connector for Free {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(Blank))
    }
}

#[tokio::test]
async fn a_key_that_another_program_holds_is_taken_up_again_when_it_lets_go() {
    let mut bench = Bench::start();
    let (release, released) = mpsc::channel();
    bench.plug("test", Held { released: Mutex::new(released), is_free: AtomicBool::new(false) });
    // In either order: what the look found, and that it has ended and the daemon must stay, for what is waited for.
    let (shown, stays) = (Cell::new(None), Cell::new(false));
    let found = bench.until(|output| {
        match output {
            Output::Activity(activity) => stays.set(activity.needed && !activity.working),
            output => shown.set(key(output).or(shown.take())),
        }
        if stays.get() { shown.take() } else { None }
    });
    let (label, view) = found.await;
    assert_eq!((view.state, view.present), ("unusable", true));
    let trouble = view.trouble.unwrap();
    assert_eq!((trouble.error, trouble.holder.as_deref()), (ErrorName::KeyBusy, Some("pcscd")));
    assert!(trouble.text.contains("pcscd"), "{}", trouble.text);

    release.send(()).unwrap();
    release.send(()).unwrap();
    let (again, view) = bench.until(key).await;
    assert_eq!((view.state, view.trouble), ("blank", None));
    assert_eq!(again, label, "its path stays");
}

/// A blank token that cannot be asked at first, because of what other programs do.
struct Disturbed {
    by: Mutex<Vec<TransportError>>,
    waited: Arc<Mutex<Vec<u32>>>,
}

impl Connector for Disturbed {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.by.lock().unwrap().pop().map_or_else(|| Ok(Box::new(Blank) as _), Err)
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        self.waited.lock().unwrap().push(attempts);
        true
    }
}

#[tokio::test]
async fn a_key_whose_pcscd_ended_or_that_was_reset_is_looked_at_again() {
    let mut bench = Bench::start();
    let waited = Arc::<Mutex<Vec<u32>>>::default();
    let by = Mutex::new(vec![TransportError::Reset, TransportError::ServiceGone]);
    bench.plug("test", Disturbed { by, waited: waited.clone() });
    let (label, view) = bench.until(key).await;
    assert_eq!((view.state, view.present), ("unusable", true));
    let trouble = view.trouble.unwrap();
    assert_eq!((trouble.error, trouble.holder), (ErrorName::TokenFailed, None));
    assert!(trouble.text.contains("pcscd") && trouble.text.contains("again"), "{}", trouble.text);
    let blank = |output| key(output).filter(|(_, view)| view.state == "blank");
    let (again, view) = bench.until(blank).await;
    assert_eq!((again, view.trouble), (label, None), "its path stays");
    assert_eq!(*waited.lock().unwrap(), [0, 1], "ever more seldom");
}

/// A blank token that another program takes again each time before it is looked at, for some seconds of the clock.
struct Contended {
    until: u64,
    looks: Arc<AtomicU32>,
}

impl Connector for Contended {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if unix_seconds() < self.until {
            return Err(TransportError::Busy { holder: "pcscd".into() });
        }
        Ok(Box::new(Blank))
    }

    fn wait_until_free(&self, _: u32) -> bool {
        true
    }
}

#[tokio::test]
async fn however_often_a_key_is_looked_at_in_vain_it_is_told_once_and_not_forgotten() {
    let mut bench = Bench::start();
    let looks = Arc::<AtomicU32>::default();
    bench.plug("test", Contended { until: unix_seconds() + 2, looks: looks.clone() });
    let (_, view) = bench.until(key).await;
    assert_eq!(view.state, "unusable");
    let (_, view) = bench.until(key).await;
    assert_eq!((view.state, view.trouble), ("blank", None), "the next that is told of it");
    assert!(looks.load(Ordering::SeqCst) > 10, "a look may overlap the end of the one before");
}

/// A token that does not answer before it is told to.
struct Silent(Mutex<mpsc::Receiver<()>>);

impl Connector for Silent {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let _ = self.0.lock().unwrap().recv();
        Err(TransportError::Timeout)
    }
}

#[tokio::test]
async fn a_silent_token_does_not_hold_up_the_others() {
    let mut bench = Bench::start();
    let (answer, answered) = mpsc::channel();
    bench.plug("silent", Silent(Mutex::new(answered)));
    bench.plug("one", Free);
    bench.plug("two", Free);
    let decided =
        |output| matches!(output, Output::Decisions(pairs) if pairs.len() == 1).then_some(());
    bench.until(decided).await;
    // Answers after all.
    drop(answer);
    let silent = |output| key(output).filter(|(_, view)| view.port == "silent");
    let (_, view) = bench.until(silent).await;
    assert_eq!(view.state, "unusable");
    assert_eq!(view.trouble.unwrap().error, ErrorName::TokenFailed);
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

/// A station that is told of so many refused calls of a user; the log after that.
fn refuse(registry: &Registry, uid: u32, calls: u32) -> Vec<keywright_proto::audit::Event> {
    let (station, outputs) = Station::start(registry.clone(), Config::default()).unwrap();
    for _ in 0..calls {
        station.tell(move |station| station.refused_call(Some(uid), "org.keywright1.inspect"));
    }
    // What it is told is done in order.
    let (done, is_done) = mpsc::channel();
    station.tell(move |_| done.send(()).unwrap());
    is_done.recv_timeout(PATIENCE).unwrap();
    drop(outputs);
    registry.audit_page(0, 100).unwrap()
}

#[test]
fn nobody_fills_the_disk_with_refused_calls() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::open(&state.path().join("registry")).unwrap();
    let log = refuse(&registry, 7, 10_000);
    assert_eq!(log.len(), 1, "{log:?}");
    let fields = ["action", "calls", "uid"].map(|name| log[0].field(name).unwrap());
    assert_eq!(fields, ["org.keywright1.inspect", "1", "7"]);
    // The daemon ends when nobody needs it, and every call starts it again.
    for _ in 0..5 {
        let again = refuse(&registry, 7, 1);
        assert_eq!(again.len(), 1, "{again:?}");
    }
    assert_eq!(refuse(&registry, 8, 1).len(), 2, "another user is another matter");
}
