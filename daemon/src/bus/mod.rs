//! The D-Bus service `org.keywright1`. Properties and signals publish the station's outputs. A method authorizes the
//! caller, checks the arguments and asks the station or the registry; it applies no rules itself.
//!
//! | subject | file |
//! | --- | --- |
//! | interfaces, and their documentation (`docs/dbus.md`) | `manager.rs`, `key.rs`, `serialization.rs` |
//! | who may call, and how many calls at a time | `authorizer.rs`, `in_flight.rs` |
//! | arguments, PINs, files | `arguments.rs`, `secret_fd.rs`, `file_fd.rs` |
//! | signals, in the station's order | `publisher.rs` |
//! | lists that need several queries | `lists.rs` |
//! | owners that leave the bus, idle exit, suspend | `owner_watch.rs`, `calls.rs`, `sleep.rs` |
//! | D-Bus errors | `error.rs` |

pub mod arguments;
pub mod authorizer;
pub mod calls;
mod error;
mod file_fd;
mod in_flight;
#[cfg(test)]
mod introspection_tests;
pub mod key;
mod lists;
pub mod manager;
mod owner_watch;
mod publisher;
pub mod secret_fd;
pub mod serialization;
pub mod sleep;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, ops::Deref, str::FromStr, time::Duration};

use keywright_proto::{
    ErrorName,
    bus::{NAME, NO_OBJECT},
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};
use zbus::{
    Connection, ObjectPath, connection,
    fdo::{DBusProxy, RequestNameFlags, RequestNameReply},
    message::Header,
    names::WellKnownName,
};

use self::{
    authorizer::{Authorizer, Policy},
    calls::Calls,
    in_flight::{InFlight, MAX_CALLS, MAX_FILES, Slot},
    publisher::{Published, Publisher},
};
use crate::{
    caller::Caller,
    error::Error,
    families::Brought,
    outbox::Output,
    registry::Registry,
    station::{Handle, Reply, Station},
    trust::Moment,
    view::Activity,
};

/// How long idle exit waits for the replies to calls that have come in.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Which bus the service is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// The system bus.
    System,
    /// The bus of this login session.
    Session,
    /// The bus at a D-Bus address.
    Address(String),
}

/// Why the service could not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such bus, or it refuses the connection.
    #[error("cannot reach the {bus} bus: {source}; is it running, and is the address right?")]
    Unreachable {
        /// The bus.
        bus: Bus,
        /// The cause.
        source: zbus::Error,
    },
    /// Another daemon owns the name.
    #[error(
        "the name {NAME} is taken on the {0} bus: another keywrightd is running there; stop it first"
    )]
    NameTaken(Bus),
    /// The connection to the bus broke.
    #[error("the {bus} bus failed: {source}; start the daemon again")]
    Failed {
        /// The bus.
        bus: Bus,
        /// The cause.
        source: zbus::Error,
    },
    /// The station's thread has ended.
    #[error("the daemon's own work has stopped; look for the reason above, and start it again")]
    StationEnded,
}

/// A call that is allowed. It counts as open until this is dropped.
#[must_use]
struct Open {
    caller: Caller,
    _slot: Slot,
}

impl Deref for Open {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// The parts of the daemon that methods use.
#[derive(Clone)]
pub struct Context {
    /// Asks the station.
    pub station: Handle,
    /// Read by lists and look-ups.
    pub registry: Registry,
    /// Checks callers.
    pub authorizer: Authorizer,
    /// The calls that each user has open.
    calls: InFlight,
    /// The calls of each user that read or write a file.
    files: InFlight,
    /// Delay before the revocation of a Master or senior Backup takes effect, in seconds.
    pub revoke_delay: u64,
}

/// The service, on its bus.
pub struct Service {
    bus: Bus,
    connection: Connection,
    station: Handle,
    calls: Calls,
    publisher: Publisher,
    outputs: mpsc::UnboundedReceiver<Output>,
}

impl Service {
    /// Exports all objects that the station knows. The name is taken later: see [`Service::claim_name`].
    ///
    /// # Errors
    /// The connection to the bus broke, or the station has ended.
    pub async fn open(
        bus: Bus,
        connection: Connection,
        station: Handle,
        registry: Registry,
        revoke_delay: u64,
        outputs: mpsc::UnboundedReceiver<Output>,
    ) -> Result<Self, ServiceError> {
        let policy = if bus == Bus::System { Policy::Polkit } else { own_user() };
        let calls = Calls::listen(&connection);
        let authorizer = Authorizer::new(&connection, policy);
        let context = Context {
            station: station.clone(),
            registry,
            authorizer,
            calls: InFlight::new(MAX_CALLS, "calls"),
            files: InFlight::new(MAX_FILES, "exports or imports"),
            revoke_delay,
        };
        let publisher = match Publisher::new(&connection, context).await {
            Ok(publisher) => publisher,
            Err(source) => return Err(ServiceError::Failed { bus, source }),
        };
        let mut service = Self { bus, connection, station, calls, publisher, outputs };
        while service.publish_next().await? != Published::Ready {}
        Ok(service)
    }

    /// Takes the well-known name, so that callers find the service.
    ///
    /// # Errors
    /// Another daemon has it, or the connection to the bus broke.
    pub async fn claim_name(&self) -> Result<(), ServiceError> {
        // Not `Connection::request_name`: it would first listen for the loss of the name, and nobody can take it away.
        let alone = RequestNameFlags::DO_NOT_QUEUE;
        let asked = async { self.driver().await?.request_name(well_known(), alone).await };
        match asked.await {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
            Ok(_) => Err(ServiceError::NameTaken(self.bus.clone())),
            Err(source) => Err(self.failed(source.into())),
        }
    }

