//! Waits until another program releases the USB interface of a token.
//!
//! inotify reports when a program closes the device node. A program may also release the interface without closing the
//! node, which nothing reports; so the interface is polled too, ever more seldom.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use keywright_base::BackOff;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::inotify,
    io::Errno,
};

/// When to check whether an interface is free. A check reads one link in sysfs and does not disturb the token.
struct PollIntervals {
    /// The pauses before each check after the node was closed: the kernel reports the close before it releases the
    /// interface.
    after_close: [Duration; 4],
    /// The first interval of polling; it doubles each time, up to `last`.
    first: Duration,
    last: Duration,
}

const POLL_INTERVALS: PollIntervals = PollIntervals {
    after_close: [
        Duration::from_millis(5),
        Duration::from_millis(25),
        Duration::from_millis(120),
        Duration::from_millis(600),
    ],
    first: Duration::from_secs(1),
    last: Duration::from_secs(60),
};

/// How the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// No program holds the token any more.
    Released,
    /// The time limit passed; a program may still hold the token.
    Unknown,
    /// The token was unplugged.
    Gone,
}

/// Blocks until the program that claimed an interface releases it.
///
/// `node` is the device's node in /dev, `interface` the interface's directory in sysfs. With `at_most`, the wait ends
/// after that time, and an interface that nobody has claimed yet counts as released only after it was claimed once.
pub fn wait_until_free(node: &Path, interface: &Path, at_most: Option<Duration>) -> Claim {
    let watch = watch(node).inspect_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, ?node, "closes of a token's node cannot be watched; polling instead");
        }
    });
    let mut token =
        ClaimedToken { node, interface, watch: watch.ok(), was_claimed: at_most.is_none() };
    token.check().unwrap_or_else(|| token.wait(&POLL_INTERVALS, at_most))
}

/// Watches a device node for programs that close it and for its removal.
fn watch(node: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, node, flags)?;
    Ok(watch)
}

/// A token that another program may have claimed.
struct ClaimedToken<'a> {
    node: &'a Path,
    interface: &'a Path,
    /// `None` if the node cannot be watched.
    watch: Option<OwnedFd>,
    was_claimed: bool,
}

impl ClaimedToken<'_> {
    /// Checks once whether the wait is over.
    fn check(&mut self) -> Option<Claim> {
        if !self.node.exists() || !self.interface.exists() {
            return Some(Claim::Gone);
        }
        let is_claimed = is_claimed(self.interface);
        self.was_claimed |= is_claimed;
        (self.was_claimed && !is_claimed).then_some(Claim::Released)
    }

    /// Waits until a later check succeeds or the time limit passes.
    fn wait(&mut self, intervals: &PollIntervals, at_most: Option<Duration>) -> Claim {
        let deadline = at_most.map(|at_most| Instant::now() + at_most);
        let mut back_off = BackOff::new(intervals.first, intervals.last);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Claim::Unknown;
            }
            let closed = wait_for_close(self.watch.as_ref(), left.unwrap_or(back_off.wait()));
            if let Some(ended) = self.check() {
                return ended;
            }
            if !closed {
                back_off.lengthen();
                continue;
            }
            for pause in intervals.after_close {
                thread::sleep(pause);
                if let Some(ended) = self.check() {
                    return ended;
                }
            }
        }
    }
}

/// Waits for a close of the node; false if none happened within `timeout`, or if there is no watch.
fn wait_for_close(watch: Option<&OwnedFd>, timeout: Duration) -> bool {
    let asked = Instant::now();
    if let (Some(watch), Ok(timeout)) = (watch, Timespec::try_from(timeout)) {
        match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return false,
            Ok(_) if drain(watch) => return true,
            // The event was not a close.
            Ok(_) | Err(_) => {}
        }
    }
    thread::sleep(timeout.saturating_sub(asked.elapsed()));
    false
}

/// How long to wait before trying again to open a token that was busy although no program had claimed it. `attempts` is
/// the number of earlier waits.
pub fn back_off(attempts: u32) -> Duration {
    BackOff::new(POLL_INTERVALS.first, POLL_INTERVALS.last).after(attempts)
}

/// Whether a program or driver has claimed this interface. A program that claims it through usbfs appears as the driver.
pub fn is_claimed(interface: &Path) -> bool {
    interface.join("driver").symlink_metadata().is_ok()
}

/// Discards all pending events and returns whether there were any.
fn drain(watch: &OwnedFd) -> bool {
    let (mut buffer, mut any) = ([0; 1024], false);
    while rustix::io::read(watch, &mut buffer).is_ok_and(|read| read > 0) {
        any = true;
    }
    any
}

