//! Applies signals and snapshots to [`State`] and derives events. No I/O, except in [`fetch`].

use std::collections::HashMap;

use keywright_proto::bus;
use zbus::{
    Connection, OwnedObjectPath,
    fdo::ManagedObjects,
    message::Message,
    names::{BusName, InterfaceName},
};

use crate::{
    error::Result,
    events::{ConfirmedRight, WatchEvent},
    model::{Decision, Key, Properties, Serialization, State, take},
};

/// The daemon's objects and the Manager's properties, as received.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) objects: ManagedObjects,
    pub(crate) manager: Properties,
}

/// A change to apply to [`State`].
#[derive(Debug)]
pub(crate) enum Change {
    /// The daemon left the bus.
    Gone,
    /// A snapshot, and the signals that arrived while it was fetched: they may be newer.
    Full(Snapshot, Vec<Signal>),
    /// A signal.
    Signal(Signal),
}

/// A signal about one object, as received.
#[derive(Debug)]
pub(crate) enum Signal {
    Added { path: String, interface: String, properties: Properties },
    Changed { path: String, interface: String, properties: Properties },
    Removed { path: String, interfaces: Vec<String> },
    Confirmed { key_id: String, rights: Vec<ConfirmedRight> },
}

/// Fetches the daemon's whole state. `destination` is its well-known name, for which the bus starts
/// the daemon if it can, or its unique name, which starts nothing.
pub(crate) async fn fetch(connection: &Connection, destination: &str) -> Result<Snapshot> {
    let destination = BusName::try_from(destination)?;
    let objects = connection
        .call_method(
            Some(&destination),
            bus::MANAGER_PATH,
            Some("org.freedesktop.DBus.ObjectManager"),
            "GetManagedObjects",
            &(),
        )
        .await?;
    let manager = connection
        .call_method(
            Some(&destination),
            bus::MANAGER_PATH,
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &InterfaceName::try_from(bus::MANAGER)?,
        )
        .await?;
    Ok(Snapshot { objects: objects.body().deserialize()?, manager: manager.body().deserialize()? })
}

/// Decodes a signal; None if it is not one of the daemon's documented signals.
pub(crate) fn signal(message: &Message) -> Result<Option<Signal>> {
    let header = message.header();
    let (Some(member), Some(path)) = (header.member(), header.path()) else {
        return Ok(None);
    };
    let body = message.body();
    Ok(match member.as_str() {
        "InterfacesAdded" => {
            let (path, interfaces): (OwnedObjectPath, HashMap<String, Properties>) =
                body.deserialize()?;
            let path = path.to_string();
            // An object has one Keywright interface, beside the standard ones.
            interfaces
                .into_iter()
                .find(|(interface, _)| [bus::KEY, bus::SERIALIZATION].contains(&interface.as_str()))
                .map(|(interface, properties)| Signal::Added { path, interface, properties })
        }
        "InterfacesRemoved" => {
            let (path, interfaces): (OwnedObjectPath, Vec<String>) = body.deserialize()?;
            Some(Signal::Removed { path: path.to_string(), interfaces })
        }
        "PropertiesChanged" => {
            // The daemon always sends values; it never uses the list of invalidated names.
            let (interface, properties, _): (String, Properties, Vec<String>) =
                body.deserialize()?;
            Some(Signal::Changed { path: path.to_string(), interface, properties })
        }
        "RightsConfirmed" => {
            let (key_id, rows): (String, Vec<(String, String, u64)>) = body.deserialize()?;
            let right = |(lock_id, state, waited)| ConfirmedRight { lock_id, state, waited };
            Some(Signal::Confirmed { key_id, rights: rows.into_iter().map(right).collect() })
        }
        _ => None,
    })
}

impl State {
    /// Builds the state from a snapshot.
    pub(crate) fn from_snapshot(snapshot: Snapshot) -> Result<Self> {
        let mut state = Self { running: true, ..Self::default() };
        let mut ignored = Vec::new();
        for (path, interfaces) in snapshot.objects {
            for (interface, properties) in interfaces {
                let (path, interface) = (path.to_string(), interface.to_string());
                state.apply_signal(Signal::Added { path, interface, properties }, &mut ignored)?;
            }
        }
        state.apply_decisions(snapshot.manager, &mut ignored)?;
        Ok(state)
    }

    /// Applies a change and appends the resulting events, one for each difference.
    pub(crate) fn apply(&mut self, change: Change, events: &mut Vec<WatchEvent>) -> Result<()> {
        match change {
            Change::Gone => {
                if std::mem::take(&mut self.running) {
                    events.push(WatchEvent::DaemonGone);
                }
                Ok(())
            }
            Change::Signal(signal) => self.apply_signal(signal, events),
            Change::Full(snapshot, later) => {
                let mut new = Self::from_snapshot(snapshot)?;
                let mut ignored = Vec::new();
                for signal in later {
                    new.apply_signal(signal, &mut ignored)?;
                }
                let old = std::mem::replace(self, new);
                self.push_differences(&old, events);
                Ok(())
            }
        }
    }

