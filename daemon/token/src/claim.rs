//! A token that another program has claimed: waiting until it is let go.

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

/// How often it is looked whether a token is free. A look reads one link in sysfs and does not disturb.
struct PollIntervals {
    /// After a close of the node: the kernel tells of it before it gives the interface back.
    after_close: [Duration; 4],
    /// A program may give an interface back and keep the node open, of which nothing tells: so it is looked at anew after
    /// this time, twice it, and so on, and at last once in every `last`.
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

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody holds the token any more.
    Released,
    /// Somebody may hold it still: it was waited for as long as was allowed.
    Unknown,
    /// The token was pulled out.
    Gone,
}

/// Blocks until whoever has claimed an interface lets it go: `node` is its device's node in /dev, `interface` its
/// directory in sysfs. Waits no longer than `at_most`, where that is given; then an interface that nobody has claimed
/// counts as let go only after somebody has.
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

/// Hears of it when a program closes this node, and when the node goes.
fn watch(node: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, node, flags)?;
    Ok(watch)
}

/// A token that somebody may have.
struct ClaimedToken<'a> {
    node: &'a Path,
    interface: &'a Path,
    /// None where nothing can be watched.
    watch: Option<OwnedFd>,
    was_claimed: bool,
}

impl ClaimedToken<'_> {
    /// A look.
    fn check(&mut self) -> Option<Claim> {
        if !self.node.exists() || !self.interface.exists() {
            return Some(Claim::Gone);
        }
        let is_claimed = is_claimed(self.interface);
        self.was_claimed |= is_claimed;
        (self.was_claimed && !is_claimed).then_some(Claim::Released)
    }

    /// Waits for what comes after a look.
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
            // What it says is no close.
            Ok(_) | Err(_) => {}
        }
    }
    thread::sleep(timeout.saturating_sub(asked.elapsed()));
    false
}

/// How long to wait before a token is tried again that was said to be busy although nobody had claimed it, and was so
/// this many times before.
pub fn back_off(attempts: u32) -> Duration {
    BackOff::new(POLL_INTERVALS.first, POLL_INTERVALS.last).after(attempts)
}

/// Whether some program, or a driver, has this interface. Whoever claims it through usbfs is its driver.
pub fn is_claimed(interface: &Path) -> bool {
    interface.join("driver").symlink_metadata().is_ok()
}

/// Whether there was any; which close it was, and how many, does not matter.
fn drain(watch: &OwnedFd) -> bool {
    let (mut buffer, mut any) = ([0; 1024], false);
    while rustix::io::read(watch, &mut buffer).is_ok_and(|read| read > 0) {
        any = true;
    }
    any
}

/// Where the node of a USB device is.
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
        /// A node that somebody holds open, and an interface that is claimed.
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

        /// Waits at these intervals, without_watch or not. From its return on nothing is looked at but at these intervals.
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
    /// Nobody who waits at these intervals would see it in time.
    const NEVER: PollIntervals = PollIntervals { first: HOURS, last: HOURS, ..POLL_INTERVALS };
    const OFTEN: PollIntervals = PollIntervals { first: MOMENT, last: MOMENT, ..POLL_INTERVALS };
    /// With a limit and without: where pcscd may have it, and where another program has.
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
        // The last look after a close is the one that counts, however busy this machine is.
        let after_close = [MOMENT, MOMENT, MOMENT, Duration::from_secs(2)];
        let ended = device.wait(false, PollIntervals { after_close, ..NEVER }, None);
        // Somebody else comes and goes; the claim stays.
        drop(fs::File::options().write(true).open(device.path("node")).unwrap());
        assert_eq!(ended.recv_timeout(MOMENT), Err(mpsc::RecvTimeoutError::Timeout));
        // As the kernel does it.
        let driver = device.path("interface/driver");
        drop(device.holder);
        fs::remove_file(driver).unwrap();
        assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Claim::Released));
    }

    #[test]
    fn interface_released_without_a_close_is_polled() {
        // Nothing is told, or nothing can be watched.
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
        // One that was let go before it was waited for is free, and not waited for.
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
            // The kernel forgets a node when the last program has closed it.
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
