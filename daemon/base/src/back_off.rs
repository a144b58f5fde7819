//! How long to wait before something is tried again. No clock and no randomness: the caller has them.

use std::time::Duration;

/// Waits between tries: the first one, then twice as long each time, up to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
    current: Duration,
}

impl BackOff {
    /// Before the first wait.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, current: first }
    }

    /// How long to wait now.
    pub const fn wait(&self) -> Duration {
        self.current
    }

    /// Makes the next wait longer, because a try was made.
    pub fn lengthen(&mut self) {
        self.current = self.current.saturating_mul(2).min(self.longest);
    }

    /// Begins with the first wait again, because something worked.
    pub fn reset(&mut self) {
        self.current = self.first;
    }

    /// The wait after this many tries.
    pub fn after(&self, tries: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(tries)).min(self.longest)
    }
}

/// From half of this wait to all of it, as `random` says: so that many who wait alike do not come back at the same moment.
pub fn jitter(wait: Duration, random: u64) -> Duration {
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(wait / 2 + random % (wait / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_doubles_up_to_the_longest() {
        let mut back_off = BackOff::new(Duration::from_secs(10), Duration::from_secs(900));
        let mut waits = Vec::new();
        for tries in 0..9 {
            assert_eq!(back_off.wait(), back_off.after(tries));
            waits.push(back_off.wait().as_secs());
            back_off.lengthen();
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 900, 900]);
        back_off.reset();
        assert_eq!(back_off.wait().as_secs(), 10);
        assert_eq!(back_off.after(u32::MAX).as_secs(), 900);
    }

    #[test]
    fn wait_with_jitter_is_between_half_and_all() {
        let wait = Duration::from_millis(1_001);
        for random in [0, 1, 499, 500, 501, 502, u64::MAX] {
            assert!((500..=1_000).contains(&jitter(wait, random).as_millis()), "{random}");
        }
        assert_eq!(jitter(Duration::ZERO, 7), Duration::ZERO);
    }
}
