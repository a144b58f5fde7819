//! When to try again what did not work. No clock: the caller says what time it is.

use std::time::{Duration, Instant};

/// The first and the longest wait.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(900);

/// When to try again what did not work.
#[derive(Debug, Default)]
pub struct Retry {
    /// When, and how long that was waited for.
    next: Option<(Instant, Duration)>,
    /// How long the last try was waited for, while nothing else has succeeded.
    waited: Option<Duration>,
}

impl Retry {
    /// Something did not work.
    pub fn again(&mut self, now: Instant) {
        if self.next.is_none() {
            let wait = self.waited.map_or(FIRST, |waited| (waited * 2).min(LONGEST));
            self.next = Some((now + wait, wait));
        }
    }

    /// When the next try is due; none where everything works.
    pub fn at(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Whether it is due now. It stays due until it is [tried](Self::trying), whatever else takes its time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    /// It is tried now.
    pub fn trying(&mut self) {
        if let Some((_, wait)) = self.next.take() {
            self.waited = Some(wait);
        }
    }

    /// All that was done since went well; what has failed before is still to be tried.
    pub fn went_well(&mut self) {
        if self.next.is_none() {
            self.waited = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_until_it_works() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        retry.went_well();
        assert_eq!(retry.at(), None);
        retry.again(start);
        retry.again(second(9));
        assert_eq!(retry.at(), Some(second(10)));
        // Something else goes well, and takes longer than until then.
        retry.went_well();
        assert!(!retry.is_due(second(9)) && retry.is_due(second(60)));
        retry.went_well();
        assert!(retry.is_due(second(60)));
        // Each wait is longer than the one before.
        let mut waits = Vec::new();
        for _ in 0..8 {
            retry.trying();
            retry.again(start);
            retry.went_well();
            waits.push((retry.at().unwrap() - start).as_secs());
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 900, 900]);
        retry.trying();
        retry.went_well();
        assert_eq!(retry.at(), None);
        retry.again(start);
        assert_eq!(retry.at(), Some(second(10)));
    }
}
