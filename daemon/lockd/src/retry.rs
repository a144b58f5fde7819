//! When to retry failed work. It has no clock: the caller passes the time.

use std::time::{Duration, Instant};

use keywright_base::BackOff;

const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(10), Duration::from_secs(900));

/// When to retry failed work.
#[derive(Debug)]
pub struct Retry {
    at: Option<Instant>,
    back_off: BackOff,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: None, back_off: BACK_OFF }
    }
}

impl Retry {
    /// Schedules a retry after a failure.
    pub fn schedule(&mut self, now: Instant) {
        self.at.get_or_insert_with(|| now + self.back_off.wait());
    }

    /// When the next retry is due; `None` if nothing failed.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether a retry is due. It stays due until it is [started](Self::start_try), however long other work takes.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    /// Notes that the retry is made now.
    pub fn start_try(&mut self) {
        if self.at.take().is_some() {
            self.back_off.lengthen();
        }
    }

    /// Notes that everything since the last retry succeeded. A failure before it still has to be retried.
    pub fn succeeded(&mut self) {
        if self.at.is_none() {
            self.back_off.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_work_is_retried_with_back_off_until_it_succeeds() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        retry.succeeded();
        assert_eq!(retry.at(), None);
        retry.schedule(start);
        retry.schedule(second(9));
        assert_eq!(retry.at(), Some(second(10)));
        // Other work succeeds, and takes longer than the wait.
        retry.succeeded();
        assert!(!retry.is_due(second(9)) && retry.is_due(second(60)));
        retry.succeeded();
        assert!(retry.is_due(second(60)));
        // Each wait is longer than the one before.
        let mut waits = Vec::new();
        for _ in 0..8 {
            retry.start_try();
            retry.schedule(start);
            retry.succeeded();
            waits.push((retry.at().unwrap() - start).as_secs());
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 900, 900]);
        retry.start_try();
        retry.succeeded();
        assert_eq!(retry.at(), None);
        retry.schedule(start);
        assert_eq!(retry.at(), Some(second(10)));
    }
}
