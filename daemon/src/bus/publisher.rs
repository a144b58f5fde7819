//! Publishes the station's outputs on the bus, strictly in their order: objects, properties, signals, replies.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use keywright_proto::bus::{MANAGER_PATH, key_path, serialization_path};
use tokio::sync::{mpsc, watch};
use zbus::{
    Connection, OwnedVariant, Variant,
    fdo::{self, Properties},
    object_server::Interface,
};

use super::{
    Context, key::KeyObject, manager::Manager, owner_watch::OwnerWatch,
    serialization::SerializationObject,
};
use crate::{
    outbox::Output,
    view::{Activity, DecisionView, KeyView, Label, SerializationView},
};

/// Adds, changes and removes all objects of the service.
pub struct Publisher {
    connection: Connection,
    context: Context,
    owner_watch: OwnerWatch,
    decisions: watch::Sender<Vec<DecisionView>>,
    keys: HashMap<Label, watch::Sender<KeyView>>,
    serializations: HashMap<u64, watch::Sender<SerializationView>>,
    activity: watch::Sender<Activity>,
}

/// What [`Publisher::publish_next`] has handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// A change or a reply.
    Output,
    /// The end of the initial state: all of it is on the bus.
    Ready,
    /// The station has ended.
    StationEnded,
}

impl Publisher {
    /// Exports the manager, and nothing else yet.
    pub async fn new(connection: &Connection, context: Context) -> zbus::Result<Self> {
        let (decisions, shown) = watch::channel(Vec::new());
        let server = connection.object_server();
        server.at(MANAGER_PATH, fdo::ObjectManager).await?;
        server.at(MANAGER_PATH, Manager::new(context.clone(), shown)).await?;
        Ok(Self {
            connection: connection.clone(),
            owner_watch: OwnerWatch::new(connection, context.station.clone()),
            context,
            decisions,
            keys: HashMap::new(),
            serializations: HashMap::new(),
            // No idle exit before the station has reported its activity.
            activity: watch::Sender::new(Activity { needed: true, ..Activity::default() }),
        })
    }

    /// The station's activity, as it last reported it.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// Publishes the next output.
    ///
    /// # Errors
    /// The connection to the bus is broken.
    pub async fn publish_next(
        &mut self,
        outputs: &mut mpsc::UnboundedReceiver<Output>,
    ) -> zbus::Result<Published> {
        match outputs.recv().await {
            Some(Output::Ready) => Ok(Published::Ready),
            Some(output) => self.publish(output).await.map(|()| Published::Output),
            None => Ok(Published::StationEnded),
        }
    }

    async fn publish(&mut self, output: Output) -> zbus::Result<()> {
        match output {
            Output::Key(label, view) => self.key(label, *view).await,
            Output::KeyGone(label) => {
                self.keys.remove(&label);
                self.remove::<KeyObject>(&key_path(&label)).await
            }
            Output::Serialization(number, view) => self.serialization(number, *view).await,
            Output::SerializationGone(number) => {
                self.serializations.remove(&number);
                self.watch_owners();
                self.remove::<SerializationObject>(&serialization_path(number)).await
            }
            Output::Decisions(decisions) => {
                change::<Manager, _>(&self.connection, MANAGER_PATH, &self.decisions, decisions)
                    .await
            }
            Output::Confirmed(key, rights) => {
                let server = self.connection.object_server();
                let manager = server.interface::<_, Manager>(MANAGER_PATH).await?;
                let emitter = manager.signal_emitter();
                Manager::rights_confirmed(emitter, &key.to_string(), &rights).await
            }
            Output::Activity(activity) => {
                self.activity.send_replace(activity);
                Ok(())
            }
            Output::Reply(answer) => {
                answer();
                Ok(())
            }
            Output::Ready => Ok(()),
        }
    }

    async fn key(&mut self, label: Label, view: KeyView) -> zbus::Result<()> {
        let path = key_path(&label);
        if let Some(shown) = self.keys.get(&label) {
            return change::<KeyObject, _>(&self.connection, &path, shown, view).await;
        }
        let (sender, shown) = watch::channel(view);
        let object = KeyObject::new(self.context.clone(), label.clone(), shown);
        self.keys.insert(label, sender);
        self.connection.object_server().at(path, object).await?;
        Ok(())
    }

    async fn serialization(&mut self, number: u64, view: SerializationView) -> zbus::Result<()> {
        let path = serialization_path(number);
        if let Some(shown) = self.serializations.get(&number) {
            change::<SerializationObject, _>(&self.connection, &path, shown, view).await?;
        } else {
            let (sender, shown) = watch::channel(view);
            let object = SerializationObject::new(self.context.clone(), number, shown);
            self.serializations.insert(number, sender);
            self.connection.object_server().at(path, object).await?;
        }
        self.watch_owners();
        Ok(())
    }

    async fn remove<I: Interface>(&self, path: &str) -> zbus::Result<()> {
        self.connection.object_server().remove::<I, _>(path).await?;
        Ok(())
    }

    fn watch_owners(&mut self) {
        let shown = self.serializations.values();
        let owners: BTreeSet<_> = shown.filter_map(|view| view.borrow().owner.clone()).collect();
        self.owner_watch.watch(&owners);
    }
}

/// Replaces a view, and signals all changed properties at once, so that no listener sees half of a change.
async fn change<I: Interface, V: PartialEq>(
    connection: &Connection,
    path: &str,
    shown: &watch::Sender<V>,
    view: V,
) -> zbus::Result<()> {
    if *shown.borrow() == view {
        return Ok(());
    }
    let server = connection.object_server();
    let object = server.interface::<_, I>(path).await?;
    let emitter = object.signal_emitter();
    let properties = async || object.get().await.get_all(server, connection, None, emitter).await;
    let before = properties().await?;
    shown.send_replace(view);
    let after = properties().await?;
    let changed = difference(&before, &after);
    if changed.is_empty() {
        return Ok(());
    }
    Properties::properties_changed(emitter, I::name(), changed, Cow::Borrowed(&[])).await
}

/// The properties whose values differ.
fn difference<'a>(
    before: &HashMap<String, OwnedVariant>,
    after: &'a HashMap<String, OwnedVariant>,
) -> HashMap<&'a str, Variant<'a>> {
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    changed.map(|(name, value)| (name.as_str(), Variant::clone(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[(&str, u32)]) -> HashMap<String, OwnedVariant> {
        values.iter().map(|(name, value)| ((*name).into(), OwnedVariant::from(*value))).collect()
    }

    #[test]
    fn only_changed_properties_are_in_the_difference() {
        let before = map(&[("Locks", 1), ("PendingLocks", 2)]);
        assert!(difference(&before, &before).is_empty());
        let after = map(&[("Locks", 2), ("PendingLocks", 2)]);
        assert_eq!(difference(&before, &after), HashMap::from([("Locks", Variant::from(2_u32))]));
    }
}
