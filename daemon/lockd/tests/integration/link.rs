//! The link over a real mosquitto with certificates on both sides, and over brokers that misbehave.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::mpsc,
};

use keywright_bus_tests::{broker::Broker, port};
use keywright_link::{Connection, LinkEvent, Settings};
use keywright_lockd::record::Record;
use keywright_proto::{
    Effect::{Allow, Deny},
    Id, SignedObjects, Target,
    link::{MAX_PACKET, Topic},
};

use crate::common::{
    Ca, Key, LIMIT, Lock, leaf, pem_of, revocation,
    station::{Station, grant_topic, linked, presence},
};

fn stage() -> (Ca, Lock, Broker) {
    let ca = Ca::at_depth(1);
    let lock = Lock::of(&ca);
    let broker = Broker::start(lock.dir.path(), &pem_of(&ca.chain));
    (ca, lock, broker)
}

fn admits(lock: &Lock, key: &Key) -> bool {
    lock.list("ssh_keys").contains(&key.public().id().to_string())
}

#[test]
fn grants_and_confirmations_reach_a_lock_that_was_offline() {
    let (ca, lock, mut broker) = stage();
    let (bob, eve) = (Key::new(30), Key::new(31));
    let mut station = Station::start(&broker);
    // The Lock is offline. A station that does not know it learns its certificate when it connects.
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 5, Allow));
    let running = linked(&lock, &broker);
    station.until(presence(&lock), |payload| payload == b"online");
    station.confirmed(&lock, &bob, Allow, 5);
    assert!(admits(&lock, &bob));
    station.until(Topic::OwnCertificate { lock: lock.key.id() }, |file| {
        let (objects, left_out) = SignedObjects::decode(file, ca.root()).unwrap();
        let own = objects.certificates().any(|own| *own.public_key() == lock.key);
        own && left_out == 0
    });
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 6, Deny));
    station.confirmed(&lock, &bob, Deny, 6);
    assert!(!admits(&lock, &bob));

    // The Lock goes offline, as its last will says, and misses a grant.
    running.kill();
    station.until(presence(&lock), |payload| payload == b"offline");
    station.grant(&lock, &eve, &lock.grant(&ca, &eve, 5, Allow));
    let _running = linked(&lock, &broker);
    station.confirmed(&lock, &eve, Allow, 5);

    // The broker is killed and restarted; Lock and station reconnect by themselves.
    broker.kill();
    station.until_event("its end", |event| *event == LinkEvent::Down);
    broker.restart();
    station.until_event("the link", |event| *event == LinkEvent::Up);
    station.grant(&lock, &eve, &lock.grant(&ca, &eve, 6, Deny));
    station.confirmed(&lock, &eve, Deny, 6);
}

#[test]
fn broker_without_memory_gets_a_confirmation_when_a_grant_is_repeated() {
    let (ca, lock, mut broker) = stage();
    let bob = Key::new(30);
    let _running = linked(&lock, &broker);
    let mut station = Station::start(&broker);
    let grant = lock.grant(&ca, &bob, 5, Allow);
    station.grant(&lock, &bob, &grant);
    station.confirmed(&lock, &bob, Allow, 5);
    broker.kill();
    broker.forget();
    broker.restart();
    station.until_event("the link", |event| *event == LinkEvent::Up);
    station.kept.clear();
    // The Lock is online again. It would not confirm a retained grant that it knows.
    station.until(presence(&lock), |payload| payload == b"online");
    station.grant(&lock, &bob, &grant);
    station.confirmed(&lock, &bob, Allow, 5);
}

/// To a Lock, a client that may publish everything is as powerful as the broker itself.
#[test]
fn messages_of_a_hostile_broker_change_nothing() {
    let (ca, lock, broker) = stage();
    let (bob, eve) = (Key::new(30), Key::new(31));
    let _running = linked(&lock, &broker);
    let mut station = Station::start(&broker);
    let old = lock.grant(&ca, &bob, 5, Allow);
    station.grant(&lock, &bob, &old);
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 6, Deny));
    station.confirmed(&lock, &bob, Deny, 6);
    let before = lock.everything();

    let elsewhere = [leaf(Target::Lock([9; 32]), Allow)];
    let others_grant = ca.grant(&eve, Some(9), &elsewhere, 0, &[]).encode();
    let thief = Ca::master(Key::new(77));
    // Replayed, for another Lock, truncated, of another family, invented, too long.
    station.grant(&lock, &bob, &old);
    station.grant(&lock, &eve, &others_grant);
    station.grant(&lock, &eve, &old[..old.len() / 2]);
    station.grant(&lock, &eve, &lock.grant(&thief, &eve, 9, Allow));
    station.grant(&lock, &eve, &[0x85; 60_000]);
    station.grant(&lock, &eve, b"");
    let nowhere = Topic::Grant { lock: lock.key.id(), key: Id::from_bytes([0; 16]) };
    for number in 0..2_000_u32 {
        station.next += 1;
        station.connection.publish(nowhere.name(), number.to_be_bytes().repeat(100), station.next);
    }
    let last = station.next;
    station.until_event("the flood's end", |event| *event == LinkEvent::Published(last));
    // Swapped: a valid grant under another Key's topic. Only the signed content counts.
    station.publish(grant_topic(&lock, &bob), &lock.grant(&ca, &eve, 5, Allow));
    station.confirmed(&lock, &eve, Allow, 5);
    assert!(!admits(&lock, &bob) && admits(&lock, &eve));
    let after = lock.everything();
    let record = |files: &BTreeMap<_, Vec<u8>>, key: &Key| {
        let name = format!("keys/{}.cbor", hex::encode(key.public().hash()));
        let entries = Record::decode(&files[&lock.state().join(name)]).unwrap().entries;
        entries.into_iter().map(|entry| entry.grant).collect::<Vec<_>>()
    };
    assert_eq!(record(&before, &bob), record(&after, &bob));
    let keys = |files: &BTreeMap<_, _>| {
        files
            .keys()
            .filter(|path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "cbor"))
            .count()
    };
    assert_eq!((keys(&before), keys(&after)), (1, 2));

    // Withheld: the denial takes effect as soon as it arrives.
    station.grant(&lock, &eve, &revocation(&ca, &eve).encode());
    station.confirmed(&lock, &eve, Deny, 5);
    assert!(!admits(&lock, &eve));
}

