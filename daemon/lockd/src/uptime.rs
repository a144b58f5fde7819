//! How long this Lock has uptime: time that passed while its machine was up, whatever its clock says.
//!
//! Nobody may end the delay of a revocation by setting a clock. A Lock without a battery starts in 1970 and is set years
//! ahead a minute later; one that was off may have any time. So the delay is counted in what is certain to have passed:
//! the time since the machine's start, which nobody can set, and never more than that. What passes while the machine is
//! off is not counted, and the delay ends later for it.
//!
//! ```cddl
//! uptime = [1, uptime: uint, up: uint]
//! ```
//! in CBOR, and SHA-256 over that; both in milliseconds. It is written while something waits, now and then: what passed
//! since is lost at a power cut.

use std::path::{Path, PathBuf};

use minicbor::{Decoder, Encoder};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    files::{self, Readers},
};

const FILE: &str = "lived.cbor";
const VERSION: u8 = 1;
const LONGEST: usize = 128;
/// How often it is written while something waits, in milliseconds.
pub const SAVE_EVERY_MS: u64 = 3_600_000;

/// How long this Lock has uptime.
#[derive(Debug)]
pub struct Uptime {
    path: PathBuf,
    /// So much at the time of `up`, the machine's time since its start.
    uptime: u64,
    up: u64,
    /// What was written last by this process.
    saved: Option<u64>,
}

impl Uptime {
    /// Reads it; what cannot be read is not counted.
    pub fn open(state: &Path) -> Self {
        Self::open_at(state, up())
    }

    fn open_at(state: &Path, up: u64) -> Self {
        let path = state.join(FILE);
        let known = files::read(&path, LONGEST).ok().and_then(|bytes| decode(&bytes));
        let uptime = known.map_or(0, |(uptime, then)| uptime.saturating_add(since(then, up)));
        Self { path, uptime, up, saved: None }
    }

    /// Milliseconds, never less than before.
    pub fn now(&self) -> u64 {
        self.at(up())
    }

    fn at(&self, up: u64) -> u64 {
        self.uptime.saturating_add(up.saturating_sub(self.up))
    }

    /// It has uptime at least as long as this: something was noted then.
    pub fn raise_to(&mut self, uptime: u64) {
        let up = up();
        if self.at(up) < uptime {
            (self.uptime, self.up) = (uptime, up);
        }
    }

    /// Writes it, unless that was done not long ago.
    ///
    /// # Errors
    /// The operating system refuses; less is counted after the next start.
    pub fn save(&mut self) -> Result<(), Error> {
        let (up, now) = (up(), self.now());
        if self.saved.is_some_and(|saved| now < saved.saturating_add(SAVE_EVERY_MS)) {
            return Ok(());
        }
        files::replace(&self.path, &encode(now, up), Readers::Owner)
            .map_err(Error::file(&self.path))?;
        self.saved = Some(now);
        Ok(())
    }
}

/// What has passed for certain since the machine was up for `then`: it is up for `now`, since the same start or a later one.
const fn since(then: u64, now: u64) -> u64 {
    if now >= then { now - then } else { now }
}

/// Milliseconds since the machine's start, with those that it slept.
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

    /// Never more than has passed: a process after the other, and starts of the machine between them.
    #[test]
    fn uptime_never_exceeds_the_time_passed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Uptime::open_at(dir.path(), 500).at(700), 200);
        for (uptime, then, up, counted) in [
            // The same start of the machine.
            (200, 700, 900, 400),
            (200, 700, 700, 200),
            // Another one, after any time that it was off.
            (200, 700, 0, 200),
            (200, 700, 100, 300),
            (u64::MAX, 0, 9, u64::MAX),
        ] {
            std::fs::write(dir.path().join(FILE), encode(uptime, then)).unwrap();
            assert_eq!(Uptime::open_at(dir.path(), up).at(up), counted);
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
