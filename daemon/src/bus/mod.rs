//! The D-Bus service `org.keywright1`: properties and signals show what the station puts out, methods
//! check who asks and for what, and then only ask.

pub mod arguments;
pub mod authorizer;
pub mod calls;
mod error;
mod file_fd;
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

use std::{convert::Infallible, str::FromStr, time::Duration};

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

/// How long the calls that have come in may take when the daemon ends because nobody needs it.
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

/// The service could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such bus, or it lets nobody in.
    #[error("cannot reach the {bus} bus: {source}; is it running, and is the address right?")]
    Unreachable {
        /// The bus.
        bus: Bus,
        /// Why not.
        source: zbus::Error,
    },
    /// Another daemon is there.
    #[error(
        "the name {NAME} is taken on the {0} bus: another keywrightd is running there; stop it first"
    )]
    NameTaken(Bus),
    /// The bus broke off.
    #[error("the {bus} bus failed: {source}; start the daemon again")]
    Failed {
        /// The bus.
        bus: Bus,
        /// How.
        source: zbus::Error,
    },
    /// The station's thread is gone.
    #[error("the daemon's own work has stopped; look for the reason above, and start it again")]
    StationEnded,
}

/// What methods need to answer.
#[derive(Clone)]
pub struct Context {
    /// Asks the station.
    pub station: Handle,
    /// Answers lists.
    pub registry: Registry,
    /// Says who may.
    pub authorizer: Authorizer,
    /// How long the revocation of a senior waits, in seconds.
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
    /// Shows everything that is known. The name comes later: see [`Service::claim_name`].
    ///
    /// # Errors
    /// The bus broke off, or the station has ended.
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
        let context = Context { station: station.clone(), registry, authorizer, revoke_delay };
        let publisher = match Publisher::new(&connection, context).await {
            Ok(publisher) => publisher,
            Err(source) => return Err(ServiceError::Failed { bus, source }),
        };
        let mut service = Self { bus, connection, station, calls, publisher, outputs };
        while service.publish_next().await? != Published::Ready {}
        Ok(service)
    }

    /// Takes the well-known name: from now on callers come.
    ///
    /// # Errors
    /// Another daemon has it, or the bus broke off.
    pub async fn claim_name(&self) -> Result<(), ServiceError> {
        // Asked by hand: nobody can take the name away, so zbus need not listen for that first.
        let alone = RequestNameFlags::DO_NOT_QUEUE;
        let asked = async { self.driver().await?.request_name(well_known(), alone).await };
        match asked.await {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
            Ok(_) => Err(ServiceError::NameTaken(self.bus.clone())),
            Err(source) => Err(self.failed(source.into())),
        }
    }

    /// Publishes what the station puts out, until the bus breaks off or the station ends.
    ///
    /// # Errors
    /// Always: which of the two it was.
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

    /// What the station does, as it was last put out.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.publisher.activity()
    }

    /// Knows when somebody last called.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// The connection to the bus.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Gives the name back, and answers the calls that have come in until then.
    ///
    /// # Errors
    /// The bus broke off, or the station ended.
    pub async fn retire(&mut self) -> Result<(), ServiceError> {
        self.release_name().await;
        let station = self.station.clone();
        // The bus has answered, so whatever it passed on before has come in. What was begun waits for something, or is
        // answered.
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

    /// Gives the name back: nobody is let in any more.
    pub async fn release_name(&self) {
        let asked = async { self.driver().await?.release_name(well_known()).await };
        if let Err(error) = asked.await {
            tracing::debug!(%error, "the bus is gone already");
        }
    }

    /// The bus itself.
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
    /// Who sent this call, if it may.
    async fn authorize(&self, call: &Header<'_>, action: &'static str) -> Result<Caller, Error> {
        let _pending = self.station.pending();
        let checked = self.authorizer.check(call, action).await;
        if let Err(denied) = checked {
            self.station.tell(move |station| station.refused_call(denied.uid, denied.action));
        }
        Ok(checked?)
    }

    /// Hands on what came of papers that a caller brought; has it logged where they are not believed.
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

    /// Asks the station in the name of a caller.
    async fn ask<T: Send + 'static>(
        &self,
        caller: &Caller,
        question: impl FnOnce(&mut Station, Reply<T>) + Send + 'static,
    ) -> Result<T, Error> {
        self.station.ask_for(caller.uid, question).await
    }

    /// As of now.
    fn moment(&self) -> Moment {
        Moment::now(self.revoke_delay)
    }

    /// Reads from the registry, on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Registry) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _pending = self.station.pending();
        let registry = self.registry.clone();
        // A query that panics has been reported by then; its caller cannot be told more.
        spawn_blocking(move || query(&registry)).await.unwrap_or(Err(Error::Stopping))
    }
}

impl Bus {
    /// A connection to it.
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

/// An object path; `/` where there is none.
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
