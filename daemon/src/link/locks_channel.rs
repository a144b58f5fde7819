//! Publishes grants and certificates to the Locks over the link, and receives their confirmations.
//!
//! Published: the grant of every unconfirmed right when its statement is new, when its Lock comes online and when the
//! link comes up; and each Lock's own certificate chain (`chains`). Messages are retained, so that a Lock that is
//! offline receives them later. Received: confirmations (`confirmations`), which are signed; presence, which is only a
//! hint; and certificates of Locks that were claimed with a Key in their own port (`own_certificates`).

mod chains;
mod confirmations;
mod issuers;
mod own_certificates;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvError, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use keywright_link::{Connection, LinkEvent};
use keywright_proto::{
    Id,
    link::{ONLINE, Topic},
    rights::RightState,
    tree::Hash,
};

pub(super) use chains::ChangedCertificates;

use self::{chains::Chains, confirmations::ReceivedConfirmation, own_certificates::Unstored};
use super::refusals::Refusals;
use crate::{
    error::Error,
    queries::{self, Grants, Page},
    registry::Registry,
    station::Handle,
    trust::Moment,
};

/// Capacity of the queue of events. When it is full, the broker has to wait.
pub(super) const QUEUE: usize = 64;
/// The most grants that the broker has not acknowledged yet.
const WINDOW: usize = 64;
/// How many rows of the registry are read at once.
const PAGE: u32 = 100;
/// How long after a failed publication or store it is retried.
const RETRY: Duration = Duration::from_secs(60);
/// An event for the thread of this channel.
pub(super) enum LocksEvent {
    Link(LinkEvent),
    /// Keys have new statements. The shared set `changed` names the Keys.
    Changed,
}

/// Whose grants are to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// One Key, at every Lock.
    Key(Id),
    /// One Lock, for every Key.
    Lock(Id),
}

/// Work in progress: the page of rows to go on with.
struct Walk {
    work: Work,
    after: Option<Id>,
}

/// The channel to the Locks. It runs on a thread of its own.
pub(super) struct LocksChannel {
    registry: Registry,
    station: Handle,
    delay: u64,
    connection: Arc<Connection>,
    runtime: tokio::runtime::Runtime,
    changed: Arc<Mutex<BTreeSet<Id>>>,
    up: bool,
    to_do: VecDeque<Work>,
    walk: Option<Walk>,
    /// Key and Lock of each grant to publish next.
    pairs: VecDeque<(Id, Id)>,
    in_flight: BTreeSet<u64>,
    /// Confirmations received and not stored yet, each with the Key and the Lock that it claims to be about.
    confirmations: Vec<ReceivedConfirmation>,
    /// Confirmations that could not be stored: the newest of each right.
    unstored: BTreeMap<(Id, Id), Vec<u8>>,
    unstored_certificates: Unstored,
    /// Presence that could not be stored. Only Locks in the registry are here, so the broker cannot make it grow.
    unstored_presence: BTreeMap<Id, bool>,
    /// When failed work is retried.
    retry_at: Option<Instant>,
    /// Grants that could not be made: Key and Lock.
    failed: BTreeSet<(Id, Id)>,
    /// Work whose rows could not be read.
    failed_work: Vec<Walk>,
    /// Every Key is to be processed, but the list of Keys could not be read.
    all_wanted: bool,
    /// The grants of the Key that was published last.
    grants: Option<Grants>,
    next_number: u64,
    chains: Chains,
    /// The digest of the issuing keys that each Lock said last.
    heard_issuers: BTreeMap<Id, Hash>,
    refusals: Refusals,
}

impl LocksChannel {
    /// `changed` collects the Keys with new statements, `certified` the Locks with new certificates and the CAs.
    pub(super) fn new(
        registry: Registry,
        station: Handle,
        delay: u64,
        connection: Arc<Connection>,
        changed: Arc<Mutex<BTreeSet<Id>>>,
        certified: ChangedCertificates,
        refusals: Refusals,
    ) -> io::Result<Self> {
        Ok(Self {
            registry,
            station,
            delay,
            connection,
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            changed,
            up: false,
            to_do: VecDeque::new(),
            walk: None,
            pairs: VecDeque::new(),
            in_flight: BTreeSet::new(),
            confirmations: Vec::new(),
            unstored: BTreeMap::new(),
            unstored_certificates: Unstored::new(),
            unstored_presence: BTreeMap::new(),
            retry_at: None,
            failed: BTreeSet::new(),
            failed_work: Vec::new(),
            all_wanted: false,
            grants: None,
            next_number: 0,
            chains: Chains::new(certified),
            heard_issuers: BTreeMap::new(),
            refusals,
        })
    }

