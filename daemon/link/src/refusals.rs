//! Counts and logs refused messages, at most one line a minute, so that a hostile broker cannot fill the log.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The least time between two log lines.
const QUIET: Duration = Duration::from_secs(60);

/// The number of refused messages since the last log line, and the time of that line.
#[derive(Default)]
pub struct Refusals(Mutex<(u64, Option<Instant>)>);

impl Refusals {
    /// Counts a refused message; returns whether a line was logged.
    pub fn note(&self, why: &(impl Display + ?Sized)) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (refused, last_logged) = &mut *state;
        *refused += 1;
        let is_due = last_logged.is_none_or(|last| last.elapsed() >= QUIET);
        if is_due {
            *last_logged = Some(Instant::now());
            tracing::warn!(refused, "refused from the link, the last one because: {why}");
            *refused = 0;
        }
        is_due
    }
}
