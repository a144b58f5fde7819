//! A Lock's certificate over the link: the renewal of a claimed Lock, and the first certificate of an unclaimed one.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use der::{Any, Decode, Encode};
use keywright_base::clock::unix_millis;
use keywright_bus_tests::broker::Broker;
use keywright_lockd::inbox::DirectoryEvent;
use keywright_proto::{
    Certificate, Confirmation,
    Effect::{Allow, Deny},
    Id, PublicKey, RevokedIssuer, Role, Target,
    link::Topic,
    read_csr,
};
use tempfile::TempDir;

use crate::common::{
    self, Ca, Key, LIMIT, Lock, VALIDITY, certify_at, done, pem_of, revocation_of_issuer, run,
    station::{Station, linked_with, presence},
    watch,
};

const MADE: u64 = VALIDITY.not_before;

fn chain_on_disk(state: &Path) -> String {
    fs::read_to_string(state.join("chain.pem")).unwrap_or_default()
}

fn topic(lock: Id) -> Topic {
    Topic::Chain { lock }
}

/// The revocation of this Backup, whose access key is `access`, by the Master.
fn revoke(master: &Ca, backup: &Ca, access: &Key) -> Vec<u8> {
    let revokes = RevokedIssuer { issuing_key: backup.key.public().hash(), denials_until: 0 };
    revocation_of_issuer(master, access, revokes)
}

#[test]
fn only_a_newer_certificate_of_this_lock_is_taken() {
    let master = Ca::master(Key::new(1));
    let (backup, other) = (master.backup(Key::new(2), 0x82), master.backup(Key::new(3), 0x83));
    let lock = Lock::of(&backup);
    let mut service = lock.service();
    service.settle().unwrap();
    let old = chain_on_disk(&lock.state());
    let at = |ca: &Ca, key: &PublicKey, made, serial| pem_of(&certify_at(ca, key, made, serial));
    let ours = |ca: &Ca, made, serial| at(ca, &lock.key, made, serial);
    let good = ours(&other, MADE + 100, 1);
    let thief = Ca::master(Key::new(77));
    // The same id in the names with another root key, as a thief can make it.
    let flipped = |place: usize| {
        let mut chain = certify_at(&other, &lock.key, MADE + 100, 1);
        let mut der = chain[0].der().to_vec();
        let at = der.len() - place;
        der[at] ^= 1;
        match Certificate::parse(&der) {
            Ok(bad) => chain[0] = bad,
            Err(_) => return good.replace("MII", "MIJ"),
        }
        pem_of(&chain)
    };
    let own = certify_at(&other, &lock.key, MADE + 100, 1);
    let future = unix_millis() / 1_000 + 2 * 86_400;
    for (text, why) in [
        (ours(&thief, MADE + 100, 1), "pinned"),
        (at(&other, &Key::new(9).public(), MADE + 100, 1), "this Lock's key"),
        (pem_of(&other.issue(&Key::new(9), Role::Sub, &[1])), "this Lock's key"),
        // Older, and as old with a smaller serial number.
        (ours(&other, MADE - 100, 0x7f), "older"),
        (ours(&other, MADE, 0x4b), "older"),
        (ours(&other, future, 1), "future"),
        (good[..good.len() / 2].into(), "PEM"),
        (pem_of(&own[..1]), ""),
        (pem_of(&own[..2]), ""),
        (flipped(1), ""),
        (flipped(200), ""),
        ("garbage".into(), "PEM"),
        (String::new(), ""),
        ("x".repeat(70_000), "PEM"),
    ] {
        let refused = service.take_chain(text.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("not a new certificate of this Lock"), "{refused}");
        assert!(refused.contains(why), "{refused}, and not because: {why}");
        assert_eq!(chain_on_disk(&lock.state()), old);
    }
    assert!(service.take_chain(&[0xff; 100]).is_err());
    // The present chain changes nothing.
    assert!(!service.take_chain(old.as_bytes()).unwrap());

    for newer in [ours(&other, MADE, 0x4d), good.clone()] {
        assert!(service.take_chain(newer.as_bytes()).unwrap());
        assert_eq!(chain_on_disk(&lock.state()), newer);
        service.settle().unwrap();
        assert!(lock.list("ca.pem").len() > pem_of(&other.chain).len());
    }
    assert!(service.take_chain(old.as_bytes()).unwrap_err().to_string().contains("older"));
    assert_eq!(chain_on_disk(&lock.state()), good);
}

