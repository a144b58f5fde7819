//! Exchanges families' files with the other stations of a family over the link: exports them like `ExportFamily` and
//! imports them like `ImportFamily`.
//!
//! Each station keeps its own file at the broker as retained pieces, so that a station that is offline receives it
//! later. A station publishes its file when another station announces itself, and again only if the file has changed
//! and no other station has published an identical one. An import only adds objects to a file, so the exchange ends
//! when all stations have the same objects.
//!
//! Beside this file there is one with the revocations alone ([`part`]), with topics, bounds and a window of its own.

mod part;
mod publishing;
mod retry;
mod stale_pieces;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
};

use keywright_link::{Connection, LinkEvent};
use keywright_proto::{
    Id, SignedObjects,
    family::MAX_FAMILY_FILE,
    link::{HERE, Topic, family_subscriptions},
    pieces::Piece,
    tree::Hash,
};

use self::{
    part::{File, Lane, Part},
    retry::Retry,
    stale_pieces::StalePieces,
};
use super::refusals::Refusals;
use crate::{error::Error, queries, registry::Registry, station::Handle};

/// Messages with this number and above belong to the station exchange; those below belong to the Locks channel.
pub(super) const FIRST_NUMBER: u64 = 1 << 63;
/// How many received files are remembered, by digest.
const MAX_REMEMBERED: usize = 64;

/// An event for the thread of the station exchange.
pub(super) enum ExchangeEvent {
    Link(LinkEvent),
    /// Signed objects were committed. The flag `changed` is set as well, because this event is lost if the queue is
    /// full.
    Changed,
}

pub(super) struct StationExchange {
    own: Id,
    registry: Registry,
    station: Handle,
    connection: Arc<Connection>,
    runtime: tokio::runtime::Runtime,
    changed: Arc<AtomicBool>,
    refusals: Refusals,
    up: bool,
    /// Families that are pinned here and subscribed to.
    families: BTreeSet<Id>,
    /// Families in which another station has announced itself.
    wanted: BTreeSet<Id>,
    to_publish: BTreeSet<File>,
    /// The digest of this station's file at the broker.
    published: BTreeMap<File, Hash>,
    /// The number of pieces of that file, and how many pieces the broker may still hold, of a longer file too.
    piece_counts: BTreeMap<File, u32>,
    held: BTreeMap<File, u32>,
    /// Pieces beyond the last one.
    stale_pieces: StalePieces,
    /// The length of this station's whole file, with what was imported since.
    lengths: BTreeMap<Id, usize>,
    next_number: u64,
    lanes: [Lane; 2],
    /// The last files received, by digest, and whether the broker has sent them on the current connection.
    received: VecDeque<(Hash, bool)>,
    retry: Retry,
}

impl StationExchange {
    /// `own` is the id of this station. `changed` is set by commits of signed objects.
    pub(super) fn new(
        own: Id,
        registry: Registry,
        station: Handle,
        connection: Arc<Connection>,
        changed: Arc<AtomicBool>,
        refusals: Refusals,
    ) -> io::Result<Self> {
        Ok(Self {
            own,
            registry,
            station,
            connection,
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            changed,
            refusals,
            up: false,
            families: BTreeSet::new(),
            wanted: BTreeSet::new(),
            to_publish: BTreeSet::new(),
            published: BTreeMap::new(),
            piece_counts: BTreeMap::new(),
            held: BTreeMap::new(),
            stale_pieces: StalePieces::default(),
            lengths: BTreeMap::new(),
            next_number: FIRST_NUMBER,
            lanes: Part::ALL.map(Lane::new),
            received: VecDeque::new(),
            retry: Retry::default(),
        })
    }

