//! What happens, as typed events: nothing twice, nothing left out.
//!
//! A [`Watch`] first listens, then asks for everything, then reports differences. Its match rules
//! stay while the daemon is gone: the daemon leaves the bus when it is idle, and comes back with
//! the next plug.

use std::{
    collections::VecDeque,
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
};

use futures_core::Stream;
use keywright_proto::bus;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zbus::{
    Connection, MatchRule, MessageStream,
    fdo::DBusProxy,
    message::{Message, Type},
    names::{BusName, OwnedUniqueName},
};

use crate::{
    client::Client,
    error::{Error, Result},
    model::{Decision, Key, Serialization, State},
    snapshot::{self, Change, Signal},
};

/// Messages that zbus may queue for us before it stops reading the socket.
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(1024);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// A Key is there that was not.
    KeyAdded {
        /// As it is now.
        key: Key,
    },
    /// A property of a Key changed; `present` tells of plug and unplug.
    KeyChanged {
        /// As it is now.
        key: Key,
    },
    /// A Key's object is gone.
    KeyRemoved {
        /// As it was last.
        key: Key,
    },
    /// A serialization is offered, or was started.
    OfferAdded {
        /// As it is now.
        serialization: Serialization,
    },
    /// A serialization entered another step.
    StepChanged {
        /// As it is now.
        serialization: Serialization,
    },
    /// The write went on.
    Progress {
        /// As it is now.
        serialization: Serialization,
    },
    /// Another property of a serialization changed: owner, PINs needed, outcome…
    OfferChanged {
        /// As it is now.
        serialization: Serialization,
    },
    /// A serialization's object is gone.
    OfferRemoved {
        /// As it was last.
        serialization: Serialization,
    },
    /// The pairs without an offer are others now.
    DecisionsChanged {
        /// All of them.
        decisions: Vec<Decision>,
    },
    /// Locks have confirmed what changes rights of a Key.
    RightsConfirmed {
        /// The Key's id.
        key_id: String,
        /// The rights.
        rights: Vec<ConfirmedRight>,
    },
    /// The daemon left the bus.
    DaemonGone,
    /// The daemon is on the bus; what changed meanwhile follows.
    DaemonBack,
}

/// A right that waits no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfirmedRight {
    /// The Lock's id.
    pub lock_id: String,
    /// `active` or `removed`.
    pub state: String,
    /// For how many seconds it waited.
    pub waited: u64,
}

/// Follows the daemon.
#[derive(Debug)]
pub struct Watch {
    state: State,
    changes: UnboundedReceiver<Result<Change>>,
    events: VecDeque<WatchEvent>,
}

impl Watch {
    /// Starts to listen; returns with the daemon's state as of now. Does not start the daemon:
    /// [`Client::version`] does.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn start(client: &Client) -> Result<Self> {
        // Unbounded, because a full queue would hold back the replies to calls on the same
        // connection; what fills it is one daemon at the pace of hands and tokens.
        let (out, changes) = unbounded_channel();
        let listener = Listener::start(client.connection().clone(), out).await?;
        tokio::spawn(listener.run());
        let mut watch = Self { state: State::default(), changes, events: VecDeque::new() };
        watch.receive_change().await?;
        watch.events.clear();
        Ok(watch)
    }

    /// Everything that the events told so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Waits for the next event. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Bus`] where the connection ended, [`Error::Malformed`] where the daemon's answers
    /// are not those of the contract.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.receive_change().await?;
        }
    }

    async fn receive_change(&mut self) -> Result<()> {
        let change = self.changes.recv().await.ok_or_else(Error::closed)??;
        let mut events = Vec::new();
        self.state.apply(change, &mut events)?;
        self.events.extend(events);
        Ok(())
    }
}

/// The task that reads the bus and passes on what it hears, in order.
struct Listener {
    connection: Connection,
    /// Straight to a daemon there are no names: whoever is there is the daemon.
    on_bus: bool,
    owner: Option<OwnedUniqueName>,
    signals: MessageStream,
    owners: MessageStream,
    out: UnboundedSender<Result<Change>>,
}

enum BusInput {
    Signal(Signal),
    Owner(Option<OwnedUniqueName>),
    Unreadable(Error),
    End,
}

