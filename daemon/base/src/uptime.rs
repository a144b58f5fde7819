//! Uptime: time that has certainly passed while this machine was up, whatever its wall clock says.
//!
//! Setting a clock must not end the delay of a revocation. A machine without a battery starts in 1970 and is set years
//! ahead a minute later; one that was off may have any time. So the delay is counted in uptime, which is added up
//! over reboots from the boot-time clock that nobody can set. Time while the machine is off is not counted, so a
//! delay can only end later.
//!
//! The process need not run meanwhile: what the machine was up since the file was written counts too, if it is certain.
//!
//! The file (its format is stable; a Lock's is called `lived.cbor`):
//!
//! ```cddl
//! lived = [1, uptime: uint, up: uint]
//! ```
//! in CBOR, followed by its SHA-256; both in milliseconds. `up` is the boot-time clock at that uptime. The file is
//! written once an hour while a delay runs: at most that hour is lost at a power cut.

use std::{
    io,
    path::{Path, PathBuf},
};

use minicbor::{Decoder, Encoder};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::files::{self, Readers};

const FILE: &str = "lived.cbor";
const VERSION: u8 = 1;
const LONGEST: usize = 128;
/// How often the file is written while a delay runs, in milliseconds.
pub const SAVE_EVERY_MS: u64 = 3_600_000;

/// The uptime of this machine, as far as it is known.
#[derive(Debug)]
pub struct Uptime {
    path: PathBuf,
    /// Uptime counted so far, as of boot-time clock `up`.
    uptime: u64,
    up: u64,
    /// The uptime that this process has saved last.
    saved: Option<u64>,
}

impl Uptime {
    /// Reads the uptime that a Lock saved in its state directory; a missing or damaged file counts as zero.
    pub fn open(state: &Path) -> Self {
        Self::open_file(state.join(FILE))
    }

    /// Reads the uptime that was saved in a file; a missing or damaged one counts as zero.
    pub fn open_file(path: PathBuf) -> Self {
        Self::open_at(path, up())
    }

    fn open_at(path: PathBuf, up: u64) -> Self {
        let known = files::read(&path, LONGEST).ok().and_then(|bytes| decode(&bytes));
        let uptime = known.map_or(0, |(uptime, then)| uptime.saturating_add(since(then, up)));
        Self { path, uptime, up, saved: None }
    }

    /// The uptime now in milliseconds. It never decreases.
    pub fn now(&self) -> u64 {
        self.at(up())
    }

    fn at(&self, up: u64) -> u64 {
        self.uptime.saturating_add(up.saturating_sub(self.up))
    }

    /// Raises the uptime to that of a record: the machine was up at least that long when the record was written.
    pub fn raise_to(&mut self, uptime: u64) {
        let up = up();
        if self.at(up) < uptime {
            (self.uptime, self.up) = (uptime, up);
        }
    }

    /// The file in which it is saved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the uptime, unless it was saved less than [`SAVE_EVERY_MS`] ago.
    ///
    /// # Errors
    /// The operating system refuses; less uptime is counted after the next start.
    pub fn save(&mut self) -> io::Result<()> {
        let (up, now) = (up(), self.now());
        if self.saved.is_some_and(|saved| now < saved.saturating_add(SAVE_EVERY_MS)) {
            return Ok(());
        }
        files::replace(&self.path, &encode(now, up), Readers::Owner)?;
        self.saved = Some(now);
        Ok(())
    }
}

/// The least time that has passed between two readings of the boot-time clock, of the same boot or a later one.
const fn since(then: u64, now: u64) -> u64 {
    if now >= then { now - then } else { now }
}

/// The boot-time clock in milliseconds; it includes suspend.
fn up() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let millis = u64::try_from(time.tv_sec).unwrap_or_default().saturating_mul(1_000);
    millis.saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000)
}

fn encode(uptime: u64, up: u64) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    // Writing to a Vec cannot fail.
    let _ = e
        .array(3)
        .and_then(|e| e.u8(VERSION))
        .and_then(|e| e.u64(uptime))
        .and_then(|e| e.u64(up))
        .map(drop);
    let mut bytes = e.into_writer();
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut d = Decoder::new(bytes);
    (d.array().ok()? == Some(3) && d.u8().ok()? == VERSION).then_some(())?;
    let (uptime, up) = (d.u64().ok()?, d.u64().ok()?);
    (encode(uptime, up) == bytes).then_some((uptime, up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_file_round_trips_and_any_flipped_bit_is_rejected() {
        let bytes = encode(1 << 40, 7);
        assert_eq!(decode(&bytes), Some((1 << 40, 7)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(decode(b""), None);
    }

    /// Over several processes and reboots.
    #[test]
    fn uptime_never_exceeds_the_time_passed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Uptime::open_at(dir.path().join(FILE), 500).at(700), 200);
        for (uptime, then, up, counted) in [
            // The same boot.
            (200, 700, 900, 400),
            (200, 700, 700, 200),
            // A later boot, after any time off.
            (200, 700, 0, 200),
            (200, 700, 100, 300),
            (u64::MAX, 0, 9, u64::MAX),
        ] {
            std::fs::write(dir.path().join(FILE), encode(uptime, then)).unwrap();
            assert_eq!(Uptime::open_at(dir.path().join(FILE), up).at(up), counted);
        }
    }

    #[test]
    fn uptime_is_saved_at_most_once_per_interval() {
        let dir = tempfile::tempdir().unwrap();
        let mut uptime = Uptime::open(dir.path());
        uptime.raise_to(1 << 40);
        uptime.save().unwrap();
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        uptime.save().unwrap();
        assert!(!dir.path().join(FILE).exists());
        uptime.raise_to((1 << 40) + 2 * SAVE_EVERY_MS);
        uptime.save().unwrap();
        assert!(Uptime::open(dir.path()).now() >= (1 << 40) + 2 * SAVE_EVERY_MS);
    }
}
