//! Back-off between retries. No clock and no randomness: the caller passes both.

use std::time::Duration;

/// A back-off: each wait is twice as long as the one before, up to a longest one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackOff {
    first: Duration,
    longest: Duration,
    current: Duration,
}

impl BackOff {
    /// A back-off that starts with the wait `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, current: first }
    }

    /// The present wait.
    pub const fn wait(&self) -> Duration {
        self.current
    }

    /// Doubles the wait, after a failure.
    pub fn lengthen(&mut self) {
        self.current = self.current.saturating_mul(2).min(self.longest);
    }

    /// Starts with the first wait again, after a success.
    pub fn reset(&mut self) {
        self.current = self.first;
    }

    /// The wait after this many failures.
    pub fn after(&self, tries: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(tries)).min(self.longest)
    }
}

/// A wait between half of `wait` and all of it, chosen by `random`, so that many clients do not retry at the same
/// moment.
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
