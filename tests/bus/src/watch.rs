//! Waits for the daemon's signals, never for time.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};
use zbus::{
    Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant,
    fdo::{DBusProxy, ManagedObjects, PropertiesProxy},
    message::Type,
};

use crate::{
    LIMIT,
    api::{Decision, MANAGER_PATH, NAME},
    objects::Objects,
};

/// The properties of one interface.
type Properties = HashMap<String, OwnedVariant>;

/// A watcher with its own connection, as a front-end has one.
pub struct Watch {
    connection: Connection,
    signals: MessageStream,
}

impl Watch {
    /// Watches from now on, whether the daemon runs or not.
    pub async fn start(connection: Connection) -> Self {
        let signals = MessageStream::from(&connection);
        let dbus = DBusProxy::new(&connection).await.unwrap();
        let signal = || MatchRule::builder().msg_type(Type::Signal);
        let ours = signal().path_namespace(MANAGER_PATH).build().unwrap();
        let owner = signal().sender("org.freedesktop.DBus").add_arg(NAME);
        dbus.add_match_rule(ours).await.unwrap();
        dbus.add_match_rule(owner.build().unwrap()).await.unwrap();
        Self { connection, signals }
    }

    /// The daemon's objects now; none if no daemon runs.
    pub async fn objects(&self) -> Objects {
        Model::read(&self.connection).await.objects
    }

    /// Waits until `check` returns a value, and returns it. `what` describes it in the panic message.
    ///
    /// Panics with the last state if `check` returns none in time.
    pub async fn until<T>(&mut self, what: &str, check: impl Fn(&Objects) -> Option<T>) -> T {
        self.until_within(LIMIT, what, check).await
    }

    /// Like [`Watch::until`], with a longer limit.
    pub async fn until_within<T>(
        &mut self,
        limit: Duration,
        what: &str,
        check: impl Fn(&Objects) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        let mut model = Model::read(&self.connection).await;
        loop {
            if let Some(found) = check(&model.objects) {
                return found;
            }
            let Ok(signal) = timeout_at(deadline, self.next_signal()).await else {
                panic!("no signal brought: {what}. The last state was:\n{:?}", model.objects);
            };
            if is_new_owner(&signal) {
                model = Model::read(&self.connection).await;
            } else {
                model.apply(&signal);
            }
        }
    }

    /// Waits until a serialization is at this step.
    pub async fn until_step(&mut self, job: &OwnedObjectPath, step: &str) {
        let check =
            |objects: &Objects| objects.serialization(job)?.text("Step").eq(step).then_some(());
        self.until(&format!("{} at {step}", job.as_str()), check).await;
    }

    /// Waits until the manager's decisions give this reason for this pair, in either order; where
    /// there is no issuer, `/` may stand for one of them.
    pub async fn until_decision(&mut self, pair: [&OwnedObjectPath; 2], reason: &str) {
        let deadline = Instant::now() + LIMIT;
        let known = |path: &OwnedObjectPath| path.as_str() == "/" || pair.contains(&path);
        loop {
            let decisions = self.decisions().await;
            let found = |(issuer, other, why): &Decision| {
                why == reason && known(issuer) && pair.contains(&other)
            };
            if decisions.iter().any(found) {
                return;
            }
            if timeout_at(deadline, self.next_signal()).await.is_err() {
                panic!("no decision {reason:?} on {pair:?}, but {decisions:?}");
            }
        }
    }

    /// The manager's decisions now.
    pub async fn decisions(&self) -> Vec<Decision> {
        let properties = PropertiesProxy::builder(&self.connection);
        let properties = properties.destination(NAME).path(MANAGER_PATH);
        let interface = "org.keywright1.Manager".try_into().unwrap();
        let value = properties.build().await.unwrap().get(interface, "Decisions").await;
        value.map(|value| value.try_into().expect("a(oos)")).unwrap_or_default()
    }

