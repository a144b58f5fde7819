//! What stations of a family say to each other over the link: the family's file, as by `ExportFamily`, and taken in as by
//! `ImportFamily`.
//!
//! Each station keeps its own file at the broker, in pieces, so that one that is away gets it when it is back. It says the
//! file when somebody else is there to hear it, and again only when it has changed and nobody has said the very same. Files
//! only grow by what is taken in, so stations that have heard each other come to rest.

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

/// Messages with this number and above are ours; those below go to Locks.
pub(super) const FIRST_NUMBER: u64 = 1 << 63;
/// How many pieces are on their way at once.
const WINDOW: usize = 8;
/// The shortest time between two looks at what is to be said. Locks that confirm one after the other are said together.
const SPACE: Duration = Duration::from_secs(1);
/// To make a file verifies everything in it: that may take one in so many parts of the time.
const SHARE: u32 = 20;
/// How many files that were heard are remembered, by digest.
const MOST_HEARD: usize = 64;

/// What this thread is told.
pub(super) enum ExchangeEvent {
    Link(LinkEvent),
    /// Something that is exchanged was committed; that is noted, too.
    Changed,
}

/// A file that is being said.
struct Saying {
    family: Id,
    digest: Hash,
    /// Topics and messages that are still to go.
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
    /// Those that are pinned here, and listened to.
    families: BTreeSet<Id>,
    /// Those of which another station wants to hear.
    wanted: BTreeSet<Id>,
    to_say: BTreeSet<Id>,
    saying: Option<Saying>,
    /// The file that the broker has of this station.
    said: BTreeMap<Id, Hash>,
    /// In how many pieces, and how many it may have from a longer one before.
    counts: BTreeMap<Id, u32>,
    held: BTreeMap<Id, u32>,
    /// What lies behind the last piece.
    stale_pieces: StalePieces,
    in_flight: BTreeSet<u64>,
    next_number: u64,
    /// When the next file may be made.
    next: Instant,
    collector: Collector<(Id, Id)>,
    /// The last files that others said, by digest, and whether the broker has shown them since it is there.
    heard: VecDeque<(Hash, bool)>,
    /// Families whose file is too long; it does not get shorter.
    too_long: BTreeSet<Id>,
    retry: Retry,
}

