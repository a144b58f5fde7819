//! Retries failed imports and exports, with back-off: nothing tells the daemon when a full disk has free space again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use keywright_base::BackOff;
use keywright_proto::Id;

use super::part::File;

/// The first and the longest wait. Each wait is twice the one before, because the broker sends whole files again.
const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(60), Duration::from_secs(3600));

/// The work to retry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// Families whose received file could not be imported. A new subscription makes the broker send it again.
    pub(super) unimported: BTreeSet<Id>,
    /// Own files that could not be exported.
    pub(super) unpublished: BTreeSet<File>,
    /// The list of families could not be read.
    pub(super) unjoined: bool,
}

/// The failed work, and when to retry it.
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
    /// Notes failed work and schedules the retry.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Failed)) {
        note(&mut self.failed);
        self.at.get_or_insert_with(|| Instant::now() + self.back_off.wait());
    }

    /// An import succeeded: the next retry comes sooner.
    pub(super) fn worked(&mut self) {
        self.back_off.reset();
        self.at = self.at.map(|at| at.min(Instant::now() + self.back_off.wait()));
    }

    /// The time until the retry, if one is scheduled.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The work to retry, once its time has come.
    pub(super) fn due(&mut self) -> Option<Failed> {
        self.at.filter(|at| *at <= Instant::now())?;
        self.at = None;
        self.back_off.lengthen();
        Some(std::mem::take(&mut self.failed))
    }
}