    /// Every Step that was announced for a serialization since the last call, up to and including `last`.
    ///
    /// Panics if `last` is not announced in time.
    pub async fn steps_until(&mut self, job: &OwnedObjectPath, last: &str) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        let mut steps = Vec::new();
        while steps.last().is_none_or(|step| step != last) {
            let signal = timeout_at(deadline, self.next_signal()).await;
            let signal = signal.unwrap_or_else(|_| panic!("no {last}, only {steps:?}"));
            steps.extend(announced_step(&signal, job));
        }
        steps
    }

    /// The objects that were added since the last call, in order, up to and including `last`.
    ///
    /// Panics if `last` is not added in time.
    pub async fn added_until(&mut self, last: &OwnedObjectPath) -> Vec<OwnedObjectPath> {
        let deadline = Instant::now() + LIMIT;
        let mut added = Vec::new();
        while added.last() != Some(last) {
            let signal = timeout_at(deadline, self.next_signal()).await;
            let signal = signal.unwrap_or_else(|_| panic!("no {last:?}, only {added:?}"));
            if signal.header().member().is_some_and(|member| member == "InterfacesAdded") {
                let body = signal.body();
                let path: (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
                    body.deserialize().unwrap();
                added.push(path.0);
            }
        }
        added
    }

    async fn next_signal(&mut self) -> Message {
        loop {
            let message = self.signals.next().await.expect("the bus runs").unwrap();
            if message.message_type() == Type::Signal {
                return message;
            }
        }
    }
}

/// The daemon's objects, read once and then updated from its signals, as in a front-end.
struct Model {
    objects: Objects,
    /// The reply that the objects were read from; none if no daemon runs. Signals of other senders,
    /// and those that came before the reply, are not applied.
    reply: Option<Message>,
}

impl Model {
    async fn read(connection: &Connection) -> Self {
        let interface = Some("org.freedesktop.DBus.ObjectManager");
        let called = connection
            .call_method(Some(NAME), MANAGER_PATH, interface, "GetManagedObjects", &())
            .await;
        let Ok(reply) = called else {
            return Self { objects: Objects::default(), reply: None };
        };
        let managed = reply.body().deserialize::<ManagedObjects>().expect("a{oa{sa{sv}}}");
        Self { objects: Objects::new(managed), reply: Some(reply) }
    }

    fn apply(&mut self, signal: &Message) {
        let header = signal.header();
        let is_newer = self.reply.as_ref().is_some_and(|reply| {
            header.sender() == reply.header().sender()
                && signal.recv_position() > reply.recv_position()
        });
        let Some(member) = header.member().filter(|_| is_newer) else { return };
        let body = signal.body();
        match member.as_str() {
            "InterfacesAdded" => {
                let (path, interfaces): (OwnedObjectPath, HashMap<String, Properties>) =
                    body.deserialize().expect("oa{sa{sv}}");
                for (interface, properties) in interfaces {
                    self.objects.add(&path, &interface, properties);
                }
            }
            "InterfacesRemoved" => {
                let (path, interfaces): (OwnedObjectPath, Vec<String>) =
                    body.deserialize().expect("oas");
                for interface in interfaces {
                    self.objects.remove(&path, &interface);
                }
            }
            "PropertiesChanged" => {
                let (interface, changed, invalidated): (String, Properties, Vec<String>) =
                    body.deserialize().expect("sa{sv}as");
                assert!(invalidated.is_empty(), "{interface}: {invalidated:?} without values");
                let path = header.path().expect("a signal has a path");
                self.objects.change(path.as_str(), &interface, changed);
            }
            _ => {}
        }
    }
}

/// Whether the daemon took or lost its name.
fn is_new_owner(signal: &Message) -> bool {
    signal.header().member().is_some_and(|member| member == "NameOwnerChanged")
}

/// The Step in a PropertiesChanged of this object, or in the InterfacesAdded that brought it.
fn announced_step(signal: &Message, job: &OwnedObjectPath) -> Option<String> {
    let header = signal.header();
    let step = |mut properties: Properties| String::try_from(properties.remove("Step")?).ok();
    match header.member()?.as_str() {
        "PropertiesChanged" if header.path()? == &**job => {
            let (_, changed, _): (String, Properties, Vec<String>) =
                signal.body().deserialize().ok()?;
            step(changed)
        }
        "InterfacesAdded" => {
            let (path, mut interfaces): (OwnedObjectPath, HashMap<String, Properties>) =
                signal.body().deserialize().ok()?;
            let ours = path == *job;
            interfaces.remove("org.keywright1.Serialization").filter(|_| ours).and_then(step)
        }
        _ => None,
    }
}
