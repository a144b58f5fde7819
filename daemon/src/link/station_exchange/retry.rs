//! Retries what failed, with back-off: nothing tells the daemon that a full disk has room again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use keywright_base::BackOff;
use keywright_proto::Id;

/// After how long: the first time, and at most. It is twice as long each time, as the broker sends whole files anew.
const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(60), Duration::from_secs(3600));

/// What is to be retried.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// Families of which a file could not be taken in: the broker is asked for what it keeps of them.
    pub(super) unheard: BTreeSet<Id>,
    /// Families whose own file could not be made.
    pub(super) unsaid: BTreeSet<Id>,
    /// Which families there are could not be read.
    pub(super) unjoined: bool,
}

/// The failed work, with the time of the retry.
pub(super) struct Retry {
    failed: Failed,
    at: Option<Instant>,
    back_off: BackOff,
}

impl Default for Retry {
    fn default() -> Self {
        Self { failed: Failed::default(), at: None, back_off: BACK_OFF }
    }
}

impl Retry {
    /// Notes what failed.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Failed)) {
        note(&mut self.failed);
        self.at.get_or_insert_with(|| Instant::now() + self.back_off.wait());
    }

    /// Something was stored: the others may be, too.
    pub(super) fn worked(&mut self) {
        self.back_off.reset();
        self.at = self.at.map(|at| at.min(Instant::now() + self.back_off.wait()));
    }

    /// How long to wait, where there is something.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What is to be tried now.
    pub(super) fn due(&mut self) -> Option<Failed> {
        self.at.filter(|at| *at <= Instant::now())?;
        self.at = None;
        self.back_off.lengthen();
        Some(std::mem::take(&mut self.failed))
    }
}