    /// Publishes the station's outputs until the connection to the bus breaks or the station ends.
    ///
    /// # Errors
    /// Always: which of the two happened.
    pub async fn run(&mut self) -> Result<Infallible, ServiceError> {
        let connection = self.connection.clone();
        let closed = connection.closed();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                published = self.publish_next() => published?,
                () = &mut closed => {
                    return Err(self.failed(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()));
                }
            };
        }
    }

    /// The station's activity, as it last reported it.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.publisher.activity()
    }

    /// The time of the last call.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// The connection to the bus.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Gives the name back, then waits until all calls received before are answered, at most [`LAST_ANSWERS`].
    ///
    /// # Errors
    /// The connection to the bus broke, or the station ended.
    pub async fn retire(&mut self) -> Result<(), ServiceError> {
        self.release_name().await;
        let station = self.station.clone();
        // The bus has replied to ReleaseName, so every call that it delivered before has arrived here.
        let answered = async {
            Calls::dispatched().await;
            station.answered().await;
            Calls::dispatched().await;
        };
        tokio::select! {
            ended = self.run() => match ended? {},
            answered = timeout(LAST_ANSWERS, answered) => match answered {
                Ok(()) => Ok(()),
                Err(_) => {
                    tracing::warn!("a call was still not answered when the daemon ended");
                    Ok(())
                }
            },
        }
    }

    /// Gives the name back, so that new callers start or wait for another process.
    pub async fn release_name(&self) {
        let asked = async { self.driver().await?.release_name(well_known()).await };
        if let Err(error) = asked.await {
            tracing::debug!(%error, "the bus is gone already");
        }
    }

    /// A proxy of the bus daemon.
    async fn driver(&self) -> zbus::fdo::Result<DBusProxy<'_>> {
        Ok(DBusProxy::new(&self.connection).await?)
    }

    async fn publish_next(&mut self) -> Result<Published, ServiceError> {
        match self.publisher.publish_next(&mut self.outputs).await {
            Ok(Published::StationEnded) => Err(ServiceError::StationEnded),
            Ok(published) => Ok(published),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: zbus::Error) -> ServiceError {
        ServiceError::Failed { bus: self.bus.clone(), source }
    }
}

impl Context {
    /// The caller, if polkit allows it this action; a refusal is logged. polkit may ask a person for minutes, so a user with too
    /// many calls open is refused before.
    async fn authorize(&self, call: &Header<'_>, action: &'static str) -> Result<Open, Error> {
        let _pending = self.station.pending();
        let caller = self.authorizer.caller(call).await;
        let Some(caller) = caller else { return Err(self.refuse(None, action)) };
        let slot = self.calls.enter(caller.uid)?;
        if self.authorizer.allows(&caller, call, action).await {
            Ok(Open { caller, _slot: slot })
        } else {
            Err(self.refuse(Some(caller.uid), action))
        }
    }

    fn refuse(&self, uid: Option<u32>, action: &'static str) -> Error {
        self.station.tell(move |station| station.refused_call(uid, action));
        Error::NotAuthorized { action }
    }

    /// Returns `result`, after logging it if the objects that the caller brought did not verify.
    fn log_if_unverified<T>(
        &self,
        caller: &Caller,
        what: Brought,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if result.as_ref().is_err_and(|error| error.name() == ErrorName::Unverified) {
            let uid = caller.uid;
            self.station.tell(move |station| station.refused_objects(Some(uid), what));
        }
        result
    }

    /// Asks the station on behalf of a caller.
    async fn ask<T: Send + 'static>(
        &self,
        caller: &Caller,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.station.ask_for(caller.uid, question).await
    }

    /// The time at which trust is judged: now.
    fn moment(&self) -> Moment {
        Moment::now(&self.registry, self.revoke_delay)
    }

    /// Reads from the registry, on a thread that may block on the disk.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Registry) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _pending = self.station.pending();
        let registry = self.registry.clone();
        // The panic of a query is in the journal; there is nothing more to tell its caller.
        spawn_blocking(move || query(&registry)).await.unwrap_or(Err(Error::Stopping))
    }
}

impl Bus {
    /// Connects to the bus.
    ///
    /// # Errors
    /// [`ServiceError::Unreachable`].
    pub async fn connect(&self) -> Result<Connection, ServiceError> {
        let builder = match self {
            Self::System => connection::Builder::system(),
            Self::Session => connection::Builder::session(),
            Self::Address(address) => connection::Builder::address(address.as_str()),
        };
        let connected = builder.build().await;
        connected.map_err(|source| ServiceError::Unreachable { bus: self.clone(), source })
    }
}

impl FromStr for Bus {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "system" => Self::System,
            "session" => Self::Session,
            address => Self::Address(address.into()),
        })
    }
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Session => "session",
            Self::Address(address) => address,
        })
    }
}

/// An object path; `/` for none.
fn object_path(path: Option<String>) -> ObjectPath<'static> {
    let path = path.and_then(|path| ObjectPath::try_from(path).ok());
    path.unwrap_or_else(|| ObjectPath::from_static_str_unchecked(NO_OBJECT))
}

fn well_known() -> WellKnownName<'static> {
    WellKnownName::from_static_str_unchecked(NAME)
}

fn own_user() -> Policy {
    Policy::OnlyUser(rustix::process::getuid().as_raw())
}
