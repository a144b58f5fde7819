//! A station on a real mosquitto, or an attacker with its rights, who is as powerful as the broker itself to a Lock.

use std::{collections::BTreeMap, fs, sync::mpsc};

use keywright_bus_tests::broker::Broker;
use keywright_link::{Connection, LinkEvent, Settings};
use keywright_proto::{
    Confirmation, Effect,
    link::{MAX_PACKET, Topic, station_subscriptions},
};

use super::{Key, LIMIT, Lock, Running};

/// A client with the rights of a station at the broker.
pub struct Station {
    pub connection: Connection,
    events: mpsc::Receiver<LinkEvent>,
    /// The last message of each topic.
    pub kept: BTreeMap<String, Vec<u8>>,
    pub next: u64,
}

impl Station {
    pub fn start(broker: &Broker) -> Self {
        let (certificate, key) = broker.station();
        let settings = Settings {
            broker: ("127.0.0.1".into(), broker.port()),
            ca: fs::read(broker.ca()).unwrap(),
            certificate: fs::read(certificate).unwrap(),
            key: fs::read(key).unwrap(),
            client_id: "station".into(),
            keep_alive: 60,
            presence: None,
            subscriptions: station_subscriptions().to_vec(),
            max_packet: MAX_PACKET,
        };
        let (send, events) = mpsc::channel();
        let connection = Connection::start(settings, move |event| drop(send.send(event))).unwrap();
        let mut station = Self { connection, events, kept: BTreeMap::new(), next: 0 };
        station.until_event("the link", |event| *event == LinkEvent::Up);
        station
    }

    pub fn until_event(&mut self, what: &str, check: impl Fn(&LinkEvent) -> bool) {
        loop {
            let event = self.events.recv_timeout(LIMIT);
            let event = event.unwrap_or_else(|_| panic!("no {what}; kept: {:?}", self.kept.keys()));
            let found = check(&event);
            if let LinkEvent::Message { topic, payload, .. } = event {
                self.kept.insert(topic, payload);
            }
            if found {
                return;
            }
        }
    }

    /// Publishes, and waits for the acknowledgement.
    pub fn publish(&mut self, topic: Topic, payload: &[u8]) {
        self.next += 1;
        let number = self.next;
        self.connection.publish(topic.name(), payload.to_vec(), number);
        self.until_event("acknowledgement", |event| *event == LinkEvent::Published(number));
    }

    pub fn grant(&mut self, lock: &Lock, key: &Key, payload: &[u8]) {
        self.publish(grant_topic(lock, key), payload);
    }

    /// Waits until a topic's last message passes the check.
    pub fn until(&mut self, topic: Topic, check: impl Fn(&[u8]) -> bool) {
        let name = topic.name();
        if self.kept.get(&name).is_some_and(|payload| check(payload)) {
            return;
        }
        self.until_event(&name, |event| match event {
            LinkEvent::Message { topic, payload, .. } => *topic == name && check(payload),
            _ => false,
        });
    }

    /// Waits until the Lock confirms this effect for the Key, by a statement of this version or a newer one.
    pub fn confirmed(&mut self, lock: &Lock, key: &Key, effect: Effect, version: u64) {
        let topic = Topic::Confirmation { lock: lock.key.id(), key: key.public().id() };
        self.until(topic, |payload| {
            let confirmation = Confirmation::verify(payload, &lock.key).unwrap();
            confirmation.effect == effect && confirmation.newest_version >= version
        });
    }
}

pub fn grant_topic(lock: &Lock, key: &Key) -> Topic {
    Topic::Grant { lock: lock.key.id(), key: key.public().id() }
}

pub fn presence(lock: &Lock) -> Topic {
    Topic::Presence { lock: lock.key.id() }
}

pub fn linked(lock: &Lock, broker: &Broker) -> Running {
    linked_with(lock, broker, "")
}

/// The same, with more lines before the link in its configuration.
pub fn linked_with(lock: &Lock, broker: &Broker, more: &str) -> Running {
    let (address, ca) = (broker.address(), broker.ca());
    lock.start(&format!("{more}[link]\nbroker = \"{address}\"\nca = \"{}\"\n", ca.display()))
}