/// The broker's access rules restrict each Lock to its own topics.
#[test]
fn lock_receives_no_messages_of_another_lock() {
    let (ca, lock, broker) = stage();
    let (other, bob) = (Lock::of(&ca), Key::new(30));
    let mut station = Station::start(&broker);
    let settings = Settings {
        broker: ("127.0.0.1".into(), broker.port()),
        ca: fs::read(broker.ca()).unwrap(),
        certificate: pem_of(&other.chain).into_bytes(),
        key: fs::read(other.state().join("identity.key")).unwrap(),
        client_id: "curious".into(),
        keep_alive: 60,
        presence: None,
        subscriptions: vec!["keywright/1/#".into()],
        max_packet: MAX_PACKET,
    };
    let (send, received) = mpsc::channel();
    let curious = Connection::start(settings, move |event| drop(send.send(event))).unwrap();
    assert_eq!(received.recv_timeout(LIMIT).unwrap(), LinkEvent::Up);
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 5, Allow));
    // It receives its own grant, which was published after the other Lock's.
    station.publish(Topic::Grant { lock: other.key.id(), key: bob.public().id() }, b"own");
    let LinkEvent::Message { payload, .. } = received.recv_timeout(LIMIT).unwrap() else {
        panic!()
    };
    assert_eq!(payload, b"own");
    // It cannot publish as the other Lock.
    let confirmation = Topic::Confirmation { lock: lock.key.id(), key: bob.public().id() };
    curious.publish(confirmation.name(), b"forged".to_vec(), 1);
    let own = Topic::Confirmation { lock: other.key.id(), key: bob.public().id() };
    curious.publish(own.name(), b"own".to_vec(), 2);
    station.until(own, |payload| payload == b"own");
    assert!(!station.kept.contains_key(&confirmation.name()));
}

#[test]
fn dropped_connection_is_closed() {
    let (_, lock, broker) = stage();
    let mut station = Station::start(&broker);
    let topic = Topic::Presence { lock: lock.key.id() };
    let settings = Settings {
        broker: ("127.0.0.1".into(), broker.port()),
        ca: fs::read(broker.ca()).unwrap(),
        certificate: pem_of(&lock.chain).into_bytes(),
        key: fs::read(lock.state().join("identity.key")).unwrap(),
        client_id: "leaving".into(),
        keep_alive: 60,
        presence: Some((topic.name(), b"online", b"offline")),
        subscriptions: keywright_proto::link::lock_subscriptions(lock.key.id()).to_vec(),
        max_packet: MAX_PACKET,
    };
    let connection = Connection::start(settings, |_| {}).unwrap();
    station.until(topic, |payload| payload == b"online");
    drop(connection);
    station.until(topic, |payload| payload == b"offline");
}

/// A broker that violates the protocol: it floods without waiting, and then announces a packet of 256 MB.
#[test]
fn protocol_violation_by_the_broker_is_cheap() {
    let (ca, lock, broker) = stage();
    let port = port::free();
    let path = |name: &str| broker.ca().with_file_name(name).to_str().unwrap().to_owned();
    let mut hostile = Command::new("openssl")
        .args(["s_server", "-quiet", "-naccept", "1", "-accept", &port.to_string()])
        .args(["-cert", &path("server.pem"), "-key", &path("server.key")])
        .args(["-Verify", "3", "-CAfile", &path("clients.pem"), "-verify_quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ca_file = broker.ca();
    let running = lock
        .start(&format!("[link]\nbroker = \"127.0.0.1:{port}\"\nca = \"{}\"\n", ca_file.display()));
    // Its first bytes are CONNECT: it is connected.
    let mut from = hostile.stdout.take().unwrap();
    assert_eq!(std::io::Read::read(&mut from, &mut [0; 1]).unwrap(), 1);
    let mut to = hostile.stdin.take().unwrap();
    let flood = std::thread::spawn(move || {
        let topic =
            Topic::Grant { lock: Id::from_bytes([1; 16]), key: Id::from_bytes([2; 16]) }.name();
        let mut publish = vec![0x30];
        let content = 2 + topic.len() + 1 + 60_000;
        publish.extend(
            [content % 128 + 128, content / 128 % 128 + 128, content / 16_384].map(|n| n as u8),
        );
        publish.extend((topic.len() as u16).to_be_bytes());
        publish.extend(topic.as_bytes());
        publish.push(0);
        publish.extend([0x85; 60_000]);
        to.write_all(&[0x20, 3, 0, 0, 0])?;
        for _ in 0..1_000 {
            to.write_all(&publish)?;
        }
        to.write_all(&[0x30, 0xff, 0xff, 0xff, 0x7f])?;
        loop {
            to.write_all(&[0; 65_536])?;
        }
        #[allow(unreachable_code, reason = "names the type of the error")]
        std::io::Result::Ok(())
    });
    // It ends when the Lock closes the connection.
    assert!(flood.join().unwrap().is_err());
    hostile.wait().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} kB");
    let bob = Key::new(30);
    running.drop_grant("bob", &lock.grant(&ca, &bob, 5, Allow)).unwrap();
    assert!(admits(&lock, &bob));
}
