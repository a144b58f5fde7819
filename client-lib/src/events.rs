//! Follows the daemon's D-Bus signals and reports them as typed events, each change once.
//!
//! A [`Watch`] subscribes first, then fetches the whole state, then reports differences. It stays
//! subscribed while the daemon is off the bus: an idle daemon exits, and the next plug starts it again.

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

/// Messages that zbus queues for a stream before it stops reading the socket.
const QUEUE: Option<NonZeroUsize> = NonZeroUsize::new(1024);

/// A change of the daemon's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchEvent {
    /// A Key's object appeared.
    KeyAdded {
        /// Its new state.
        key: Key,
    },
    /// A property of a Key changed; `present` changes with plug and unplug.
    KeyChanged {
        /// Its new state.
        key: Key,
    },
    /// A Key's object was removed.
    KeyRemoved {
        /// Its last state.
        key: Key,
    },
    /// A serialization was offered, or started by a call.
    OfferAdded {
        /// Its new state.
        serialization: Serialization,
    },
    /// A serialization entered another step.
    StepChanged {
        /// Its new state.
        serialization: Serialization,
    },
    /// The write made progress.
    Progress {
        /// Its new state.
        serialization: Serialization,
    },
    /// Another property of a serialization changed: owner, PINs needed, outcome…
    OfferChanged {
        /// Its new state.
        serialization: Serialization,
    },
    /// A serialization's object was removed.
    OfferRemoved {
        /// Its last state.
        serialization: Serialization,
    },
    /// The list of pairs without an offer changed.
    DecisionsChanged {
        /// The new list.
        decisions: Vec<Decision>,
    },
    /// Locks confirmed changes of a Key's rights.
    RightsConfirmed {
        /// The Key's id.
        key_id: String,
        /// The confirmed rights.
        rights: Vec<ConfirmedRight>,
    },
    /// The daemon left the bus.
    DaemonGone,
    /// The daemon is on the bus again; events for what changed meanwhile follow.
    DaemonBack,
}

/// A right whose change a Lock has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfirmedRight {
    /// The Lock's id.
    pub lock_id: String,
    /// `active` or `removed`.
    pub state: String,
    /// Seconds from the change to its confirmation.
    pub waited: u64,
}

/// Follows the daemon's state.
#[derive(Debug)]
pub struct Watch {
    state: State,
    changes: UnboundedReceiver<Result<Change>>,
    events: VecDeque<WatchEvent>,
}

impl Watch {
    /// Subscribes, and returns once the daemon's current state is known. Does not start the daemon;
    /// [`Client::version`] does.
    pub async fn start(client: &Client) -> Result<Self> {
        // Unbounded, because a full queue would block the replies to calls on the same connection.
        // It is filled by one daemon only, at the pace of plugs and token commands.
        let (out, changes) = unbounded_channel();
        let listener = Listener::start(client.connection().clone(), out).await?;
        tokio::spawn(listener.run());
        let mut watch = Self { state: State::default(), changes, events: VecDeque::new() };
        watch.receive_change().await?;
        watch.events.clear();
        Ok(watch)
    }

    /// The daemon's state after the last event that [`Watch::next`] can return.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Waits for the next event. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Bus`] if the connection ended, [`Error::Malformed`] if a signal or reply does not have its
    /// documented type.
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

/// The task that reads the bus and forwards changes in order.
struct Listener {
    connection: Connection,
    /// False on a peer-to-peer connection: there are no bus names, and the peer is the daemon.
    on_bus: bool,
    owner: Option<OwnedUniqueName>,
    signals: MessageStream,
    owners: MessageStream,
    out: UnboundedSender<Result<Change>>,
}

/// One message from the bus that concerns the daemon.
enum BusInput {
    Signal(Signal),
    /// The daemon's name has a new owner; None: it has none.
    Owner(Option<OwnedUniqueName>),
    /// A signal of the daemon that could not be decoded.
    Unreadable(Error),
    /// The connection ended, or nobody receives changes any more.
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

    /// Fetches the whole state and collects the signals that arrive meanwhile. None when the connection ended.
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
                // Biased: signals that arrived before the reply are read before the reply.
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
                        // It left the bus during the call. A new owner is fetched from again.
                        Err(Error::NotRunning(_)) => Ok(Change::Gone),
                        Err(error) => Err(error),
                    }),
                }
            }
        }
    }

    /// Waits for the next message that concerns the daemon. Cancel safe: a message is taken out only to be returned.
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
            // Any program can send this client a signal; only the daemon's are used.
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

/// Returns the owner of the daemon's bus name.
async fn owner(connection: &Connection) -> Result<Option<OwnedUniqueName>> {
    let name = BusName::try_from(bus::NAME)?;
    match DBusProxy::new(connection).await?.get_name_owner(name).await {
        Ok(owner) => Ok(Some(owner)),
        Err(zbus::fdo::Error::NameHasNoOwner(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads the new owner from a `NameOwnerChanged` signal of the bus; None if it is another message.
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
