//! The link to the Locks and to other stations, through an MQTT broker that is not trusted. Off unless configured.
//!
//! | file | what |
//! | --- | --- |
//! | `locks_channel` | publishes grants to the Locks and receives their confirmations |
//! | `locks_channel/chains` | publishes each Lock's certificate chain |
//! | `locks_channel/confirmations` | stores confirmations, and retries those that could not be stored |
//! | `locks_channel/issuers` | imports issuing keys that Locks believe; publishes the revocation of one without a Key |
//! | `locks_channel/own_certificates` | imports Locks that were claimed with a Key in their own port |
//! | `station_exchange` | exchanges families' files with other stations |
//! | `station_exchange/part` `publishing` | the file of revocations and the whole file, and how they are published |
//! | `station_exchange/retry` | retries failed imports and exports, with back-off |
//! | `station_exchange/stale_pieces` | removes stale pieces of this station's files from the broker |
//! | `refusals` | logs refused messages, rate-limited |

mod locks_channel;
mod refusals;
mod station_exchange;

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, atomic::Ordering, mpsc},
    thread,
};

use keywright_link::{Connection, LinkEvent, Settings};
use keywright_proto::link::{self, MAX_PACKET, Topic, station_subscriptions};
use sha2::{Digest, Sha256};

use self::{
    locks_channel::{ChangedCertificates, LocksChannel, LocksEvent, QUEUE},
    refusals::Refusals,
    station_exchange::{ExchangeEvent, FIRST_NUMBER, StationExchange},
};
use crate::{config::Link as Config, registry::Registry, station::Handle};

/// Why the link could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file named in the configuration cannot be read.
    #[error(
        "the link cannot be set up: {path}: {source}; correct the configuration and start again"
    )]
    File {
        /// Path of the file.
        path: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A thread or the runtime could not be started.
    #[error("the link cannot be started: {0}")]
    System(#[from] io::Error),
}

/// Starts the link on threads of its own: one for the broker, one for the Locks, one for other stations.
///
/// # Errors
/// A file cannot be read, or a thread cannot be started.
pub fn start(
    config: &Config,
    registry: Registry,
    delay: u64,
    station: Handle,
) -> Result<(), LinkError> {
    let settings = settings(config)?;
    let own = link::station_id(&settings.certificate);
    let (to_locks, for_locks) = mpsc::sync_channel(QUEUE);
    let (to_stations, for_stations) = mpsc::sync_channel(QUEUE);
    // The watchers run inside commits, so they never wait: they note the change, and a full queue wakes the thread
    // anyway.
    let stated = Arc::new(Mutex::new(BTreeSet::new()));
    let (wake, noted) = (to_locks.clone(), Arc::clone(&stated));
    registry.watch_statements(move |keys| {
        noted.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        let _ = wake.try_send(LocksEvent::Changed);
    });
    let certified = ChangedCertificates::default();
    let (wake, noted) = (to_locks.clone(), certified.clone());
    registry.watch_certificates(move |certified| {
        noted.note(certified);
        let _ = wake.try_send(LocksEvent::Changed);
    });
    let changed = Arc::new(AtomicBool::new(false));
    let (wake, noted) = (to_stations.clone(), Arc::clone(&changed));
    registry.watch_signed_objects(move || {
        noted.store(true, Ordering::Release);
        let _ = wake.try_send(ExchangeEvent::Changed);
    });
    // The connection and the threads live as long as the process.
    let connection = Connection::start(settings, move |event| match event {
        LinkEvent::Up | LinkEvent::Down => {
            let _ = to_stations.send(ExchangeEvent::Link(event.clone()));
            let _ = to_locks.send(LocksEvent::Link(event));
        }
        event if is_for_stations(&event) => {
            let _ = to_stations.send(ExchangeEvent::Link(event));
        }
        event => {
            let _ = to_locks.send(LocksEvent::Link(event));
        }
    })?;
    let (connection, refusals) = (Arc::new(connection), Refusals::new(station.clone()));
    let stations = StationExchange::new(
        own,
        registry.clone(),
        station.clone(),
        Arc::clone(&connection),
        changed,
        refusals.clone(),
    )?;
    let locks =
        LocksChannel::new(registry, station, delay, connection, stated, certified, refusals)?;
    thread::Builder::new().name("link-locks".into()).spawn(move || locks.run(&for_locks))?;
    let run = move || stations.run(&for_stations);
    thread::Builder::new().name("link-stations".into()).spawn(run)?;
    Ok(())
}

fn is_for_stations(event: &LinkEvent) -> bool {
    match event {
        LinkEvent::Published(number) => *number >= FIRST_NUMBER,
        LinkEvent::Message { topic, .. } => {
            let topic = Topic::parse(topic);
            matches!(
                topic,
                Some(Topic::Here { .. } | Topic::RevocationPiece { .. } | Topic::Piece { .. })
            )
        }
        LinkEvent::Up | LinkEvent::Down => false,
    }
}

fn settings(config: &Config) -> Result<Settings, LinkError> {
    let read = |path: &Path| {
        fs::read(path)
            .map_err(|source| LinkError::File { path: path.display().to_string(), source })
    };
    let certificate = read(&config.certificate)?;
    Ok(Settings {
        broker: config.address().unwrap_or_default(),
        ca: read(&config.ca)?,
        key: read(&config.key)?,
        client_id: format!("keywright-station-{}", hex::encode(&Sha256::digest(&certificate)[..8])),
        certificate,
        keep_alive: config.keep_alive_seconds,
        presence: None,
        subscriptions: station_subscriptions().to_vec(),
        max_packet: MAX_PACKET,
    })
}
