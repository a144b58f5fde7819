//! What is refused from the link: logged in a line that a hostile broker cannot repeat at will. The log of
//! security-relevant events has them, too, more seldom still.

use std::{fmt::Display, sync::Arc};

use crate::{families::Brought, station::Handle};

/// How many were refused since the last line. Clones count together.
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
