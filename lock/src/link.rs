//! The link: grants come and confirmations go over a broker, which is believed nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use keywright_proto::{
    Id,
    link::{self, MAX_PACKET, OFFLINE, ONLINE, Topic},
    pem::MAX_PEM,
};
use keywrightd::link::connection::{Connection, Event, Settings};

use crate::{
    config::Link,
    error::{Error, Refusal},
    files,
    gate::Gate,
    identity::KEY,
    membership::CHAIN,
    service::{Answer, Origin, Service},
};

/// A hostile broker must not fill the log: one line in this time.
const QUIET: Duration = Duration::from_secs(60);

/// The number of the message that is no answer.
const PAPERS: u64 = u64::MAX;

/// The link of a Lock.
pub struct LockLink {
    lock: Id,
    settings: Settings,
    /// What a station that does not know this Lock has to know.
    papers: Vec<u8>,
    /// Tells the connections apart that were made one after the other.
    generation: u64,
    connection: Option<Connection>,
    refused: u64,
    last_told: Option<Instant>,
}

impl LockLink {
    /// Reads what it needs. Nothing is connected yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn prepare(config: &Link, state: &Path, gate: &Gate) -> Result<Self, Error> {
        let lock = gate.identity().public().id();
        let read = |path: &Path| files::read(path, MAX_PEM).map_err(Error::file(path));
        let broker = config.address().ok_or_else(|| Error::System("no broker".into()))?;
        let settings = Settings {
            broker,
            ca: read(&config.ca)?,
            certificate: read(&state.join(CHAIN))?,
            key: read(&state.join(KEY))?,
            client_id: format!("keywright-lock-{lock}"),
            keep_alive: config.keep_alive_seconds,
            presence: Some((Topic::Presence { lock }.name(), ONLINE, OFFLINE)),
            subscriptions: vec![link::for_lock(lock)],
            max_packet: MAX_PACKET,
        };
        let papers = gate.membership().papers()?;
        let (generation, connection) = (0, None);
        Ok(Self { lock, settings, papers, generation, connection, refused: 0, last_told: None })
    }

    /// Connects, or gives up the connection that is there for a new one: what is retained comes again.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn connect(&mut self, tell: impl Fn(u64, Event) + Send + 'static) -> Result<(), Error> {
        self.generation += 1;
        let generation = self.generation;
        let connection =
            Connection::start(self.settings.clone(), move |event| tell(generation, event));
        self.connection = Some(connection.map_err(|error| Error::System(error.to_string()))?);
        Ok(())
    }

    /// Lets the service know of an event.
    ///
    /// # Errors
    /// Something could not be saved. A grant that could not is lost: connect again later.
    pub fn hear(&mut self, generation: u64, event: Event, to: &mut Service) -> Result<(), Error> {
        if generation != self.generation {
            return Ok(());
        }
        match event {
            Event::Up => {
                to.link(true);
                // Stations that know it have told it of a Key.
                if let Some(connection) = self.connection.as_ref().filter(|_| to.gate().is_empty())
                {
                    let topic = Topic::Papers { lock: self.lock };
                    connection.publish(topic.name(), self.papers.clone(), PAPERS);
                }
            }
            Event::Down => to.link(false),
            Event::Published(number) => return to.published(number),
            Event::Message { topic, payload, retained } => {
                let ours = matches!(Topic::parse(&topic), Some(Topic::Grant { lock, .. }) if lock == self.lock);
                if !ours {
                    self.refuse("not a topic of this Lock");
                    return Ok(());
                }
                // Which Key it is about says the grant, and not the topic.
                match to.take(&payload, Origin::Link { retained }) {
                    Ok(_) => {}
                    Err(Refusal::NotSaved(error)) => return Err(*error),
                    Err(refusal) => self.refuse(&refusal),
                }
            }
        }
        Ok(())
    }

    /// Publishes confirmations.
    pub fn send(&self, answers: Vec<Answer>) {
        let Some(connection) = &self.connection else { return };
        for Answer { number, key, confirmation } in answers {
            let topic = Topic::Confirmation { lock: self.lock, key };
            connection.publish(topic.name(), confirmation, number);
        }
    }

    fn refuse(&mut self, why: &(impl std::fmt::Display + ?Sized)) {
        self.refused += 1;
        if self.last_told.is_none_or(|told| told.elapsed() >= QUIET) {
            self.last_told = Some(Instant::now());
            tracing::warn!(
                refused = self.refused,
                "refused from the link, the last one because: {why}"
            );
            self.refused = 0;
        }
    }
}
