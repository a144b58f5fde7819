//! The files that a station publishes of each family: the revocations, and everything.
//!
//! Revocations travel first and on their own, so that nothing else that somebody signs can hold them up, however long it
//! is.

use std::{collections::BTreeSet, collections::VecDeque, time::Instant};

use keywright_proto::{
    Id,
    link::Topic,
    pieces::{Collector, MAX_PIECES, MAX_REVOCATION_PIECES},
    tree::Hash,
};

use crate::{error::Error, queries, registry::Registry};

/// Which of the files. The first is published first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Revocations, removals of Locks, and the certificates of revoked issuers.
    Revocations,
    /// Everything.
    Whole,
}

/// A file of a family.
pub(super) type File = (Part, Id);

impl Part {
    /// In the order of publishing.
    pub(super) const ALL: [Self; 2] = [Self::Revocations, Self::Whole];

    pub(super) const fn max_pieces(self) -> u32 {
        match self {
            Self::Revocations => MAX_REVOCATION_PIECES,
            Self::Whole => MAX_PIECES,
        }
    }

    pub(super) const fn topic(self, family: Id, station: Id, number: u32) -> Topic {
        match self {
            Self::Revocations => Topic::RevocationPiece { family, station, number },
            Self::Whole => Topic::Piece { family, station, number },
        }
    }

    /// This station's file; none if it would say nothing.
    pub(super) fn export(self, registry: &Registry, family: Id) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Revocations => queries::export_revocations(registry, family),
            Self::Whole => queries::export(registry, family).map(Some),
        }
    }
}

/// A file that is being published.
pub(super) struct FileInFlight {
    pub(super) family: Id,
    /// None if the file is withdrawn.
    pub(super) digest: Option<Hash>,
    /// Topics and pieces that are not published yet.
    pub(super) left: VecDeque<(Topic, Vec<u8>)>,
}

/// The publishing and collecting of one of the files, of all families. The two do not wait for each other.
pub(super) struct Lane {
    pub(super) part: Part,
    pub(super) publishing: Option<FileInFlight>,
    /// Messages that the broker has not acknowledged yet.
    pub(super) in_flight: BTreeSet<u64>,
    /// When the next file may be exported.
    pub(super) next: Instant,
    /// By family and station.
    pub(super) collector: Collector<(Id, Id)>,
}

impl Lane {
    pub(super) fn new(part: Part) -> Self {
        Self {
            part,
            publishing: None,
            in_flight: BTreeSet::new(),
            next: Instant::now(),
            collector: Collector::new(part.max_pieces()),
        }
    }
}
