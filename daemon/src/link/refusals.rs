//! Messages that are not believed: counted, and told of in a line that a hostile broker cannot repeat at will. The log of
//! security-relevant events has them, too, more seldom still.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::station::{Brought, Handle};

/// A hostile broker must not fill the log: one line in this time.
const QUIET: Duration = Duration::from_secs(60);

/// How many were refused since the last line. Clones count together.
#[derive(Clone)]
pub(super) struct Refusals {
    state: Arc<Mutex<State>>,
    station: Handle,
}

#[derive(Default)]
struct State {
    refused: u64,
    last_told: Option<Instant>,
}

impl Refusals {
    pub(super) fn new(station: Handle) -> Self {
        Self { state: Arc::default(), station }
    }

    pub(super) fn note(&self, why: &(impl Display + ?Sized)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refused += 1;
        if state.last_told.is_none_or(|told| told.elapsed() >= QUIET) {
            state.last_told = Some(Instant::now());
            let refused = std::mem::take(&mut state.refused);
            tracing::warn!(refused, "refused from the link, the last one because: {why}");
            self.station.tell(|station| station.refused_papers(None, Brought::Link));
        }
    }
}