impl Listener {
    async fn start(connection: Connection, out: UnboundedSender<Result<Change>>) -> Result<Self> {
        let signals = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(bus::NAME)
            .path_namespace(bus::MANAGER_PATH)
            .build()?;
        let signals = MessageStream::for_match_rule(signals, &connection, QUEUE).await?;
        let owners = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg(bus::NAME)
            .build()?;
        let owners = MessageStream::for_match_rule(owners, &connection, QUEUE).await?;
        let on_bus = connection.is_bus();
        let owner = if on_bus { owner(&connection).await? } else { None };
        Ok(Self { connection, on_bus, owner, signals, owners, out })
    }

    async fn run(mut self) {
        let mut is_stale = true;
        loop {
            if std::mem::take(&mut is_stale) {
                let Some(change) = self.fetch_state().await else { return };
                if self.out.send(change).is_err() {
                    return;
                }
            }
            let sent = match self.next_input().await {
                BusInput::Signal(signal) => self.out.send(Ok(Change::Signal(signal))),
                BusInput::Unreadable(error) => self.out.send(Err(error)),
                BusInput::Owner(owner) => {
                    self.owner = owner;
                    is_stale = true;
                    Ok(())
                }
                BusInput::End => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The whole state, with what is signalled meanwhile; None at the end of the connection.
    async fn fetch_state(&mut self) -> Option<Result<Change>> {
        'again: loop {
            let destination = match &self.owner {
                Some(owner) => owner.to_string(),
                None if self.on_bus => return Some(Ok(Change::Gone)),
                None => bus::NAME.to_owned(),
            };
            let connection = self.connection.clone();
            let mut fetch = pin!(snapshot::fetch(&connection, &destination));
            let mut later = Vec::new();
            loop {
                // Biased: what arrived before the reply is taken in before the reply.
                tokio::select! { biased;
                    input = self.next_input() => match input {
                        BusInput::Signal(signal) => later.push(signal),
                        BusInput::Unreadable(error) => return Some(Err(error)),
                        BusInput::Owner(owner) => {
                            self.owner = owner;
                            continue 'again;
                        }
                        BusInput::End => return None,
                    },
                    snapshot = &mut fetch => return Some(match snapshot {
                        Ok(snapshot) => Ok(Change::Full(snapshot, later)),
                        // It left while it was asked; its next owner is another question.
                        Err(Error::NotRunning(_)) => Ok(Change::Gone),
                        Err(error) => Err(error),
                    }),
                }
            }
        }
    }

    /// The next thing that is ours. Cancel safe: a message is taken out only to be returned.
    async fn next_input(&mut self) -> BusInput {
        let Self { signals, owners, out, owner, on_bus, .. } = self;
        loop {
            let message = tokio::select! { biased;
                () = out.closed() => return BusInput::End,
                message = next(owners) => match message {
                    Some(Ok(message)) => match new_owner(&message) {
                        Some(owner) => return BusInput::Owner(owner),
                        None => continue,
                    },
                    _ => return BusInput::End,
                },
                message = next(signals) => match message {
                    Some(Ok(message)) => message,
                    _ => return BusInput::End,
                },
            };
            // Anybody may send us a signal; only the daemon's count.
            if *on_bus && message.header().sender() != owner.as_deref() {
                continue;
            }
            match snapshot::signal(&message) {
                Ok(Some(signal)) => return BusInput::Signal(signal),
                Ok(None) => {}
                Err(error) => return BusInput::Unreadable(error),
            }
        }
    }
}

/// Who owns the daemon's name.
async fn owner(connection: &Connection) -> Result<Option<OwnedUniqueName>> {
    let name = BusName::try_from(bus::NAME)?;
    match DBusProxy::new(connection).await?.get_name_owner(name).await {
        Ok(owner) => Ok(Some(owner)),
        Err(zbus::fdo::Error::NameHasNoOwner(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The new owner in a `NameOwnerChanged` of the bus itself.
fn new_owner(message: &Message) -> Option<Option<OwnedUniqueName>> {
    if message.header().sender()?.as_str() != "org.freedesktop.DBus" {
        return None;
    }
    let (_, _, new): (String, String, String) = message.body().deserialize().ok()?;
    if new.is_empty() { Some(None) } else { OwnedUniqueName::try_from(new).ok().map(Some) }
}

async fn next(stream: &mut MessageStream) -> Option<zbus::Result<Message>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
