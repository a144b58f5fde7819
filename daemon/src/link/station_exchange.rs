//! Exchanges families' files with the other stations of a family over the link: exports them like `ExportFamily` and
//! imports them like `ImportFamily`.
//!
//! Each station keeps its own file at the broker as retained pieces, so that a station that is offline receives it
//! later. A station publishes its file when another station announces itself, and again only if the file has changed
//! and no other station has published an identical one. An import only adds objects to a file, so the exchange ends
//! when all stations have the same objects.

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
    time::{Duration, Instant},
};

use keywright_link::{Connection, LinkEvent};
use keywright_proto::{
    Id,
    link::{HERE, Topic, family_subscription},
    pieces::{Collector, MAX_PIECES, Piece, count, cut},
    tree::Hash,
};
use sha2::{Digest, Sha256};

use self::{retry::Retry, stale_pieces::StalePieces};
use super::refusals::Refusals;
use crate::{error::Error, queries, registry::Registry, station::Handle};

/// Messages with this number and above belong to the station exchange; those below belong to the Locks channel.
pub(super) const FIRST_NUMBER: u64 = 1 << 63;
/// The most pieces that the broker has not acknowledged yet.
const WINDOW: usize = 8;
/// The shortest time between two exports. Confirmations that arrive in quick succession then cause one export.
const SPACE: Duration = Duration::from_secs(1);
/// An export verifies every object. Exports take at most 1/20 of the time.
const SHARE: u32 = 20;
/// How many received files are remembered, by digest.
const MAX_REMEMBERED: usize = 64;

/// An event for the thread of the station exchange.
pub(super) enum ExchangeEvent {
    Link(LinkEvent),
    /// Signed objects were committed. The flag `changed` is set as well, because this event is lost if the queue is
    /// full.
    Changed,
}

/// A file that is being published.
struct FileInFlight {
    family: Id,
    digest: Hash,
    /// Topics and pieces that are not published yet.
    left: VecDeque<(Topic, Vec<u8>)>,
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
    to_publish: BTreeSet<Id>,
    publishing: Option<FileInFlight>,
    /// The digest of this station's file at the broker, by family.
    published: BTreeMap<Id, Hash>,
    /// The number of pieces of that file, and how many pieces the broker may still hold, of a longer file too.
    piece_counts: BTreeMap<Id, u32>,
    held: BTreeMap<Id, u32>,
    /// Pieces beyond the last one.
    stale_pieces: StalePieces,
    in_flight: BTreeSet<u64>,
    next_number: u64,
    /// When the next file may be exported.
    next: Instant,
    collector: Collector<(Id, Id)>,
    /// The last files received, by digest, and whether the broker has sent them on the current connection.
    received: VecDeque<(Hash, bool)>,
    /// Families whose file is too long to be published. Files never get shorter.
    too_long: BTreeSet<Id>,
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
            publishing: None,
            published: BTreeMap::new(),
            piece_counts: BTreeMap::new(),
            held: BTreeMap::new(),
            stale_pieces: StalePieces::default(),
            in_flight: BTreeSet::new(),
            next_number: FIRST_NUMBER,
            next: Instant::now(),
            collector: Collector::default(),
            received: VecDeque::new(),
            too_long: BTreeSet::new(),
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

    /// How long to wait until the next export or retry, if one is pending.
    fn due(&self) -> Option<Duration> {
        let is_due = self.up && self.publishing.is_none() && !self.to_publish.is_empty();
        let due = is_due.then(|| self.next.saturating_duration_since(Instant::now()));
        due.into_iter().chain(self.retry.wait()).min()
    }

    fn retry(&mut self) {
        let Some(failed) = self.retry.due() else { return };
        for family in failed.unimported.intersection(&self.families) {
            self.connection.subscribe(family_subscription(*family));
        }
        self.to_publish.extend(failed.unpublished.intersection(&self.wanted));
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
                self.in_flight.remove(&number);
                self.stale_pieces.published(number);
                Ok(())
            }
            LinkEvent::Message { topic, payload, .. } => match Topic::parse(&topic) {
                Some(Topic::Here { family, station }) => {
                    let is_ours = self.families.contains(&family);
                    // An empty announcement withdraws a station.
                    let is_other = station != self.own && payload == HERE;
                    if is_ours && is_other && self.wanted.insert(family) {
                        self.to_publish.insert(family);
                    }
                    Ok(())
                }
                Some(Topic::Piece { family, station, number }) if station == self.own => {
                    self.own_piece(family, number, &payload);
                    Ok(())
                }
                Some(Topic::Piece { family, station, number }) => {
                    self.piece(family, station, number, &payload)
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
        self.publishing = None;
        self.published.clear();
        self.piece_counts.clear();
        self.held.clear();
        self.stale_pieces = StalePieces::default();
        self.in_flight.clear();
        self.collector.clear();
        // After a reconnection the broker sends all retained messages again.
        self.retry = Retry::default();
        self.received.iter_mut().for_each(|(_, is_there)| *is_there = false);
    }

    /// Joins new families and schedules exports if signed objects were committed.
    fn compare(&mut self) -> Result<(), Error> {
        if self.up && self.changed.swap(false, Ordering::AcqRel) {
            self.join()?;
            self.to_publish.extend(self.wanted.intersection(&self.families));
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
                self.connection.subscribe(family_subscription(family));
                self.publish(Topic::Here { family, station: self.own }, HERE.to_vec());
            }
        }
        Ok(())
    }