/// Returns the path of a USB device's node.
pub fn node(bus: u8, device: u8) -> PathBuf {
    PathBuf::from(format!("/dev/bus/usb/{bus:03}/{device:03}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::mpsc};

    use super::*;

    struct FakeDevice {
        directory: tempfile::TempDir,
        holder: fs::File,
    }

    impl FakeDevice {
        /// A node that is held open, and an interface that is claimed.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let holder = fs::File::create(directory.path().join("node")).unwrap();
            fs::create_dir(directory.path().join("interface")).unwrap();
            symlink("../usbfs", directory.path().join("interface/driver")).unwrap();
            Self { directory, holder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// Starts a wait with these intervals, with or without a watch. After it returns, checks happen only as the
        /// intervals say.
        fn wait(
            &self,
            without_watch: bool,
            intervals: PollIntervals,
            at_most: Option<Duration>,
        ) -> mpsc::Receiver<Claim> {
            let (sender, ended) = mpsc::channel();
            let (node, interface) = (self.path("node"), self.path("interface"));
            let watch = (!without_watch).then(|| watch(&node).unwrap());
            let was_claimed = is_claimed(&interface);
            thread::spawn(move || {
                let mut token =
                    ClaimedToken { node: &node, interface: &interface, watch, was_claimed };
                sender.send(token.wait(&intervals, at_most)).unwrap();
            });
            ended
        }

        fn let_go(&self) {
            fs::remove_file(self.path("interface/driver")).unwrap();
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(60);
    const HOURS: Duration = Duration::from_secs(10_000);
    const MOMENT: Duration = Duration::from_millis(10);
    /// Polling that never notices anything within the test.
    const NEVER: PollIntervals = PollIntervals { first: HOURS, last: HOURS, ..POLL_INTERVALS };
    const OFTEN: PollIntervals = PollIntervals { first: MOMENT, last: MOMENT, ..POLL_INTERVALS };
    /// Without a limit (another program holds the token), and with one (pcscd may hold it).
    const LIMITS: [Option<Duration>; 2] = [None, Some(HOURS)];

    #[test]
    fn closing_the_node_ends_the_wait() {
        for at_most in LIMITS {
            let device = FakeDevice::new();
            let ended = device.wait(false, NEVER, at_most);
            device.let_go();
            drop(device.holder);
            assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Claim::Released), "{at_most:?}");
        }
    }

    #[test]
    fn interface_released_shortly_after_a_close_is_noticed() {
        let device = FakeDevice::new();
        // The last pause is long enough for a busy machine.
        let after_close = [MOMENT, MOMENT, MOMENT, Duration::from_secs(2)];
        let ended = device.wait(false, PollIntervals { after_close, ..NEVER }, None);
        // Another program opens and closes the node; the claim stays.
        drop(fs::File::options().write(true).open(device.path("node")).unwrap());
        assert_eq!(ended.recv_timeout(MOMENT), Err(mpsc::RecvTimeoutError::Timeout));
        // In the order of the kernel.
        let driver = device.path("interface/driver");
        drop(device.holder);
        fs::remove_file(driver).unwrap();
        assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Claim::Released));
    }

    #[test]
    fn interface_released_without_a_close_is_polled() {
        // With a watch that reports nothing, and without one.
        for without_watch in [false, true] {
            let device = FakeDevice::new();
            let ended = device.wait(without_watch, OFTEN, None);
            device.let_go();
            assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Claim::Released), "{without_watch}");
        }
    }

    #[test]
    fn wait_ends_at_its_limit() {
        for (without_watch, claimed) in [(false, true), (true, true), (false, false), (true, false)]
        {
            let device = FakeDevice::new();
            if !claimed {
                device.let_go();
            }
            let ended = device.wait(without_watch, NEVER, Some(MOMENT));
            assert_eq!(
                ended.recv_timeout(TIMEOUT),
                Ok(Claim::Unknown),
                "{without_watch} {claimed}"
            );
        }
        // An interface that was released before the wait is free at once.
        let device = FakeDevice::new();
        device.let_go();
        let free = wait_until_free(&device.path("node"), &device.path("interface"), None);
        assert_eq!(free, Claim::Released);
    }

    #[test]
    fn unplugged_token_ends_the_wait() {
        for at_most in LIMITS {
            let device = FakeDevice::new();
            let ended = device.wait(false, NEVER, at_most);
            fs::remove_file(device.path("node")).unwrap();
            // inotify reports the removal when the last program closes the node.
            drop(device.holder);
            assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Claim::Gone), "{at_most:?}");
            let (node, interface) =
                (device.directory.path().join("node"), device.directory.path().join("interface"));
            assert_eq!(wait_until_free(&node, &interface, at_most), Claim::Gone);
        }
    }

    #[test]
    fn back_off_is_bounded() {
        let seconds: Vec<u64> = (0..9).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off(u32::MAX), POLL_INTERVALS.last);
    }
}