#[test]
fn certificate_by_a_revoked_backup_is_replaced_for_good() {
    let master = Ca::master(Key::new(1));
    let (backup, access) = (master.backup(Key::new(2), 0x82), Key::new(40));
    let below = backup.backup(Key::new(3), 0x83);
    let lock = Lock::of(&below);
    let mut service = lock.service();
    let text = |ca: &Ca, made| pem_of(&certify_at(ca, &lock.key, made, 0x4c));
    let reissued = text(&master, MADE - 50);
    let refused = |service: &mut keywright_lockd::service::Service, text: &str| {
        service.take_chain(text.as_bytes()).unwrap_err().to_string()
    };
    // While the present chain is valid, no older one replaces it.
    assert!(refused(&mut service, &reissued).contains("older"));
    common::take(&mut service, &revoke(&master, &backup, &access)).unwrap();
    // The thief's own, by the Backup or by a CA below it, however new.
    assert!(refused(&mut service, &text(&backup, MADE + 100)).contains("revoked"));
    assert!(refused(&mut service, &text(&below, MADE + 100)).contains("revoked"));
    assert!(service.take_chain(reissued.as_bytes()).unwrap());
    assert!(refused(&mut service, &text(&below, MADE + 100)).contains("revoked"));
    // The CA below was certified again, so the same certificate of the Lock is valid again.
    let again = Ca { key: below.key.clone(), chain: master.backup(Key::new(3), 0x84).chain };
    assert!(service.take_chain(text(&again, MADE).as_bytes()).unwrap());
    assert_eq!(chain_on_disk(&lock.state()), text(&again, MADE));
}