    pub(super) fn run(mut self, events: &Receiver<LocksEvent>) {
        while let Ok(event) = self.next(events) {
            for event in event.into_iter().chain(events.try_iter().take(QUEUE)) {
                if let LocksEvent::Link(event) = event {
                    let handled = self.receive(event);
                    self.note(handled);
                }
            }
            // One commit stores many confirmations.
            let confirmed = self.confirm();
            self.note(confirmed);
            self.note_changed();
            let published = self.publish_next();
            self.note(published);
            self.publish_chains();
        }
    }

    /// Returns the next event, or `None` when it is time to retry failed work.
    fn next(&mut self, events: &Receiver<LocksEvent>) -> Result<Option<LocksEvent>, RecvError> {
        if !self.is_behind() {
            self.retry_at = None;
            return events.recv().map(Some);
        }
        let at = *self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        let event = match events.recv_timeout(at.saturating_duration_since(Instant::now())) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
            Err(RecvTimeoutError::Timeout) => None,
        };
        if Instant::now() >= at {
            self.retry();
        }
        Ok(event)
    }

    /// Whether work failed. Nothing reports when it would succeed, so it has to be retried.
    fn is_behind(&self) -> bool {
        let unpublished =
            !self.failed.is_empty() || !self.failed_work.is_empty() || self.all_wanted;
        let unstored = !self.unstored.is_empty() || !self.unstored_certificates.is_empty();
        unpublished || unstored || !self.unstored_presence.is_empty() || self.chains.is_behind()
    }

    fn retry(&mut self) {
        self.retry_at = None;
        if self.all_wanted {
            let wanted = self.want_all();
            self.note(wanted);
        }
        self.chains.retry();
        self.pairs.extend(std::mem::take(&mut self.failed));
        for walk in std::mem::take(&mut self.failed_work) {
            self.want(walk.work);
        }
        self.retry_confirmations();
        self.retry_certificates();
        for (lock, online) in std::mem::take(&mut self.unstored_presence) {
            let stored = self.store_presence(lock, online);
            self.note(stored);
        }
    }

    fn note(&self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::error!("the link: {error}");
        }
    }

    fn note_changed(&mut self) {
        let changed =
            std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        for key in changed {
            self.want(Work::Key(key));
        }
    }

    fn want(&mut self, work: Work) {
        // While the link is down nothing is queued: when it comes up, every grant is published.
        if self.up && !self.to_do.contains(&work) {
            self.to_do.push_back(work);
        }
    }

    fn receive(&mut self, event: LinkEvent) -> Result<(), Error> {
        match event {
            LinkEvent::Up => {
                self.forget();
                self.up = true;
                self.want_all()?;
            }
            LinkEvent::Down => {
                self.forget();
                self.up = false;
            }
            LinkEvent::Published(number) => {
                self.in_flight.remove(&number);
                self.chains.published(number);
            }
            LinkEvent::Message { topic, payload, .. } => match Topic::parse(&topic) {
                Some(Topic::Confirmation { lock, key }) => self.confirmation(lock, key, payload)?,
                Some(Topic::Presence { lock }) => self.presence(lock, payload == ONLINE)?,
                Some(Topic::OwnCertificate { lock }) => self.own_certificate(lock, payload)?,
                Some(Topic::Issuers { lock }) => self.issuers(lock, &payload)?,
                // Messages between stations go to the station exchange.
                Some(
                    Topic::Grant { .. }
                    | Topic::Chain { .. }
                    | Topic::Here { .. }
                    | Topic::RevocationPiece { .. }
                    | Topic::Piece { .. },
                )
                | None => self.refusals.note("not a topic for a station"),
            },
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.in_flight.clear();
        self.to_do.clear();
        self.pairs.clear();
        self.walk = None;
        self.chains.lost();
        // When the link is back, everything is published again.
        self.failed.clear();
        self.failed_work.clear();
        self.unstored_presence.clear();
        self.all_wanted = false;
    }

    fn want_all(&mut self) -> Result<(), Error> {
        self.all_wanted = true;
        for (family, _) in self.registry.families()? {
            for key in self.registry.member_ids(family)? {
                self.want(Work::Key(key));
            }
        }
        for (family, _) in self.registry.families()? {
            for issuer in queries::revoked_issuers(&self.registry, family)? {
                self.want(Work::Key(issuer));
            }
        }
        self.all_wanted = false;
        Ok(())
    }

    fn presence(&mut self, lock: Id, online: bool) -> Result<(), Error> {
        let Some(known) = self.registry.lock(lock)? else { return Ok(()) };
        // The grants are published even if the presence cannot be stored.
        if online {
            self.want(Work::Lock(lock));
            self.chains.want(lock);
        }
        self.unstored_presence.remove(&lock);
        if known.online == online { Ok(()) } else { self.store_presence(lock, online) }
    }

    fn store_presence(&mut self, lock: Id, online: bool) -> Result<(), Error> {
        let seen = self.station.ask(move |station, reply| station.lock_seen(lock, online, reply));
        self.runtime.block_on(seen).inspect_err(|_| {
            self.unstored_presence.insert(lock, online);
        })
    }

    /// Publishes as many grants as the window allows.
    fn publish_next(&mut self) -> Result<(), Error> {
        while self.up && self.in_flight.len() < WINDOW {
            let Some((key, lock)) = self.next_pair()? else { return Ok(()) };
            let grant = match self.grant(key, lock) {
                Ok(grant) => grant,
                // The right or the Lock was removed meanwhile.
                Err(Error::NotFound(_)) => continue,
                // Publish the others, and retry this grant later.
                Err(error) => {
                    self.failed.insert((key, lock));
                    self.note(Err(error));
                    continue;
                }
            };
            let number = self.next_number;
            self.next_number += 1;
            self.in_flight.insert(number);
            self.connection.publish(Topic::Grant { lock, key }.name(), grant, number);
        }
        Ok(())
    }

    /// Makes a grant. The tree of a statement on 100,000 Locks takes 50 ms, so it is made once for all of its grants.
    fn grant(&mut self, key: Id, lock: Id) -> Result<Vec<u8>, Error> {
        let (registry, moment) = (&self.registry, self.moment());
        let current = match &self.grants {
            Some(grants) => grants.are_current(registry, key, moment)?,
            None => false,
        };
        if !current {
            let family = registry.lock(lock)?.map(|lock| lock.family);
            self.grants = match family {
                Some(family) => Grants::of(registry, key, family, moment)?,
                None => None,
            };
        }
        match self.grants.as_ref().and_then(|grants| grants.at(lock)) {
            Some(grant) => Ok(grant),
            None => queries::grant(registry, key, lock, moment),
        }
    }

    fn moment(&self) -> Moment {
        Moment::now(&self.registry, self.delay)
    }

    fn next_pair(&mut self) -> Result<Option<(Id, Id)>, Error> {
        loop {
            if let Some(pair) = self.pairs.pop_front() {
                return Ok(Some(pair));
            }
            let walk = match self.walk.take() {
                Some(walk) => walk,
                None => match self.to_do.pop_front() {
                    Some(work) => Walk { work, after: None },
                    None => return Ok(None),
                },
            };
            let after = match walk.work {
                Work::Key(key) => {
                    self.unconfirmed(key, Page { after: walk.after, limit: PAGE }, None)
                }
                Work::Lock(lock) => self.at_lock(lock, walk.after),
            };
            let after = match after {
                Ok(after) => after,
                Err(error) => {
                    self.failed_work.push(walk);
                    self.note(Err(error));
                    continue;
                }
            };
            self.walk = after.map(|after| Walk { work: walk.work, after: Some(after) });
        }
    }

    /// Queues the unconfirmed rights on one page of a Key's rights. Returns the id after which the next page begins.
    fn unconfirmed(&mut self, key: Id, page: Page, only: Option<Id>) -> Result<Option<Id>, Error> {
        let (rows, next) = match queries::rights(&self.registry, key, page, self.moment()) {
            Err(Error::NotFound(_)) => return self.unaware(key, page, only),
            found => found?,
        };
        for (lock, _, state, _) in rows {
            let Ok(lock) = lock.parse() else { continue };
            if only.is_some_and(|only| only != lock) {
                continue;
            }
            if state != RightState::Active.as_str()
                || queries::needs_delayed_revocation(&self.registry, key, lock, self.moment())?
            {
                self.pairs.push_back((key, lock));
            }
        }
        Ok(next.parse().ok())
    }

    /// Queues the unconfirmed rights at one Lock, for one page of Keys.
    fn at_lock(&mut self, lock: Id, after: Option<Id>) -> Result<Option<Id>, Error> {
        let Some(known) = self.registry.lock(lock)? else { return Ok(None) };
        let keys = self.registry.member_ids_page(known.family, after, PAGE as usize)?;
        if after.is_none() {
            for issuer in queries::revoked_issuers(&self.registry, known.family)? {
                self.unaware(issuer, Page { after: before(lock), limit: 1 }, Some(lock))?;
            }
        }
        for (key, ()) in keys.items {
            let page = Page { after: before(lock), limit: 1 };
            if let Err(error) = self.unconfirmed(key, page, Some(lock)) {
                // What cannot be read of one Key keeps no other from its Lock.
                self.failed_work.push(Walk { work: Work::Key(key), after: None });
                self.note(Err(error));
            }
        }
        Ok(keys.next)
    }
}

/// The preceding id: a page that starts after it begins with `id`.
fn before(id: Id) -> Option<Id> {
    let number = u128::from_be_bytes(*id.as_bytes());
    number.checked_sub(1).map(|number| Id::from_bytes(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_before() {
        let id = |last| {
            let mut bytes = [7; 16];
            bytes[15] = last;
            Id::from_bytes(bytes)
        };
        assert_eq!(before(id(2)), Some(id(1)));
        assert_eq!(before(Id::from_bytes([0; 16])), None);
        assert!(before(id(0)).unwrap() < id(0));
    }
}
