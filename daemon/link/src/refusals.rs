//! What is refused from the link: counted, and logged in a line that a hostile broker cannot repeat at will.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A hostile broker must not fill the log: one line in this time.
const QUIET: Duration = Duration::from_secs(60);

/// How many messages were refused since the last line, and when that was.
#[derive(Default)]
pub struct Refusals(Mutex<(u64, Option<Instant>)>);

impl Refusals {
    /// Counts one more; answers whether a line was logged.
    pub fn note(&self, why: &(impl Display + ?Sized)) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (refused, last_told) = &mut *state;
        *refused += 1;
        let is_told = last_told.is_none_or(|told| told.elapsed() >= QUIET);
        if is_told {
            *last_told = Some(Instant::now());
            tracing::warn!(refused, "refused from the link, the last one because: {why}");
            *refused = 0;
        }
        is_told
    }
}
