//! A token that another program has claimed: waiting until it is let go.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

/// After a close of the node: the kernel tells of it before it gives the interface back.
const SOON: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(120),
    Duration::from_millis(600),
];
/// A program may give an interface back and keep the node open, of which nothing tells: so it is looked at anew after
/// one second, two, four and so on, and at last once a minute. A look reads one link in sysfs and does not disturb.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(60);

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody holds the token any more.
    Released,
    /// The token was pulled out.
    Gone,
}

/// Blocks until nobody has claimed an interface: `node` is its device's node in /dev, `interface` its directory in
/// sysfs.
///
/// # Errors
/// The node cannot be watched.
pub fn wait_until_free(node: &Path, interface: &Path) -> io::Result<Claim> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::DELETE_SELF;
    match inotify::add_watch(&watch, node, flags) {
        Err(rustix::io::Errno::NOENT) => return Ok(Claim::Gone),
        added => added?,
    };
    let mut pause = FIRST_LOOK;
    loop {
        if let Some(ended) = ended(node, interface) {
            return Ok(ended);
        }
        let timeout = Timespec::try_from(pause).map_err(io::Error::other)?;
        let mut closed = [PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut closed, Some(&timeout)) {
            Ok(0) => pause = (pause * 2).min(LAST_LOOK),
            Ok(_) => {
                drain(&watch);
                for pause in SOON {
                    if let Some(ended) = ended(node, interface) {
                        return Ok(ended);
                    }
                    thread::sleep(pause);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long to wait before a token is tried again that was said to be busy although nobody had claimed it, and was so
/// this many times before.
pub fn back_off(attempts: u32) -> Duration {
    FIRST_LOOK.saturating_mul(2_u32.saturating_pow(attempts)).min(LAST_LOOK)
}

fn ended(node: &Path, interface: &Path) -> Option<Claim> {
    if !node.exists() || !interface.exists() {
        return Some(Claim::Gone);
    }
    // Whoever claims an interface through usbfs is its driver.
    (!is_claimed(interface)).then_some(Claim::Released)
}

/// Whether some program, or a driver, has this interface.
pub fn is_claimed(interface: &Path) -> bool {
    interface.join("driver").symlink_metadata().is_ok()
}

/// Which close it was, and how many, does not matter.
fn drain(watch: &rustix::fd::OwnedFd) {
    let mut buffer = [0; 1024];
    while rustix::io::read(watch, &mut buffer).is_ok_and(|read| read > 0) {}
}

/// Where the node of a USB device is.
pub fn node(bus: u8, device: u8) -> PathBuf {
    PathBuf::from(format!("/dev/bus/usb/{bus:03}/{device:03}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::mpsc};

    use super::*;

    struct Bed {
        directory: tempfile::TempDir,
        holder: fs::File,
    }

    impl Bed {
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

        fn wait(&self) -> mpsc::Receiver<Claim> {
            let (sender, ended) = mpsc::channel();
            let (node, interface) = (self.path("node"), self.path("interface"));
            thread::spawn(move || {
                sender.send(wait_until_free(&node, &interface).unwrap()).unwrap();
            });
            ended
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_close_is_heard_of_and_the_claim_is_looked_at() {
        let bed = Bed::new();
        let ended = bed.wait();
        // Somebody else comes and goes; the claim stays.
        drop(fs::File::options().write(true).open(bed.path("node")).unwrap());
        assert_eq!(
            ended.recv_timeout(Duration::from_millis(50)),
            Err(mpsc::RecvTimeoutError::Timeout)
        );
        // As the kernel does it: the close is told, then the interface is given back.
        let driver = bed.path("interface/driver");
        drop(bed.holder);
        fs::remove_file(driver).unwrap();
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(Claim::Released));
    }

    #[test]
    fn an_interface_given_back_without_a_close_is_noticed_later() {
        let bed = Bed::new();
        let ended = bed.wait();
        fs::remove_file(bed.path("interface/driver")).unwrap();
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(Claim::Released));
    }

    #[test]
    fn a_token_that_is_pulled_out_is_gone() {
        let bed = Bed::new();
        let ended = bed.wait();
        fs::remove_file(bed.path("node")).unwrap();
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(Claim::Gone));
        assert_eq!(
            wait_until_free(&bed.path("node"), &bed.path("interface")).unwrap(),
            Claim::Gone
        );
    }

    #[test]
    fn the_back_off_is_bounded() {
        let seconds: Vec<u64> = (0..9).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(back_off(u32::MAX), LAST_LOOK);
    }
}
