//! Messages that are not believed: counted, and told of in a line that a hostile broker cannot repeat at will.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A hostile broker must not fill the log: one line in this time.
const QUIET: Duration = Duration::from_secs(60);

/// How many were refused since the last line. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    refused: u64,
    last_told: Option<Instant>,
}

impl Refusals {
    pub(super) fn note(&self, why: &(impl Display + ?Sized)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused += 1;
        if state.last_told.is_none_or(|told| told.elapsed() >= QUIET) {
            state.last_told = Some(Instant::now());
            let refused = std::mem::take(&mut state.refused);
            tracing::warn!(refused, "refused from the link, the last one because: {why}");
        }
    }
}