impl StationExchange {
    /// `own` is the name of this station, `changed` whether something that is exchanged was committed.
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
            to_say: BTreeSet::new(),
            saying: None,
            said: BTreeMap::new(),
            counts: BTreeMap::new(),
            held: BTreeMap::new(),
            stale_pieces: StalePieces::default(),
            in_flight: BTreeSet::new(),
            next_number: FIRST_NUMBER,
            next: Instant::now(),
            collector: Collector::default(),
            heard: VecDeque::new(),
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
                Ok(ExchangeEvent::Link(event)) => self.hear(event),
                Ok(ExchangeEvent::Changed) | Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.note(done);
            self.retry();
            let looked = self.look();
            self.note(looked);
            let said = self.say();
            self.note(said);
        }
    }

    fn note(&self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::error!("the link to other stations: {error}");
        }
    }

    /// How long to wait, where something is to be said.
    fn due(&self) -> Option<Duration> {
        let is_due = self.up && self.saying.is_none() && !self.to_say.is_empty();
        let due = is_due.then(|| self.next.saturating_duration_since(Instant::now()));
        due.into_iter().chain(self.retry.wait()).min()
    }

    fn retry(&mut self) {
        let Some(failed) = self.retry.due() else { return };
        for family in failed.unheard.intersection(&self.families) {
            self.connection.subscribe(family_subscription(*family));
        }
        self.to_say.extend(failed.unsaid.intersection(&self.wanted));
        if failed.unjoined {
            self.changed.store(true, Ordering::Release);
        }
    }

    fn hear(&mut self, event: LinkEvent) -> Result<(), Error> {
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
                    // An empty one is taken away: that station does not exist any more.
                    let is_other = station != self.own && payload == HERE;
                    if is_ours && is_other && self.wanted.insert(family) {
                        self.to_say.insert(family);
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

    /// What a broker had is not known any more, or not to be there.
    fn forget(&mut self) {
        self.families.clear();
        self.wanted.clear();
        self.to_say.clear();
        self.saying = None;
        self.said.clear();
        self.counts.clear();
        self.held.clear();
        self.stale_pieces = StalePieces::default();
        self.in_flight.clear();
        self.collector.clear();
        // The broker shows everything again when it is back.
        self.retry = Retry::default();
        self.heard.iter_mut().for_each(|(_, is_there)| *is_there = false);
    }

    /// Notes what was committed.
    fn look(&mut self) -> Result<(), Error> {
        if self.up && self.changed.swap(false, Ordering::AcqRel) {
            self.join()?;
            self.to_say.extend(self.wanted.intersection(&self.families));
        }
        Ok(())
    }

    /// Listens to the others of each family that is pinned here. What the broker keeps of it comes then.
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

    /// What the broker has kept of this station. It is taken away where the file has fewer pieces now.
    fn own_piece(&mut self, family: Id, number: u32, payload: &[u8]) {
        if payload.is_empty() || number >= MAX_PIECES || !self.families.contains(&family) {
            return;
        }
        let held = self.held.entry(family).or_default();
        *held = (*held).max(number + 1);
        match self.counts.get(&family) {
            Some(count) if number >= *count => {
                self.stale_pieces.note(family, number);
            }
            Some(_) => {}
            // Of how many pieces it is one is known when the file is said again.
            None if self.wanted.contains(&family) => {
                self.to_say.insert(family);
            }
            None => {}
        }
    }

    fn piece(&mut self, family: Id, station: Id, number: u32, bytes: &[u8]) -> Result<(), Error> {
        // An empty one was taken away.
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
        if self.said.get(&family) == Some(&digest) {
            return Ok(());
        }
        // After each new connection the broker shows again what it keeps.
        if let Some((_, is_there)) = self.heard.iter_mut().find(|(heard, _)| *heard == digest) {
            *is_there = true;
            return Ok(());
        }
        let whole = self.collector.add((family, station), piece);
        if self.collector.take_dropped() > 0 {
            self.refusals.note("pieces of a family's file that did not become whole");
        }
        match whole {
            Ok(Some(file)) => self.take(family, &file, digest)?,
            Ok(None) => {}
            Err(error) => self.refusals.note(&error),
        }
        Ok(())
    }

    /// Takes a whole file in, as ImportFamily does.
    fn take(&mut self, family: Id, file: &[u8], digest: Hash) -> Result<(), Error> {
        match queries::verified_export(&self.registry, file) {
            Ok((of, objects, left_out)) if of == family => {
                if left_out > 0 {
                    self.refusals.note("objects of a family's file that do not verify");
                }
                let taken = self
                    .station
                    .ask(move |station, reply| station.import_family(family, objects, reply));
                if let Err(error) = self.runtime.block_on(taken) {
                    if matches!(error, Error::Store(_)) {
                        self.retry.note(|failed| failed.unheard.extend([family]));
                    }
                    return Err(error);
                }
            }
            Ok(_) => self.refusals.note("a family's file under the name of another family"),
            Err(error @ Error::Store(_)) => {
                self.retry.note(|failed| failed.unheard.extend([family]));
                return Err(error);
            }
            Err(error) => self.refusals.note(&error),
        }
        self.retry.worked();
        if self.heard.len() >= MOST_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((digest, true));
        Ok(())
    }

    /// Goes on with what is being said, then with the next family.
    fn say(&mut self) -> Result<(), Error> {
        self.go_on();
        if !self.up || self.saying.is_some() || Instant::now() < self.next {
            return Ok(());
        }
        let Some(family) = self.to_say.pop_first() else { return Ok(()) };
        if self.too_long.contains(&family) {
            return Ok(());
        }
        let began = Instant::now();
        let exported = queries::export(&self.registry, family);
        self.next = Instant::now() + SPACE.max(began.elapsed() * SHARE);
        let file = match exported {
            Err(Error::LimitExceeded(why)) => {
                self.too_long.insert(family);
                tracing::warn!(%family, "other stations are not told over the link: {why}");
                return Ok(());
            }
            exported => exported.inspect_err(|_| {
                self.retry.note(|failed| failed.unsaid.extend([family]));
            })?,
        };
        let digest: Hash = Sha256::digest(&file).into();
        if self.said.get(&family) == Some(&digest) {
            return Ok(());
        }
        let (pieces, held) = (count(&file), self.held.get(&family).copied().unwrap_or_default());
        let has_unknown = held > 0 && !self.counts.contains_key(&family);
        // Another station has said the very same: the broker has it, and of this one nothing that lies about.
        if !has_unknown && self.heard.contains(&(digest, true)) {
            return Ok(());
        }
        let station = self.own;
        let piece = |(message, number)| (Topic::Piece { family, station, number }, message);
        let gone = (pieces..held).map(|n| (Topic::Piece { family, station, number: n }, vec![]));
        let left = cut(&file).zip(0..).map(piece).chain(gone).collect();
        self.held.insert(family, pieces);
        self.counts.insert(family, pieces);
        self.saying = Some(Saying { family, digest, left });
        self.go_on();
        Ok(())
    }

    /// Says as much as the windows allow; what the broker has taken is said.
    fn go_on(&mut self) {
        while let Some((family, number)) = self.stale_pieces.next() {
            // It may belong to a file that is longer now.
            if self.counts.get(&family).is_some_and(|count| number >= *count) {
                let topic = Topic::Piece { family, station: self.own, number };
                let message = self.publish(topic, Vec::new());
                self.stale_pieces.sent(message);
            }
        }
        while self.in_flight.len() < WINDOW {
            let next = self.saying.as_mut().and_then(|saying| saying.left.pop_front());
            let Some((topic, message)) = next else { break };
            let number = self.publish(topic, message);
            self.in_flight.insert(number);
        }
        if self.in_flight.is_empty()
            && let Some(saying) = self.saying.take()
        {
            self.said.insert(saying.family, saying.digest);
        }
    }
}