    fn apply_signal(&mut self, signal: Signal, events: &mut Vec<WatchEvent>) -> Result<()> {
        match signal {
            Signal::Added { path, interface, properties } => match interface.as_str() {
                bus::KEY => {
                    let mut key = Key::at(&path);
                    key.set(properties)?;
                    events.extend(key_event(self.keys.get(&path), &key));
                    self.keys.insert(path, key);
                }
                bus::SERIALIZATION => {
                    let mut job = Serialization::at(&path);
                    job.set(properties)?;
                    events.extend(job_event(self.serializations.get(&path), &job));
                    self.serializations.insert(path, job);
                }
                _ => {}
            },
            Signal::Changed { path, interface, properties } => match interface.as_str() {
                bus::MANAGER => self.apply_decisions(properties, events)?,
                bus::KEY => {
                    if let Some(key) = self.keys.get_mut(&path) {
                        let old = key.clone();
                        key.set(properties)?;
                        events.extend(key_event(Some(&old), key));
                    }
                }
                bus::SERIALIZATION => {
                    if let Some(job) = self.serializations.get_mut(&path) {
                        let old = job.clone();
                        job.set(properties)?;
                        events.extend(job_event(Some(&old), job));
                    }
                }
                _ => {}
            },
            Signal::Confirmed { key_id, rights } => {
                events.push(WatchEvent::RightsConfirmed { key_id, rights });
            }
            Signal::Removed { path, interfaces } => {
                if interfaces.iter().any(|name| name == bus::KEY)
                    && let Some(key) = self.keys.remove(&path)
                {
                    events.push(WatchEvent::KeyRemoved { key });
                }
                if interfaces.iter().any(|name| name == bus::SERIALIZATION)
                    && let Some(serialization) = self.serializations.remove(&path)
                {
                    events.push(WatchEvent::OfferRemoved { serialization });
                }
            }
        }
        Ok(())
    }

    fn apply_decisions(
        &mut self,
        properties: Properties,
        events: &mut Vec<WatchEvent>,
    ) -> Result<()> {
        for (name, value) in properties {
            if name == "Decisions" {
                let rows: Vec<(OwnedObjectPath, OwnedObjectPath, String)> = take(&name, value)?;
                let decisions: Vec<_> = rows.into_iter().map(Decision::from).collect();
                if decisions != self.decisions {
                    self.decisions.clone_from(&decisions);
                    events.push(WatchEvent::DecisionsChanged { decisions });
                }
            }
        }
        Ok(())
    }

    fn push_differences(&self, old: &Self, events: &mut Vec<WatchEvent>) {
        if !old.running {
            events.push(WatchEvent::DaemonBack);
        }
        for (path, serialization) in &old.serializations {
            if !self.serializations.contains_key(path) {
                events.push(WatchEvent::OfferRemoved { serialization: serialization.clone() });
            }
        }
        for (path, key) in &old.keys {
            if !self.keys.contains_key(path) {
                events.push(WatchEvent::KeyRemoved { key: key.clone() });
            }
        }
        for (path, key) in &self.keys {
            events.extend(key_event(old.keys.get(path), key));
        }
        for (path, job) in &self.serializations {
            events.extend(job_event(old.serializations.get(path), job));
        }
        if old.decisions != self.decisions {
            events.push(WatchEvent::DecisionsChanged { decisions: self.decisions.clone() });
        }
    }
}

fn key_event(old: Option<&Key>, new: &Key) -> Option<WatchEvent> {
    match old {
        None => Some(WatchEvent::KeyAdded { key: new.clone() }),
        Some(old) if old != new => Some(WatchEvent::KeyChanged { key: new.clone() }),
        Some(_) => None,
    }
}

/// Derives one event from properties that changed together: a step change comes before progress.
fn job_event(old: Option<&Serialization>, new: &Serialization) -> Option<WatchEvent> {
    let serialization = new.clone();
    match old {
        None => Some(WatchEvent::OfferAdded { serialization }),
        Some(old) if old == new => None,
        Some(old) if old.step != new.step => Some(WatchEvent::StepChanged { serialization }),
        Some(old) if old.progress != new.progress || old.stage != new.stage => {
            Some(WatchEvent::Progress { serialization })
        }
        Some(_) => Some(WatchEvent::OfferChanged { serialization }),
    }
}