#[test]
fn new_chain_is_used_by_servers_and_at_the_broker() {
    let master = Ca::master(Key::new(1));
    let (backup, access) = (master.backup(Key::new(2), 0x82), Key::new(40));
    let lock = Lock::of(&backup);
    let mut broker = Broker::start(lock.dir.path(), &pem_of(&master.chain));
    let ran = lock.dir.path().join("ran");
    let hook = format!("hook = ['sh', '-c', 'echo >> {}']\n", ran.display());
    let running = linked_with(&lock, &broker, &hook);
    let mut station = Station::start(&broker);
    station.until(presence(&lock), |payload| payload == b"online");
    let reissued = certify_at(&master, &lock.key, MADE - 50, 7);
    station.grant(&lock, &access, &revoke(&master, &backup, &access));
    station.confirmed(&lock, &access, Deny, 0);
    let hooks = fs::read_to_string(&ran).unwrap().len();
    let from = watch(&lock.state());
    // From a broker's client that may publish everything: certificates of others, the thief's, and the right one.
    let thief = certify_at(&backup, &lock.key, MADE + 100, 9);
    for text in
        [pem_of(&thief), pem_of(&reissued).replace('M', "N"), String::new(), "x".repeat(60_000)]
    {
        station.publish(topic(lock.key.id()), text.as_bytes());
    }
    station.publish(topic(Id::from_bytes([3; 16])), pem_of(&reissued).as_bytes());
    station.publish(topic(lock.key.id()), pem_of(&reissued).as_bytes());
    while from.recv_timeout(LIMIT).unwrap() != DirectoryEvent::File("chain.pem".into()) {}
    assert_eq!(chain_on_disk(&lock.state()), pem_of(&reissued));
    // It is put in force like a grant: no list differs, and the hook has run before the next confirmation.
    station.kept.clear();
    station.grant(&lock, &access, &revoke(&master, &backup, &access));
    station.confirmed(&lock, &access, Deny, 0);
    assert!(fs::read_to_string(&ran).unwrap().len() > hooks);

    // The next broker at this address is shown the new certificate.
    drop(station);
    broker.kill();
    let path = |name: &str| broker.ca().with_file_name(name).to_str().unwrap().to_owned();
    let mut next = Command::new("openssl")
        .args(["s_server", "-naccept", "9", "-accept", &broker.port().to_string()])
        .args(["-cert", &path("server.pem"), "-key", &path("server.key")])
        .args(["-Verify", "5", "-CAfile", &path("clients.pem")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(next.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Another client may connect to the broker first.
    let issuer = master.key.public().id().to_string();
    assert!(lines.any(|line| line.starts_with("issuer=") && line.contains(&issuer)));
    next.kill().unwrap();
    next.wait().unwrap();
    drop(running);
}

/// An unclaimed Lock: its state directory, its key, and a `keywright-lockd run`.
struct Newcomer {
    dir: TempDir,
    key: PublicKey,
    running: Option<Child>,
}

impl Newcomer {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = read_csr(&done(run(&dir.path().join("state"), &["request"], b""))).unwrap();
        Self { dir, key, running: None }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Starts the service; `family` is a line of its configuration.
    fn start(&mut self, broker: &Broker, family: &str, with_certificate: bool) {
        let (certificate, key) = broker.newcomer(&self.key.id().to_string());
        let mut config = format!(
            "{family}\n[link]\nbroker = \"{}\"\nca = \"{}\"\n",
            broker.address(),
            broker.ca().display()
        );
        if with_certificate {
            let (certificate, key) = (certificate.display(), key.display());
            config += &format!("certificate = \"{certificate}\"\nkey = \"{key}\"\n");
        }
        let file = self.dir.path().join("lockd.toml");
        fs::write(&file, config).unwrap();
        let running = Command::new(common::PROGRAM)
            .args(["run", "--state-dir", self.state().to_str().unwrap()])
            .args(["--config", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn();
        self.running = Some(running.unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn unclaimed_lock_joins_the_configured_family_over_the_link() {
    let (master, thief) = (Ca::master(Key::new(1)), Ca::master(Key::new(77)));
    let mut lock = Newcomer::new();
    let broker = Broker::start(lock.dir.path(), &pem_of(&master.chain));
    let mut station = Station::start(&broker);
    let id = lock.key.id();
    let chain = |ca: &Ca, key: &PublicKey| pem_of(&certify_at(ca, key, MADE, 1));
    let good = chain(&master, &lock.key);
    // A root that claims this family's id but has another key.
    let liar = {
        let root = liar(&thief, &master);
        let own = certify_at(&Ca { key: thief.key.clone(), chain: vec![root] }, &lock.key, MADE, 1);
        pem_of(&own)
    };
    let hostile = [
        chain(&thief, &lock.key),
        chain(&master, &Key::new(9).public()),
        liar,
        good[..good.len() / 2].into(),
        good.replace('A', "B"),
        pem_of(&master.issue(&Key::new(9), Role::Sub, &[1])),
        "garbage".into(),
    ];
    let family = format!("family = \"{}\"", master.key.public().id());
    let presence = Topic::Presence { lock: id };
    lock.start(&broker, &family, true);
    station.until(presence, |payload| payload == b"online");
    for text in &hostile {
        station.publish(topic(id), text.as_bytes());
    }
    // The Lock does not answer these. Whether it handled them is seen from the message after them.
    assert_eq!(chain_on_disk(&lock.state()), "");
    let from = watch(&lock.state());
    station.publish(topic(id), good.as_bytes());
    while from.recv_timeout(LIMIT).unwrap() != DirectoryEvent::File("chain.pem".into()) {}
    assert_eq!(chain_on_disk(&lock.state()), good);
    // From here on it is like any other Lock: it uses its own certificate and receives grants.
    let (bob, leaf) = (Key::new(30), [common::leaf(Target::Lock(lock.key.hash()), Allow)]);
    let grant = master.grant(&bob, Some(5), &leaf, 0, &master.issue(&bob, Role::Sub, &[5]));
    station.publish(Topic::Grant { lock: id, key: bob.public().id() }, &grant.encode());
    station.until(Topic::Confirmation { lock: id, key: bob.public().id() }, |payload| {
        Confirmation::verify(payload, &lock.key).unwrap().effect == Allow
    });
    // Another family's certificate again, and an older one of its own family.
    let old = pem_of(&certify_at(&master, &lock.key, MADE - 100, 1));
    for text in hostile.iter().chain([&old]) {
        station.publish(topic(id), text.as_bytes());
    }
    let deny = [common::leaf(Target::Lock(lock.key.hash()), Deny)];
    let grant = master.grant(&bob, Some(6), &deny, 0, &[]);
    station.publish(Topic::Grant { lock: id, key: bob.public().id() }, &grant.encode());
    station.until(Topic::Confirmation { lock: id, key: bob.public().id() }, |payload| {
        Confirmation::verify(payload, &lock.key).unwrap().effect == Deny
    });
    assert_eq!(chain_on_disk(&lock.state()), good);
}

/// If the Lock joined with one of these configurations, an attacker at the broker could choose its family.
#[test]
fn unclaimed_lock_without_a_configured_family_joins_none() {
    let master = Ca::master(Key::new(1));
    let mut lock = Newcomer::new();
    let broker = Broker::start(lock.dir.path(), &pem_of(&master.chain));
    let mut station = Station::start(&broker);
    let good = pem_of(&certify_at(&master, &lock.key, MADE, 1));
    station.publish(topic(lock.key.id()), good.as_bytes());
    let other = format!("family = \"{}\"", Id::from_bytes([7; 16]));
    let named = format!("family = \"{}\"", master.key.public().id());
    let from = watch(&lock.state());
    for (family, with_certificate) in [("", true), (&*named, false), (&*other, true)] {
        lock.start(&broker, family, with_certificate);
        while from.recv_timeout(LIMIT).unwrap() != DirectoryEvent::File("request.pem".into()) {}
        if family == other {
            station.until(Topic::Presence { lock: lock.key.id() }, |payload| payload == b"online");
        }
        // A person claims it, and the service goes on with that family, so it had waited.
        assert_eq!(chain_on_disk(&lock.state()), "");
        let (theirs, own) = (Ca::master(Key::new(50)), lock.key.clone());
        let by_hand = pem_of(&certify_at(&theirs, &own, MADE, 1));
        done(run(&lock.state(), &["claim", "-"], by_hand.as_bytes()));
        while from.recv_timeout(LIMIT).unwrap() != DirectoryEvent::File("lockd.lock".into()) {}
        assert_eq!(chain_on_disk(&lock.state()), by_hand);
        lock.stop();
        for name in ["chain.pem", "lockd.lock"] {
            fs::remove_file(lock.state().join(name)).unwrap();
        }
    }
}

/// A root with the thief's key that names another family.
fn liar(thief: &Ca, family: &Ca) -> Certificate {
    let theirs = thief.key.public().id().to_string();
    let named = family.key.public().id().to_string();
    let der = common::signed_anew(thief.certificate().der(), &thief.key, |elements| {
        for element in elements {
            let bytes = element.to_der().unwrap();
            if let Some(at) = bytes.windows(32).position(|part| part == theirs.as_bytes())
                && bytes.windows(9).any(|part| part == b"spiffe://")
            {
                let mut bytes = bytes.clone();
                bytes[at..at + 32].copy_from_slice(named.as_bytes());
                *element = Any::from_der(&bytes).unwrap();
            }
        }
    });
    Certificate::parse(&der).unwrap()
}
