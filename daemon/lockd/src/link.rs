//! The link: receives grants and this Lock's certificates from a broker that is not trusted, and publishes
//! confirmations.

use std::path::Path;

use keywright_link::{Connection, LinkEvent, Refusals, Settings};
use keywright_proto::{
    Id,
    link::{self, MAX_PACKET, OFFLINE, ONLINE, Topic},
    pem::MAX_PEM,
};

use crate::{
    config::Link,
    error::{Error, Refusal},
    files,
    gate::Gate,
    identity::KEY,
    membership::CHAIN,
    service::{Origin, OutgoingConfirmation, Service},
};

/// The message number of this Lock's own certificate; every number below [`ISSUERS`] is a confirmation's.
const OWN_CERTIFICATE: u64 = u64::MAX;
/// The message number of the issuing keys that this Lock believes.
const ISSUERS: u64 = u64::MAX - 1;

/// The settings of a Lock's connection to its broker, with this client certificate and its key.
pub(crate) fn settings(
    config: &Link,
    lock: Id,
    certificate: &Path,
    key: &Path,
) -> Result<Settings, Error> {
    let read = |path: &Path| files::read(path, MAX_PEM).map_err(Error::file(path));
    Ok(Settings {
        broker: config.address().ok_or_else(|| Error::System("no broker".into()))?,
        ca: read(&config.ca)?,
        certificate: read(certificate)?,
        key: read(key)?,
        client_id: format!("keywright-lock-{lock}"),
        keep_alive: config.keep_alive_seconds,
        presence: Some((Topic::Presence { lock }.name(), ONLINE, OFFLINE)),
        subscriptions: link::lock_subscriptions(lock).to_vec(),
        max_packet: MAX_PACKET,
    })
}

/// The link of a Lock.
pub struct LockLink {
    lock: Id,
    settings: Settings,
    /// This Lock's certificate with its chain, for stations that do not know it.
    signed_objects: Vec<u8>,
    /// Counts the connections, so that an event of an earlier one is recognised.
    generation: u64,
    connection: Option<Connection>,
    /// Whether the connection is up.
    is_up: bool,
    /// The issuing keys that were published on this connection.
    published_issuers: Option<String>,
    refusals: Refusals,
}

impl LockLink {
    /// Reads the certificates and keys. Nothing is connected yet.
    pub fn prepare(config: &Link, state: &Path, gate: &Gate) -> Result<Self, Error> {
        let lock = gate.identity().public().id();
        let settings = settings(config, lock, &state.join(CHAIN), &state.join(KEY))?;
        let signed_objects = gate.membership().signed_objects()?;
        Ok(Self {
            lock,
            settings,
            signed_objects,
            generation: 0,
            connection: None,
            is_up: false,
            published_issuers: None,
            refusals: Refusals::default(),
        })
    }

    /// Connects, or replaces the connection that is there: the broker then sends its retained messages again.
    ///
    /// # Errors
    /// The operating system refuses; the present connection stays.
    pub fn connect(&mut self, tell: impl Fn(u64, LinkEvent) + Send + 'static) -> Result<(), Error> {
        let generation = self.generation + 1;
        let connection =
            Connection::start(self.settings.clone(), move |event| tell(generation, event));
        let connection = connection.map_err(|error| Error::System(error.to_string()))?;
        // Only now: if the new connection failed, the old one is still used.
        (self.generation, self.connection) = (generation, Some(connection));
        self.is_up = false;
        Ok(())
    }

    /// Handles an event of the connection.
    ///
    /// # Errors
    /// Something could not be saved. A grant is then lost: connect again later to receive it once more.
    pub fn handle_event(
        &mut self,
        generation: u64,
        event: LinkEvent,
        to: &mut Service,
    ) -> Result<(), Error> {
        if generation != self.generation {
            return Ok(());
        }
        match event {
            LinkEvent::Up => {
                to.set_link_up(true);
                (self.is_up, self.published_issuers) = (true, None);
                // A Lock that has grants is known to the stations already.
                if let Some(connection) = self.connection.as_ref().filter(|_| to.gate().is_empty())
                {
                    let topic = Topic::OwnCertificate { lock: self.lock };
                    connection.publish(topic.name(), self.signed_objects.clone(), OWN_CERTIFICATE);
                }
            }
            LinkEvent::Down => {
                self.is_up = false;
                to.set_link_up(false);
            }
            LinkEvent::Published(number) => return to.published(number),
            LinkEvent::Message { topic, payload, retained } => {
                // The Key is the one named in the signed grant, whatever the topic says.
                let done = match Topic::parse(&topic) {
                    Some(Topic::Grant { lock, .. }) if lock == self.lock => {
                        to.take(&payload, Origin::Link { retained }).map(drop)
                    }
                    Some(Topic::Chain { lock }) if lock == self.lock => to
                        .take_chain(&payload)
                        .and_then(|taken| self.use_certificate(taken, to.gate())),
                    _ => {
                        self.refusals.note("not a topic of this Lock");
                        Ok(())
                    }
                };
                match done {
                    Ok(()) => {}
                    Err(Refusal::NotSaved(error)) => return Err(*error),
                    Err(refusal) => {
                        self.refusals.note(&refusal);
                    }
                }
            }
        }
        Ok(())
    }

    /// Uses the new certificate, if there is one, from the next connection on.
    fn use_certificate(&mut self, is_new: bool, gate: &Gate) -> Result<(), Refusal> {
        if is_new {
            let bad = |error: Error| Refusal::Chain(error.to_string());
            let certificate = gate.membership().text().map_err(bad)?.into_bytes();
            self.signed_objects = gate.membership().signed_objects().map_err(bad)?;
            if let Some(connection) = &self.connection {
                connection.set_certificate(certificate.clone());
            }
            self.settings.certificate = certificate;
        }
        Ok(())
    }

    /// Publishes the certificates of the issuing keys that this Lock believes, if they have changed: stations show those that
    /// they did not know.
    pub fn send_issuers(&mut self, gate: &Gate) {
        let Some(connection) = self.connection.as_ref().filter(|_| self.is_up) else { return };
        let issuers = gate.believed_issuers();
        if self.published_issuers.as_ref() != Some(&issuers) {
            let topic = Topic::Issuers { lock: self.lock };
            connection.publish(topic.name(), issuers.clone().into_bytes(), ISSUERS);
            self.published_issuers = Some(issuers);
        }
    }

    /// Publishes confirmations.
    pub fn send(&self, confirmations: Vec<OutgoingConfirmation>) {
        let Some(connection) = &self.connection else { return };
        for OutgoingConfirmation { number, key, confirmation } in confirmations {
            let topic = Topic::Confirmation { lock: self.lock, key };
            connection.publish(topic.name(), confirmation, number);
        }
    }
}