impl From<(OwnedObjectPath, OwnedObjectPath, String)> for Decision {
    fn from((issuer, other, reason): (OwnedObjectPath, OwnedObjectPath, String)) -> Self {
        Self { issuer: issuer.to_string(), other: other.to_string(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    const KEY: &str = "/org/keywright1/keys/a";

    fn properties(retries: i32) -> Properties {
        let value = Variant::from(retries).try_to_owned().unwrap();
        HashMap::from([("PinRetries".to_owned(), value)])
    }

    fn added(retries: i32) -> Signal {
        let (path, interface) = (KEY.to_owned(), bus::KEY.to_owned());
        Signal::Added { path, interface, properties: properties(retries) }
    }

    fn changed(retries: i32) -> Signal {
        let (path, interface) = (KEY.to_owned(), bus::KEY.to_owned());
        Signal::Changed { path, interface, properties: properties(retries) }
    }

    fn removed() -> Signal {
        Signal::Removed { path: KEY.to_owned(), interfaces: vec![bus::KEY.to_owned()] }
    }

    fn full(retries: Option<i32>, later: Vec<Signal>) -> Change {
        let objects = retries.map(|retries| {
            let interface = zbus::names::OwnedInterfaceName::try_from(bus::KEY).unwrap();
            let path = OwnedObjectPath::try_from(KEY).unwrap();
            (path, HashMap::from([(interface, properties(retries))]))
        });
        let objects = objects.into_iter().collect();
        Change::Full(Snapshot { objects, manager: Properties::new() }, later)
    }

    /// Applies the changes and describes each event by a word and the PIN tries left.
    fn events(changes: Vec<Change>) -> Vec<String> {
        let (mut state, mut events) = (State::default(), Vec::new());
        for change in changes {
            state.apply(change, &mut events).unwrap();
        }
        let text = |event| match event {
            WatchEvent::KeyAdded { key } => format!("added {}", key.pin_retries),
            WatchEvent::KeyChanged { key } => format!("changed {}", key.pin_retries),
            WatchEvent::KeyRemoved { .. } => "removed".into(),
            WatchEvent::DaemonGone => "gone".into(),
            WatchEvent::DaemonBack => "back".into(),
            other => format!("{other:?}"),
        };
        events.into_iter().map(text).collect()
    }

    #[test]
    fn each_difference_is_one_event() {
        let events_after = |signals: Vec<Signal>| {
            let mut changes = vec![full(Some(3), Vec::new())];
            changes.extend(signals.into_iter().map(Change::Signal));
            events(changes)
        };
        assert_eq!(events_after(vec![]), ["back", "added 3"]);
        assert_eq!(events_after(vec![added(3), changed(3)]), ["back", "added 3"]);
        assert_eq!(events_after(vec![changed(2), changed(2)]), ["back", "added 3", "changed 2"]);
        assert_eq!(events_after(vec![removed(), removed()]), ["back", "added 3", "removed"]);
        assert_eq!(events_after(vec![removed(), changed(1)]), ["back", "added 3", "removed"]);
    }

    #[test]
    fn rights_confirmed_signal_becomes_one_event() {
        let events_of = |body: &(&str, Vec<(&str, &str, u64)>)| {
            let message = Message::signal(bus::MANAGER_PATH, bus::MANAGER, "RightsConfirmed");
            let signal = signal(&message.build(body).unwrap()).unwrap().unwrap();
            let (mut state, mut events) = (State::default(), Vec::new());
            state.apply(Change::Signal(signal), &mut events).unwrap();
            serde_json::to_string(&events).unwrap()
        };
        let one = events_of(&("5b5b", vec![("0a0b", "active", 7)]));
        let right = r#"{"lock_id":"0a0b","state":"active","waited":7}"#;
        assert_eq!(
            one,
            format!(r#"[{{"event":"rights_confirmed","key_id":"5b5b","rights":[{right}]}}]"#)
        );
    }

    #[test]
    fn signals_during_the_fetch_are_part_of_the_fetched_state() {
        assert_eq!(events(vec![full(Some(3), vec![changed(2)])]), ["back", "added 2"]);
        assert_eq!(events(vec![full(Some(3), vec![removed()])]), ["back"]);
        assert_eq!(events(vec![full(None, vec![added(1)])]), ["back", "added 1"]);
    }

    #[test]
    fn returning_daemon_reports_only_differences() {
        let again = |retries| {
            let first = full(Some(3), Vec::new());
            events(vec![first, Change::Gone, Change::Gone, full(retries, Vec::new())])
        };
        assert_eq!(again(Some(3)), ["back", "added 3", "gone", "back"]);
        assert_eq!(again(Some(1)), ["back", "added 3", "gone", "back", "changed 1"]);
        assert_eq!(again(None), ["back", "added 3", "gone", "back", "removed"]);
    }
}
