//! Tokens that other programs use, or that are reported unplugged, are probed again until they can be used.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
};

use keywright_base::clock::unix_seconds;
use keywright_proto::ErrorName;
use keywright_token::{Connector, Limits, Transport, TransportError};
use keywrightd::outbox::Output;

use super::bench::{Bench, Blank, PATIENCE, key};

/// A blank token that another program holds until the test releases it.
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
        // It is released, taken again before the next probe, and then released for good.
        let released = self.released.lock().unwrap().recv_timeout(PATIENCE).is_ok();
        self.is_free.store(attempts > 0, Ordering::SeqCst);
        released
    }
}

#[tokio::test]
async fn key_held_by_another_program_is_probed_when_released() {
    let mut bench = Bench::start();
    let (release, released) = mpsc::channel();
    bench.plug("test", Held { released: Mutex::new(released), is_free: AtomicBool::new(false) });
    // In either order: the probe's result, and the activity that keeps the daemon running while it waits for the token.
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

/// A blank token that cannot be probed at first, because other programs disturb it.
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
async fn key_is_probed_again_after_a_reset_or_the_end_of_pcscd() {
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

#[tokio::test]
async fn key_reported_unplugged_but_present_is_probed_again() {
    for (lost, state) in [(2, "blank"), (3, "blank"), (4, "unusable")] {
        let mut bench = Bench::start();
        let waited = Arc::<Mutex<Vec<u32>>>::default();
        let by = Mutex::new(vec![TransportError::Gone; lost]);
        bench.plug("test", Disturbed { by, waited: waited.clone() });
        let (_, view) = bench.until(key).await;
        assert_eq!((view.state, view.present), (state, true), "the first that is shown of it");
        assert_eq!(*waited.lock().unwrap(), [0, 1, 2][..lost.min(3)], "ever more seldom");
    }
}

/// A token that was pulled out while it was opened; the kernel has not reported the unplug yet.
struct Pulled;

impl Connector for Pulled {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        Err(TransportError::Gone)
    }
}

#[tokio::test]
async fn unplugged_key_is_not_waited_for() {
    let mut bench = Bench::start();
    bench.plug("test", Pulled);
    let working = |output| matches!(output, Output::Activity(activity) if activity.working);
    bench.until(|output| working(output).then_some(())).await;
    let ended = bench.until(|output| match output {
        Output::Key(..) => Some(false),
        Output::Activity(activity) => (!activity.needed).then_some(true),
        _ => None,
    });
    assert!(ended.await, "it is not shown");
}

/// A blank token that another program takes again before each probe, until the clock reaches `until`.
struct Contended {
    until: u64,
    probes: Arc<AtomicU32>,
}

impl Connector for Contended {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.probes.fetch_add(1, Ordering::SeqCst);
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
async fn repeated_failed_probes_are_announced_once() {
    let mut bench = Bench::start();
    let probes = Arc::<AtomicU32>::default();
    bench.plug("test", Contended { until: unix_seconds() + 2, probes: probes.clone() });
    let (_, view) = bench.until(key).await;
    assert_eq!(view.state, "unusable");
    let (_, view) = bench.until(key).await;
    assert_eq!((view.state, view.trouble), ("blank", None), "the next that is told of it");
    assert!(probes.load(Ordering::SeqCst) > 10, "a probe may overlap the end of the one before");
}

/// A blank token that can be identified, but whose details cannot be read at first.
struct Reset {
    /// How many commands it answers, for each time that it is opened; afterwards it answers all.
    answers: Mutex<Vec<usize>>,
    waited: Arc<Mutex<Vec<u32>>>,
}

struct Answering(usize);

impl Connector for Reset {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let answers = self.answers.lock().unwrap().pop().unwrap_or(usize::MAX);
        Ok(Box::new(Answering(answers)))
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        self.waited.lock().unwrap().push(attempts);
        true
    }
}

impl Transport for Answering {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.0 = self.0.checked_sub(1).ok_or(TransportError::Reset)?;
        // Three tries are left.
        if command[1] == 0x20 { Ok(vec![0x63, 0xC3]) } else { Blank.transmit(command) }
    }

    fn limits(&self) -> Limits {
        Blank.limits()
    }
}

#[tokio::test]
async fn identified_key_is_probed_again_for_missing_details() {
    let mut bench = Bench::start();
    // SELECT, 9A, 9C and CHUID identify it. Its identity stays, whatever the next probes find.
    let (answers, waited) = (Mutex::new(vec![5, 0, 0, 4]), Arc::<Mutex<Vec<u32>>>::default());
    bench.plug("test", Reset { answers, waited: waited.clone() });
    let (label, view) = bench.until(key).await;
    assert_eq!((view.state, view.pin_retries), ("blank", -1));
    let (again, view) = bench.until(key).await;
    assert_eq!((again, view.state, view.pin_retries), (label, "blank", 3));
    assert_eq!(*waited.lock().unwrap(), [0, 1, 2, 3], "one wait for each look in vain");
}