    pub(super) fn run(mut self, events: &Receiver<ExchangeEvent>) {
        loop {
            let event = match self.due() {
                Some(wait) => events.recv_timeout(wait),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let done = match event {
                Ok(ExchangeEvent::Link(event)) => self.receive(event),
                Ok(ExchangeEvent::Changed) | Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.note(done);
            self.retry();
            let checked = self.compare();
            self.note(checked);
            let published = self.publish_next();
            self.note(published);
        }
    }

    fn note(&self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::error!("the link to other stations: {error}");
        }
    }

    fn retry(&mut self) {
        let Some(failed) = self.retry.due() else { return };
        for family in failed.unimported.intersection(&self.families) {
            self.subscribe(*family);
        }
        let wanted = |(_, family): &File| self.wanted.contains(family);
        self.to_publish.extend(failed.unpublished.into_iter().filter(wanted));
        if failed.unjoined {
            self.changed.store(true, Ordering::Release);
        }
    }

    fn receive(&mut self, event: LinkEvent) -> Result<(), Error> {
        match event {
            LinkEvent::Up => {
                self.forget();
                self.up = true;
                self.join()
            }
            LinkEvent::Down => {
                self.forget();
                self.up = false;
                Ok(())
            }
            LinkEvent::Published(number) => {
                for lane in &mut self.lanes {
                    lane.in_flight.remove(&number);
                }
                self.stale_pieces.published(number);
                Ok(())
            }
            LinkEvent::Message { topic, payload, .. } => match Topic::parse(&topic) {
                Some(Topic::Here { family, station }) => {
                    let is_ours = self.families.contains(&family);
                    // An empty announcement withdraws a station.
                    let is_other = station != self.own && payload == HERE;
                    if is_ours && is_other && self.wanted.insert(family) {
                        self.to_publish.extend(Part::ALL.map(|part| (part, family)));
                    }
                    Ok(())
                }
                Some(Topic::RevocationPiece { family, station, number }) => {
                    self.piece((Part::Revocations, family), station, number, &payload)
                }
                Some(Topic::Piece { family, station, number }) => {
                    self.piece((Part::Whole, family), station, number, &payload)
                }
                _ => Ok(()),
            },
        }
    }

    /// Forgets the state of the broker and of the connection.
    fn forget(&mut self) {
        self.families.clear();
        self.wanted.clear();
        self.to_publish.clear();
        self.published.clear();
        self.piece_counts.clear();
        self.held.clear();
        self.stale_pieces = StalePieces::default();
        for lane in &mut self.lanes {
            lane.publishing = None;
            lane.in_flight.clear();
            lane.collector.clear();
        }
        // After a reconnection the broker sends all retained messages again.
        self.retry = Retry::default();
        self.received.iter_mut().for_each(|(_, is_there)| *is_there = false);
    }

    /// Joins new families and schedules exports if signed objects were committed.
    fn compare(&mut self) -> Result<(), Error> {
        if self.up && self.changed.swap(false, Ordering::AcqRel) {
            self.join()?;
            for family in self.wanted.intersection(&self.families) {
                self.to_publish.extend(Part::ALL.map(|part| (part, *family)));
            }
        }
        Ok(())
    }

    /// Subscribes to each newly pinned family and announces this station in it. The broker then sends its retained
    /// messages.
    fn join(&mut self) -> Result<(), Error> {
        let families = self.registry.families().inspect_err(|_| {
            self.retry.note(|failed| failed.unjoined = true);
        })?;
        for (family, _) in families {
            if self.families.insert(family) {
                self.subscribe(family);
                self.publish(Topic::Here { family, station: self.own }, HERE.to_vec());
            }
        }
        Ok(())
    }

    fn subscribe(&self, family: Id) {
        for topics in family_subscriptions(family) {
            self.connection.subscribe(topics);
        }
    }

    fn piece(
        &mut self,
        (part, family): File,
        station: Id,
        number: u32,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if station == self.own {
            self.own_piece((part, family), number, bytes);
            return Ok(());
        }
        // An empty piece is a removal.
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.families.contains(&family) {
            self.refusals.note("a family's file, of a family that is not known here");
            return Ok(());
        }
        let piece = match Piece::read(bytes) {
            Ok(piece) if piece.number == number => piece,
            Ok(_) => {
                self.refusals.note("a piece of a family's file that is another one");
                return Ok(());
            }
            Err(error) => {
                self.refusals.note(&error);
                return Ok(());
            }
        };
        let digest = piece.digest;
        if self.published.get(&(part, family)) == Some(&digest) {
            return Ok(());
        }
        // After each reconnection the broker sends its retained messages again.
        if let Some((_, is_there)) =
            self.received.iter_mut().find(|(received, _)| *received == digest)
        {
            *is_there = true;
            return Ok(());
        }
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.part == part) else {
            return Ok(());
        };
        let whole = lane.collector.add((family, station), piece);
        if lane.collector.take_dropped() > 0 {
            self.refusals.note("pieces of a family's file that did not become whole");
        }
        match whole {
            Ok(Some(file)) => self.import(family, &file, digest)?,
            Ok(None) => {}
            Err(error) => self.refusals.note(&error),
        }
        Ok(())
    }

    /// Imports a whole file, like `ImportFamily`.
    fn import(&mut self, family: Id, file: &[u8], digest: Hash) -> Result<(), Error> {
        match queries::verified_export(&self.registry, file) {
            Ok((of, objects, left_out)) if of == family => {
                if left_out > 0 {
                    self.refusals.note("objects of a family's file that do not verify");
                }
                if let Err(error) = self.import_fitting(family, objects, file.len()) {
                    if matches!(error, Error::Store(_)) {
                        self.retry.note(|failed| failed.unimported.extend([family]));
                    }
                    return Err(error);
                }
            }
            Ok(_) => self.refusals.note("a family's file under the name of another family"),
            Err(error @ Error::Store(_)) => {
                self.retry.note(|failed| failed.unimported.extend([family]));
                return Err(error);
            }
            Err(error) => self.refusals.note(&error),
        }
        self.retry.worked();
        if self.received.len() >= MAX_REMEMBERED {
            self.received.pop_front();
        }
        self.received.push_back((digest, true));
        Ok(())
    }

    /// Imports objects, as far as there is room for them beside this station's own. Other stations, and the thief of a
    /// Backup behind them, could fill the disk otherwise.
    fn import_fitting(
        &mut self,
        family: Id,
        objects: SignedObjects,
        length: usize,
    ) -> Result<(), Error> {
        let own = match self.lengths.get(&family) {
            Some(own) => *own,
            None => queries::export(&self.registry, family)?.len(),
        };
        let objects = if own + length <= MAX_FAMILY_FILE {
            objects
        } else {
            queries::fitting(&self.registry, family, &objects)?
        };
        self.lengths.insert(family, own + length);
        let imported =
            self.station.ask(move |station, reply| station.import_family(family, objects, reply));
        self.runtime.block_on(imported).map(drop)
    }
}