    fn publish(&mut self, topic: Topic, message: Vec<u8>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.connection.publish(topic.name(), message, number);
        number
    }

    /// Handles a retained piece of this station's own file: one beyond the last piece is stale and gets removed.
    fn own_piece(&mut self, family: Id, number: u32, payload: &[u8]) {
        if payload.is_empty() || number >= MAX_PIECES || !self.families.contains(&family) {
            return;
        }
        let held = self.held.entry(family).or_default();
        *held = (*held).max(number + 1);
        match self.piece_counts.get(&family) {
            Some(count) if number >= *count => {
                self.stale_pieces.note(family, number);
            }
            Some(_) => {}
            // The number of pieces is not known yet: the next export tells whether this one is stale.
            None if self.wanted.contains(&family) => {
                self.to_publish.insert(family);
            }
            None => {}
        }
    }

    fn piece(&mut self, family: Id, station: Id, number: u32, bytes: &[u8]) -> Result<(), Error> {
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
        if self.published.get(&family) == Some(&digest) {
            return Ok(());
        }
        // After each reconnection the broker sends its retained messages again.
        if let Some((_, is_there)) =
            self.received.iter_mut().find(|(received, _)| *received == digest)
        {
            *is_there = true;
            return Ok(());
        }
        let whole = self.collector.add((family, station), piece);
        if self.collector.take_dropped() > 0 {
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
                let imported = self
                    .station
                    .ask(move |station, reply| station.import_family(family, objects, reply));
                if let Err(error) = self.runtime.block_on(imported) {
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

    /// Continues the current publication; if there is none, exports and publishes the next family.
    fn publish_next(&mut self) -> Result<(), Error> {
        self.go_on();
        if !self.up || self.publishing.is_some() || Instant::now() < self.next {
            return Ok(());
        }
        let Some(family) = self.to_publish.pop_first() else { return Ok(()) };
        if self.too_long.contains(&family) {
            return Ok(());
        }
        let began = Instant::now();
        let exported = queries::export(&self.registry, family);
        self.next = Instant::now() + SPACE.max(began.elapsed() * SHARE);
        let file = match exported {
            Err(Error::LimitExceeded(why)) => {
                self.too_long.insert(family);
                tracing::warn!(%family, "this family's file is not published to other stations: {why}");
                return Ok(());
            }
            exported => exported.inspect_err(|_| {
                self.retry.note(|failed| failed.unpublished.extend([family]));
            })?,
        };
        let digest: Hash = Sha256::digest(&file).into();
        if self.published.get(&family) == Some(&digest) {
            return Ok(());
        }
        let (pieces, held) = (count(&file), self.held.get(&family).copied().unwrap_or_default());
        let has_unknown = held > 0 && !self.piece_counts.contains_key(&family);
        // If another station has published an identical file and no piece of ours may be stale, the broker needs
        // nothing.
        if !has_unknown && self.received.contains(&(digest, true)) {
            return Ok(());
        }
        let station = self.own;
        let piece = |(message, number)| (Topic::Piece { family, station, number }, message);
        let gone = (pieces..held).map(|n| (Topic::Piece { family, station, number: n }, vec![]));
        let left = cut(&file).zip(0..).map(piece).chain(gone).collect();
        self.held.insert(family, pieces);
        self.piece_counts.insert(family, pieces);
        self.publishing = Some(FileInFlight { family, digest, left });
        self.go_on();
        Ok(())
    }

    /// Publishes as much as the windows allow. A file counts as published when the broker has acknowledged all pieces.
    fn go_on(&mut self) {
        while let Some((family, number)) = self.stale_pieces.next() {
            // The file may have become longer since, and the piece part of it.
            if self.piece_counts.get(&family).is_some_and(|count| number >= *count) {
                let topic = Topic::Piece { family, station: self.own, number };
                let message = self.publish(topic, Vec::new());
                self.stale_pieces.sent(message);
            }
        }
        while self.in_flight.len() < WINDOW {
            let next = self.publishing.as_mut().and_then(|file| file.left.pop_front());
            let Some((topic, message)) = next else { break };
            let number = self.publish(topic, message);
            self.in_flight.insert(number);
        }
        if self.in_flight.is_empty()
            && let Some(file) = self.publishing.take()
        {
            self.published.insert(file.family, file.digest);
        }
    }
}
