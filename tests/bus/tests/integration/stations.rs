//! Two stations of one family exchange signed objects over a real mosquitto, without files.

use std::{
    fs,
    path::PathBuf,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use keywright_bus_tests::{
    Answers, Gate, LIMIT, Plugged, Station,
    broker::Broker,
    client::assert_refused,
    lockd::Lockd,
    pins::{self, PIN},
};
use keywright_link::{Connection, LinkEvent, Settings};
use keywright_proto::{
    Id, SignedObjects, link,
    link::{HERE, MAX_PACKET, Topic},
    pem,
    pieces::cut,
};
use tokio::time::{Instant, sleep};

/// A client at the broker that reads and publishes stations' topics; to stations it is as powerful as the broker.
struct Listener {
    connection: Connection,
    events: mpsc::Receiver<LinkEvent>,
    numbers: u64,
    /// The pieces that stations have published, each with its station.
    pieces: Vec<(Id, Topic)>,
    /// The topics of deleted pieces.
    gone: Vec<Topic>,
}

impl Listener {
    /// Connects with a station's certificate, which may read and write every topic.
    fn start(broker: &Broker, family: Id) -> Self {
        Self::with(broker, broker.station(), link::family_subscriptions(family).to_vec())
    }

    fn with(broker: &Broker, shown: (PathBuf, PathBuf), subscriptions: Vec<String>) -> Self {
        // Client ids differ, because the broker disconnects the older of two clients with one id.
        static LISTENERS: AtomicU32 = AtomicU32::new(0);
        let client_id = format!("listener {}", LISTENERS.fetch_add(1, Ordering::Relaxed));
        let settings = Settings {
            broker: ("127.0.0.1".into(), broker.port()),
            ca: fs::read(broker.ca()).unwrap(),
            certificate: fs::read(shown.0).unwrap(),
            key: fs::read(shown.1).unwrap(),
            client_id,
            keep_alive: 60,
            presence: None,
            subscriptions,
            max_packet: MAX_PACKET,
        };
        let (send, events) = mpsc::channel();
        let connection = Connection::start(settings, move |event| drop(send.send(event))).unwrap();
        assert_eq!(events.recv_timeout(LIMIT).unwrap(), LinkEvent::Up);
        Self { connection, events, numbers: 0, pieces: Vec::new(), gone: Vec::new() }
    }

    fn say(&mut self, topic: Topic, message: &[u8]) {
        self.numbers += 1;
        self.connection.publish(topic.name(), message.to_vec(), self.numbers);
    }

    /// Waits until the broker has acknowledged every message.
    fn flush(&mut self) {
        while self.next(LIMIT).unwrap() != LinkEvent::Published(self.numbers) {}
    }

    fn next(&mut self, patience: Duration) -> Option<LinkEvent> {
        let event = self.events.recv_timeout(patience).ok()?;
        if let LinkEvent::Message { topic, payload, retained: false } = &event
            && let Some(topic @ Topic::Piece { station, .. }) = Topic::parse(topic)
        {
            if payload.is_empty() {
                self.gone.push(topic);
            } else {
                self.pieces.push((station, topic));
            }
        }
        Some(event)
    }

    /// How many pieces a station has published so far.
    fn said_by(&mut self, station: Id) -> usize {
        while self.next(Duration::ZERO).is_some() {}
        self.pieces.iter().filter(|(by, _)| *by == station).count()
    }
}

async fn rights(station: &Station, key: &str) -> Vec<(String, String)> {
    match station.client.manager().await.list_rights(key, "", 100).await {
        Ok((rows, _)) => rows.into_iter().map(|row| (row.0, row.2)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Waits until the station lists these rights of a Key. There is no signal for a Key that is not plugged in.
async fn until_rights(station: &Station, key: &str, expected: &[(&str, &str)]) {
    let mut expected: Vec<_> =
        expected.iter().map(|(lock, state)| (lock.to_string(), state.to_string())).collect();
    expected.sort();
    let end = Instant::now() + LIMIT;
    while rights(station, key).await != expected {
        assert!(Instant::now() < end, "{:?} instead of {expected:?}", rights(station, key).await);
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until both have the same file, byte for byte.
async fn until_equal(here: &Station, there: &Station, family: &str) -> Vec<u8> {
    let end = Instant::now() + LIMIT;
    loop {
        let (one, other) = (here.export(family).await, there.export(family).await);
        if one == other {
            return one;
        }
        assert!(Instant::now() < end, "{} and {} bytes", one.len(), other.len());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two stations that both know a family: the Master is at the first one, its Backup at the other.
struct Two {
    here: Station,
    there: Station,
    master: Plugged,
    backup: Plugged,
    gate: Gate,
    barn: Gate,
    family: String,
    broker: Broker,
}

impl Two {
    async fn start() -> Self {
        let (mut here, mut there) = (Station::start().await, Station::start().await);
        let master = here.plug("master").await;
        here.make_master(&master, "Master").await;
        let gate = Gate::add(&here, &master, "gate", 21).await;
        let backup = here.plug("backup").await;
        here.make(&master, &backup, &Answers::backup("Backup")).await;
        let family = here.family(&master.path).await;
        let chain = here.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
        here.unplug(master).await;
        here.unplug(backup).await;
        for name in ["master", "backup"] {
            fs::copy(here.memory(name), there.memory(name)).unwrap();
        }
        // The Master's PIN pins the family there; then the Master is unplugged.
        let visitor = there.plug("master").await;
        there.until_state(&visitor.path, "master").await;
        let barn = Gate::add(&there, &visitor, "barn", 22).await;
        there.unplug(visitor).await;
        let broker = here.link(&chain).await;
        there.join(&broker, broker.other()).await;
        let master = here.plug("master").await;
        let backup = there.plug("backup").await;
        here.until_state(&master.path, "master").await;
        there.until_state(&backup.path, "backup").await;
        Self { here, there, master, backup, gate, barn, family, broker }
    }
}

/// The name of a station at the broker.
fn name((certificate, _): (PathBuf, PathBuf)) -> Id {
    link::station_id(&fs::read(certificate).unwrap())
}

#[tokio::test]
async fn stations_converge_over_the_link_and_fall_silent() {
    let mut two = Two::start().await;
    let (family, gate, barn) = (two.family.clone(), two.gate.id.clone(), two.barn.id.clone());
    // Objects that one station had before the other connected are at both now.
    until_equal(&two.here, &two.there, &family).await;

    // A Key made at one station is at the other with its rights, and so is a Lock's confirmation.
    let sub = two.here.plug("sub").await;
    two.here.make(&two.master, &sub, &Answers::sub("Bob's Key", &[&gate])).await;
    let key = two.here.id(&sub.path).await;
    until_rights(&two.there, &key, &[(&gate, "pending")]).await;
    let (keys, _) = two.there.client.manager().await.list_keys([].into(), "", 10).await.unwrap();
    assert!(keys.iter().any(|row| row.0 == key && row.1 != "Bob's Key"), "names stay at home");
    two.gate.settle(&two.here, &key).await;
    until_rights(&two.there, &key, &[(&gate, "active")]).await;

    // Disconnected, each station signs more.
    two.broker.kill();
    let manager = two.here.client.manager().await;
    let (add, pin) = ([barn.as_str()], pins::pipe(PIN));
    manager.change_rights(&two.master.path, &key, &add, &[], pin).await.unwrap();
    let manager = two.there.client.manager().await;
    let (remove, pin) = ([gate.as_str()], pins::pipe(PIN));
    manager.change_rights(&two.backup.path, &key, &[], &remove, pin).await.unwrap();
    assert_ne!(rights(&two.here, &key).await, rights(&two.there, &key).await);
    two.broker.restart();
    let both = [(&*gate, "removing"), (&*barn, "pending")];
    until_rights(&two.here, &key, &both).await;
    until_rights(&two.there, &key, &both).await;
    until_equal(&two.here, &two.there, &family).await;

    // A Key revoked there is revoked here; a signal announces it.
    manager.revoke_key(&two.backup.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    two.here.until_state(&sub.path, "revoked").await;
    let file = until_equal(&two.here, &two.there, &family).await;

    // Each change is published once, by the station that made it, and never repeated by the other. Each takes longer than
    // several checks for changes, so a repetition would arrive before the last change is through.
    let (here, there) = (name(two.broker.station()), name(two.broker.other()));
    let mut listener = Listener::start(&two.broker, family.parse().unwrap());
    for round in 1..=3 {
        two.here.add_lock(&two.master, &format!("shed {round}")).await;
        assert_ne!(until_equal(&two.here, &two.there, &family).await, file);
        while listener.said_by(here) < round {
            listener.next(LIMIT).expect("what is new is said");
        }
        assert_eq!((listener.said_by(here), listener.said_by(there)), (round, 0));
    }
}

#[tokio::test]
async fn station_gets_a_family_over_the_link_once_it_is_pinned() {
    let (mut here, mut there) = (Station::start().await, Station::start().await);
    let master = here.plug("master").await;
    here.make_master(&master, "Master").await;
    let gate = Gate::add(&here, &master, "gate", 21).await;
    let sub = here.plug("sub").await;
    here.make(&master, &sub, &Answers::sub("Bob", &[&gate.id])).await;
    let key = here.id(&sub.path).await;
    let family = here.family(&master.path).await;
    let chain = here.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    here.unplug(master).await;
    here.unplug(sub).await;
    let broker = here.link(&chain).await;
    there.join(&broker, broker.other()).await;

    // The file is at the broker, and a Master with its card is plugged in, which is only a claim.
    let mut broker_itself = Listener::start(&broker, family.parse().unwrap());
    let (family_id, station) = (family.parse().unwrap(), Id::from_bytes([9; 16]));
    for (message, number) in cut(&here.export(&family).await).zip(0..) {
        broker_itself.say(Topic::Piece { family: family_id, station, number }, &message);
    }
    broker_itself.flush();
    fs::copy(here.memory("master"), there.memory("master")).unwrap();
    let master = there.plug("master").await;
    there.until_state(&master.path, "master").await;
    assert_eq!(rights(&there, &key).await, []);
    // Its PIN is given there, which pins the family; then the station gets the file.
    there.add_lock(&master, "barn").await;
    until_rights(&there, &key, &[(&gate.id, "pending")]).await;
    until_equal(&here, &there, &family).await;
}

#[tokio::test]
async fn forged_station_messages_change_nothing() {
    let begun = Instant::now();
    let mut thief = Station::start().await;
    let thiefs = thief.plug("thief").await;
    thief.make_master(&thiefs, "Thief").await;
    let thiefs_family = thief.family(&thiefs.path).await;
    let foreign = thief.export(&thiefs_family).await;

    let mut two = Two::start().await;
    let before = until_equal(&two.here, &two.there, &two.family).await;
    let sub = two.here.plug("sub").await;
    two.here.make(&two.master, &sub, &Answers::sub("Bob", &[&two.gate.id])).await;
    let key = two.here.id(&sub.path).await;
    until_rights(&two.there, &key, &[(&two.gate.id, "pending")]).await;
    let manager = two.here.client.manager().await;
    manager.revoke_key(&two.master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    until_rights(&two.there, &key, &[(&two.gate.id, "removing")]).await;
    let good = until_equal(&two.here, &two.there, &two.family).await;

    let ours: Id = two.family.parse().unwrap();
    let theirs: Id = thiefs_family.parse().unwrap();
    let mut attacker = Listener::start(&two.broker, ours);
    let stranger = Id::from_bytes([9; 16]);
    let mut flipped = good.clone();
    for place in [40, good.len() / 3, good.len() / 2, good.len() - 9] {
        flipped[place] ^= 1;
    }
    for station in [stranger, name(two.broker.station()), name(two.broker.other())] {
        let piece = |number| Topic::Piece { family: ours, station, number };
        let whole = |attacker: &mut Listener, file: &[u8]| {
            for (message, number) in cut(file).zip(0..) {
                attacker.say(piece(number), &message);
            }
        };
        for garbage in [&b""[..], b"x", &[0; 39], &[0xff; 60_000], &good] {
            attacker.say(piece(0), garbage);
        }
        // A file with a wrong digest, one with forged objects, and one of a family that is not pinned here, sent as of
        // this family and as of its own.
        let mut wrong = cut(&good).next().unwrap();
        *wrong.last_mut().unwrap() ^= 1;
        attacker.say(piece(0), &wrong);
        whole(&mut attacker, &flipped);
        whole(&mut attacker, &foreign);
        for (message, number) in cut(&foreign).zip(0..) {
            attacker.say(Topic::Piece { family: theirs, station, number }, &message);
        }
        // A right piece in the wrong place; files that never become whole, and many of them.
        attacker.say(piece(7), &cut(&good).next().unwrap());
        for seed in 0..100u8 {
            let endless = vec![seed; 200_000];
            attacker.say(piece(1), &cut(&endless).nth(1).unwrap());
        }
        // Pieces from before the revocation, replayed.
        for _ in 0..5 {
            whole(&mut attacker, &before);
        }
        attacker.say(Topic::Here { family: theirs, station }, HERE);
        attacker.say(Topic::Here { family: ours, station }, b"gone");
    }
    attacker.flush();
    // A piece behind the last piece of a station's own file is not taken for a part of it.
    let station = name(two.broker.station());
    let behind = Topic::Piece { family: ours, station, number: 7 };
    while !attacker.gone.contains(&behind) {
        attacker.next(LIMIT).expect("it is taken away");
    }
    let rested = until_equal(&two.here, &two.there, &two.family).await;
    assert!(rested == good, "nothing has changed");

    // Correct files are still accepted in both directions, which proves that both have received all of the above.
    two.here.add_lock(&two.master, "shed").await;
    let with_shed = until_other(&two.there, &two.family, &good).await;
    two.there.add_lock(&two.backup, "loft").await;
    until_other(&two.here, &two.family, &with_shed).await;
    let after = until_equal(&two.here, &two.there, &two.family).await;
    assert_eq!(objects_in(&after), {
        let (certificates, statements, confirmations) = objects_in(&good);
        (certificates + 2, statements, confirmations)
    });
    for station in [&two.here, &two.there] {
        let manager = station.client.manager().await;
        assert_refused(manager.get_family_bundle(&thiefs_family).await, "NotFound");
        assert_eq!(rights(station, &key).await, [(two.gate.id.clone(), "removing".into())]);
    }
    // The daemon logs at most a line a minute about refused messages.
    let log = fs::read_to_string(&two.here.launch.log).unwrap();
    let lines = log.matches("refused from the link").count() as u64;
    assert!((1..=1 + begun.elapsed().as_secs() / 60).contains(&lines), "{log}");
}

/// Whatever keeps the whole file away, however long it is, revocations come.
#[tokio::test]
async fn revocations_reach_a_station_without_the_whole_file() {
    let mut two = Two::start().await;
    let (family, gate) = (two.family.clone(), two.gate.id.clone());
    let sub = two.here.plug("sub").await;
    two.here.make(&two.master, &sub, &Answers::sub("Sub", &[&gate])).await;
    let key = two.here.id(&sub.path).await;
    until_rights(&two.there, &key, &[(&gate, "pending")]).await;
    let file = until_equal(&two.here, &two.there, &family).await;
    assert!(!has_revocations(&file));
    assert!(two.there.daemon.stop().await.success());

    let mut listener = Listener::start(&two.broker, family.parse().unwrap());
    let manager = two.here.client.manager().await;
    manager.revoke_key(&two.master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    // What was published before may still come.
    let first = cut(&two.here.export(&family).await).next().unwrap();
    let (mut revocations, mut whole) = (None, None);
    while revocations.is_none() || whole.is_none() {
        let event = listener.next(LIMIT).expect("both files come");
        let LinkEvent::Message { topic, payload, retained: false } = event else { continue };
        match Topic::parse(&topic) {
            Some(Topic::RevocationPiece { station, number: 0, .. }) => {
                assert!(whole.is_none(), "revocations are published first");
                revocations = Some((station, payload));
            }
            Some(Topic::Piece { station, number: 0, .. }) if payload == first => {
                whole = Some(station);
            }
            _ => {}
        }
    }
    // Only the revocations stay at the broker.
    assert!(two.here.daemon.stop().await.success());
    for station in [name(two.broker.station()), name(two.broker.other())] {
        for number in 0..4 {
            let family = family.parse().unwrap();
            listener.say(Topic::Piece { family, station, number }, b"");
        }
    }
    listener.flush();
    two.there.daemon.restart(two.there.client.connection()).await;
    let end = Instant::now() + LIMIT;
    while !has_revocations(&two.there.export(&family).await) {
        assert!(Instant::now() < end, "the revocation does not come");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A Lock believes an issuing key that no station here has met: it is listed, and logged.
#[tokio::test]
async fn issuer_that_only_a_lock_believes_is_seen() {
    let (mut here, mut there) = (Station::start().await, Station::start().await);
    let master = here.plug("master").await;
    here.make_master(&master, "Master").await;
    Gate::add(&here, &master, "gate", 21).await;
    let backup = here.plug("backup").await;
    here.make(&master, &backup, &Answers::backup("Backup")).await;
    let family = here.family(&master.path).await;
    let chain = here.client.key(&backup.path).await.get_certificate_chain("").await.unwrap();
    let masters = here.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    here.unplug(master).await;
    fs::copy(here.memory("master"), there.memory("master")).unwrap();
    let visitor = there.plug("master").await;
    there.until_state(&visitor.path, "master").await;
    let mut barn = Gate::add(&there, &visitor, "barn", 22).await;
    let client = there.client.clone();
    let issuers = async || {
        let manager = client.manager().await;
        manager.list_issuers(&family, "", 100).await.unwrap().0
    };
    assert_eq!(issuers().await.len(), 1, "the Master alone");

    there.unplug(visitor).await;
    let broker = there.link(&masters).await;
    let visitor = there.plug("master").await;
    there.until_state(&visitor.path, "master").await;
    let mut lock = Listener::start(&broker, family.parse().unwrap());
    let cas = pem::from_pem(pem::Label::Certificate, &chain).unwrap();
    let believed = pem::to_pem(pem::Label::Certificate, &cas[1..]).unwrap();
    lock.say(Topic::Issuers { lock: barn.id.parse().unwrap() }, believed.as_bytes());
    let end = Instant::now() + LIMIT;
    while issuers().await.len() < 2 {
        assert!(Instant::now() < end, "it is not seen");
        sleep(Duration::from_millis(20)).await;
    }
    let rows = issuers().await;
    let found = rows.iter().find(|row| row.0 != family).unwrap();
    assert_eq!((&*found.1, found.3, &*found.5, &*found.7), ("", 1, "believed", "lock"));
    assert_eq!(found.4, std::slice::from_ref(&family));
    assert!(there.daemon.log().contains("issuer-found"));

    // It is revoked without its Key, and every Lock gets that.
    let issuer = found.0.clone();
    let grants = vec!["keywright/1/+/grant/+".into()];
    let mut locks = Listener::with(&broker, broker.station(), grants);
    let manager = there.client.manager().await;
    manager.revoke_key(&visitor.path, &issuer, "compromised", pins::pipe(PIN)).await.unwrap();
    let row = issuers().await.into_iter().find(|row| row.0 == issuer).unwrap();
    assert_eq!(row.5, "revoked");
    let wanted = Topic::Grant { lock: barn.id.parse().unwrap(), key: issuer.parse().unwrap() };
    let grant = loop {
        match locks.next(LIMIT).expect("the Lock gets the revocation") {
            LinkEvent::Message { topic, payload, .. } if Topic::parse(&topic) == Some(wanted) => {
                break payload;
            }
            _ => {}
        }
    };
    let confirmation = barn.hear(&grant);
    manager.apply_confirmation(&confirmation).await.unwrap();
}

/// Whether a file has revocations.
fn has_revocations(file: &[u8]) -> bool {
    let root = SignedObjects::claimed_root(file).unwrap();
    SignedObjects::decode(file, root).unwrap().0.has_revocations()
}

/// Waits until the station's file differs from this one.
async fn until_other(station: &Station, family: &str, known: &[u8]) -> Vec<u8> {
    let end = Instant::now() + LIMIT;
    loop {
        let file = station.export(family).await;
        if file != known {
            return file;
        }
        assert!(Instant::now() < end, "nothing new came");
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many certificates, statements and confirmations are in a file.
fn objects_in(file: &[u8]) -> (usize, usize, usize) {
    let root = SignedObjects::claimed_root(file).unwrap();
    let (objects, left_out) = SignedObjects::decode(file, root).unwrap();
    assert_eq!(left_out, 0);
    (objects.certificates().count(), objects.statements().count(), objects.confirmations().count())
}

#[tokio::test]
async fn locks_cannot_read_station_topics() {
    let two = Two::start().await;
    until_equal(&two.here, &two.there, &two.family).await;
    let lock = Lockd::add(&two.here, &two.master, "shed").await;
    let lock_id: Id = lock.id.parse().unwrap();
    let state = two.here.dir.path().join("lock-shed/state");
    let shown = (state.join("chain.pem"), state.join("identity.key"));
    let family: Id = two.family.parse().unwrap();
    let [grants, chain] = link::lock_subscriptions(lock_id);
    let filters = vec!["keywright/1/stations/#".into(), "#".into(), grants, chain];
    let mut spy = Listener::with(&two.broker, shown, filters);
    // A message that it may read is published after one that it may not.
    let mut station = Listener::start(&two.broker, family);
    station.say(Topic::Here { family, station: Id::from_bytes([9; 16]) }, HERE);
    let own = Topic::Grant { lock: lock_id, key: Id::from_bytes([8; 16]) };
    station.say(own, b"the end");
    station.flush();
    loop {
        match spy.next(LIMIT).expect("the grant comes") {
            LinkEvent::Message { topic, .. } if Topic::parse(&topic) == Some(own) => break,
            LinkEvent::Message { topic, .. } => {
                let its_own = Topic::parse(&topic);
                assert!(
                    matches!(its_own, Some(Topic::Grant { lock, .. } | Topic::Chain { lock }) if lock == lock_id),
                    "{topic}"
                );
            }
            _ => {}
        }
    }
    // It cannot publish there either: the broker refuses.
    let piece = Topic::Piece { family, station: Id::from_bytes([7; 16]), number: 0 };
    spy.say(piece, b"a lie");
    while !matches!(spy.next(LIMIT).unwrap(), LinkEvent::Down | LinkEvent::Published(1)) {}
    let end = Topic::Here { family, station: Id::from_bytes([6; 16]) };
    station.say(end, HERE);
    let is_end = |event| matches!(event, LinkEvent::Message { topic, .. } if topic == end.name());
    while !is_end(station.next(LIMIT).unwrap()) {}
    assert!(station.pieces.iter().all(|(_, topic)| *topic != piece));
}
