//! A broker that forges, withholds and repeats messages.

use std::{
    fs,
    io::Seek,
    sync::mpsc,
    time::{SystemTime, UNIX_EPOCH},
};

use keywright_bus_tests::{
    Answers, Gate, LIMIT, Objects, Station,
    broker::Broker,
    client::assert_refused,
    pins::{self, PIN},
};
use keywright_link::{Connection, LinkEvent, Settings};
use keywright_proto::{
    Confirmation, Effect, Id,
    link::{MAX_PACKET, ONLINE, Topic},
};

const FLOOD: u32 = 2_000;

struct Attacker {
    connection: Connection,
    events: mpsc::Receiver<LinkEvent>,
    published: u64,
}

impl Attacker {
    fn start(broker: &Broker) -> Self {
        let (certificate, key) = broker.station();
        let settings = Settings {
            broker: ("127.0.0.1".into(), broker.port()),
            ca: fs::read(broker.ca()).unwrap(),
            certificate: fs::read(certificate).unwrap(),
            key: fs::read(key).unwrap(),
            client_id: "attacker".into(),
            keep_alive: 60,
            presence: None,
            // It is connected once it has subscribed.
            subscriptions: vec!["keywright/nothing".into()],
            max_packet: MAX_PACKET,
        };
        let (send, events) = mpsc::channel();
        let connection = Connection::start(settings, move |event| drop(send.send(event))).unwrap();
        assert_eq!(events.recv_timeout(LIMIT).unwrap(), LinkEvent::Up);
        Self { connection, events, published: 0 }
    }

    fn publish(&mut self, topic: Topic, payload: &[u8]) {
        self.published += 1;
        self.connection.publish(topic.name(), payload.to_vec(), self.published);
    }

    /// Waits until the broker has acknowledged every message.
    fn flush(&self) {
        while self.events.recv_timeout(LIMIT).unwrap() != LinkEvent::Published(self.published) {}
    }
}

#[tokio::test]
async fn forged_messages_from_the_broker_change_nothing() {
    let mut thief = Station::start().await;
    let thiefs = thief.plug("thief").await;
    thief.make_master(&thiefs, "Thief").await;
    let stranger = Gate::add(&thief, &thiefs, "stranger", 31).await;
    let theirs = thief.family(&thiefs.path).await;
    let file = thief.export(&theirs).await;

    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Mia").await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let barn = Gate::add(&station, &master, "barn", 22).await;
    let key = station.client.key(&master.path).await;
    let chain = key.get_certificate_chain("").await.unwrap();
    let id = station.id(&master.path).await;
    let good = gate.fetch(&station, &id).await;
    station.unplug(master).await;
    let broker = station.link(&chain).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    station.until_rights(&master.path, 0, 2).await;

    let mut attacker = Attacker::start(&broker);
    let lock = |gate: &Gate| gate.id.parse::<Id>().unwrap();
    let (at_gate, at_barn, at_stranger) = (lock(&gate), lock(&barn), lock(&stranger));
    let on = |lock| Topic::Confirmation { lock, key: id.parse().unwrap() };
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let said = Confirmation { statement: [7; 32], effect: Effect::Allow, newest_version: 1 };
    // Forged, truncated, for a statement that does not exist, by a foreign Lock, garbage, empty.
    for payload in [
        &flipped[..],
        &good[..good.len() / 2],
        &gate.confirm(&said),
        &stranger.confirm(&said),
        &[0x85; 60_000],
        b"",
    ] {
        attacker.publish(on(at_gate), payload);
        attacker.publish(on(at_barn), payload);
    }
    // A family that is not pinned here, on the topics of a foreign Lock and of a Lock of this family.
    for lock in [at_stranger, at_gate] {
        attacker.publish(Topic::OwnCertificate { lock }, &file);
        attacker.publish(Topic::OwnCertificate { lock }, &file[..file.len() / 2]);
    }
    attacker.publish(Topic::Presence { lock: at_stranger }, ONLINE);
    // A false hint that the Lock is online: the station publishes what the Lock has not confirmed.
    attacker.publish(Topic::Presence { lock: at_barn }, ONLINE);
    for number in 0..FLOOD {
        attacker.publish(on(at_barn), &number.to_be_bytes().repeat(100));
    }
    // Correct messages are still accepted after these, whoever delivers them, because they are signed.
    attacker.publish(on(at_gate), &good);
    attacker.flush();
    station.until_rights(&master.path, 1, 1).await;

    let manager = station.client.manager().await;
    let (rights, _) = manager.list_rights(&id, "", 10).await.unwrap();
    let mut states: Vec<_> = rights.into_iter().map(|right| (right.1, right.2)).collect();
    states.sort();
    assert_eq!(
        states,
        [("barn", "pending"), ("gate", "active")].map(|(n, s)| (n.into(), s.into()))
    );
    let (locks, _) = manager.list_locks([].into(), "", 10).await.unwrap();
    assert!(locks.len() == 2 && locks.iter().all(|row| row.0 != stranger.id), "{locks:?}");
    assert_eq!(manager.list_keys([].into(), "", 10).await.unwrap().0.len(), 1);
    assert_refused(manager.get_family_bundle(&theirs).await, "NotFound");
    let mut exported = tempfile::tempfile().unwrap();
    manager.export_audit(zbus::Fd::from(&exported)).await.unwrap();
    exported.rewind().unwrap();
    let events = std::io::read_to_string(exported).unwrap();
    assert_eq!(events.matches("\"event\":\"not-verified\"").count(), 1, "{events}");
    assert!(events.contains("\"what\":\"link\""), "{events}");
}

/// The broker withholds a denial from its Lock, and replays that Lock's earlier confirmation.
#[tokio::test]
async fn withheld_denial_stays_pending_despite_replayed_confirmations() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Mia").await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let objects = station.watch.objects().await;
    let own = objects.key(&master.path).unwrap().text("Id");
    let key = objects.key(&sub.path).unwrap().text("Id");
    let admitted = gate.fetch(&station, &key).await;
    let barns = barn.fetch(&station, &own).await;
    let chain = station.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    station.unplug(sub).await;
    station.unplug(master).await;
    let broker = station.link(&chain).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;

    let mut attacker = Attacker::start(&broker);
    let on = |gate: &Gate, key: &str| Topic::Confirmation {
        lock: gate.id.parse().unwrap(),
        key: key.parse().unwrap(),
    };
    let at_gate = on(&gate, &key);
    attacker.publish(at_gate, &admitted);
    let manager = station.client.manager().await;
    let right = async || manager.list_rights(&key, "", 10).await.unwrap().0.pop().unwrap();
    let admits = |objects: &Objects| {
        let key = objects.key_with_id(&key)?;
        (key.get::<u32>("Locks") == 1).then_some(())
    };
    station.watch.until("the Lock admits", admits).await;
    let active = right().await;
    assert_eq!(active.2, "active");

    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = [&*gate.id];
    manager.change_rights(&master.path, &key, &[], &at, pins::pipe(PIN)).await.unwrap();
    for _ in 0..FLOOD {
        attacker.publish(at_gate, &admitted);
    }
    // Another Lock's confirmation, which arrives after all of these.
    attacker.publish(on(&barn, &own), &barns);
    attacker.flush();
    station.until_rights(&master.path, 1, 1).await;
    let (lock, name, state, since) = right().await;
    assert_eq!((&*lock, &*name, &*state), (&*gate.id, "gate", "removing"));
    assert!(since >= before, "its age is that of the denial: {since}, and it was said at {before}");
}
