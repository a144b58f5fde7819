//! Logs messages that are refused from the link, rate-limited, so that a hostile broker cannot fill the log. The audit
//! log gets an entry, too, at a lower rate.

use std::{fmt::Display, sync::Arc};

use crate::{families::Brought, station::Handle};

/// Counts refusals since the last log line. Clones share the count.
#[derive(Clone)]
pub(super) struct Refusals {
    counted: Arc<keywright_link::Refusals>,
    station: Handle,
}

impl Refusals {
    pub(super) fn new(station: Handle) -> Self {
        Self { counted: Arc::default(), station }
    }

    pub(super) fn note(&self, why: &(impl Display + ?Sized)) {
        if self.counted.note(why) {
            self.station.tell(|station| station.refused_objects(None, Brought::Link));
        }
    }
}
