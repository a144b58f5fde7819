//! Whoever is believed is visible: a CA that a stolen Backup made and that no list of Keys shows.

use std::fs::{self, File};

use keywright_bus_tests::broker::Broker;
use keywright_proto::{
    Effect::{Allow, Deny},
    RevokedIssuer, Role,
    link::Topic,
    pem::{self, Label, MAX_PEM},
};

use crate::common::{Ca, Key, Lock, leaf, pem_of, revocation_of_issuer, station::Station, take};

/// Id, standing, depth and Keys of each issuing key in the Lock's list.
fn listed(lock: &Lock) -> Vec<(String, String, Option<u64>, Vec<String>)> {
    let list: serde_json::Value = serde_json::from_str(&lock.list("issuers.json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let row = |issuer: &serde_json::Value| {
        let keys = issuer["keys"].as_array().unwrap().iter().map(text).collect();
        (text(&issuer["id"]), text(&issuer["standing"]), issuer["depth"].as_u64(), keys)
    };
    list["issuers"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn hidden_issuing_key_is_listed_until_and_after_it_is_revoked() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (hidden, own, sub) = (backup.backup(Key::new(50), 9), Key::new(40), Key::new(30));
    let id = |ca: &Ca| ca.key.public().id().to_string();
    let lock = Lock::of(&master);
    let mut service = lock.service();
    let row = |ca: &Ca, standing: &str, depth, keys: &[&Key]| {
        let keys = keys.iter().map(|key| key.public().id().to_string()).collect::<Vec<_>>();
        (id(ca), standing.to_owned(), depth, keys)
    };
    service.settle().unwrap();
    assert_eq!(listed(&lock), [row(&master, "stands", Some(0), &[])]);
    let access = backup.issue(&own, Role::Backup, &[9]);
    let everywhere = [leaf(keywright_proto::Target::All, Allow)];
    take(&mut service, &master.grant(&own, Some(1), &everywhere, 0, &access).encode()).unwrap();
    take(&mut service, &lock.grant(&hidden, &sub, 5, Allow)).unwrap();
    service.settle().unwrap();
    assert_eq!(
        listed(&lock),
        [
            row(&master, "stands", Some(0), &[]),
            row(&backup, "stands", Some(1), &[&own]),
            row(&hidden, "stands", Some(2), &[]),
        ]
    );
    assert_eq!(
        service.gate().believed_issuers(),
        pem_of(&[backup.certificate().clone(), hidden.certificate().clone()])
    );
    let issuing_key = hidden.key.public().hash();
    let revokes = RevokedIssuer { issuing_key, denials_until: 9 };
    take(&mut service, &revocation_of_issuer(&backup, &hidden.key, revokes)).unwrap();
    service.settle().unwrap();
    assert_eq!(listed(&lock)[2], row(&hidden, "revoked", Some(2), &[]));
    assert_eq!(service.gate().believed_issuers(), pem_of(&[backup.certificate().clone()]));
}

/// A thief makes more than one message holds: the certificates nearest to the root are in it, and it is whole.
#[test]
fn published_issuers_fit_their_message() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (thief, honest) = (backup.backup(Key::new(50), 9), master.backup(Key::new(51), 8));
    let lock = Lock::of(&master);
    let mut service = lock.service();
    for number in 60..160 {
        let soft = thief.backup(Key::new(number), number);
        take(&mut service, &lock.grant(&soft, &Key::new(number), 5, Deny)).unwrap();
    }
    take(&mut service, &lock.grant(&honest, &Key::new(30), 5, Deny)).unwrap();
    let published = service.gate().believed_issuers();
    assert!((MAX_PEM - 2_000..=MAX_PEM).contains(&published.len()), "{}", published.len());
    let ders = pem::from_pem(Label::Certificate, &published).unwrap();
    for ca in [&backup, &thief, &honest] {
        assert!(ders.iter().any(|der| der == ca.certificate().der()));
    }
}

#[test]
fn new_issuing_key_is_logged_and_published() {
    let (master, backup) = (Ca::at_depth(1), Ca::at_depth(2));
    let (hidden, stolen) = (backup.backup(Key::new(50), 9), Key::new(40));
    let lock = Lock::of(&master);
    let broker = Broker::start(lock.dir.path(), &pem_of(&master.chain));
    let log = lock.dir.path().join("log");
    let config =
        format!("[link]\nbroker = \"{}\"\nca = \"{}\"\n", broker.address(), broker.ca().display());
    let _running = lock.start_with_log(&config, File::create(&log).unwrap());
    let mut station = Station::start(&broker);
    let topic = Topic::Issuers { lock: lock.key.id() };
    let both = pem_of(&[backup.certificate().clone(), hidden.certificate().clone()]);
    station.grant(&lock, &Key::new(30), &lock.grant(&hidden, &Key::new(30), 5, Allow));
    station.until(topic, |payload| payload == both.as_bytes());
    let text = fs::read_to_string(&log).unwrap();
    let line = |ca: &Ca| format!("issuer={}", ca.key.public().id());
    assert_eq!(text.matches("a new issuing key is believed").count(), 2, "{text}");
    assert!(text.contains(&line(&hidden)) && text.contains(&line(&backup)), "{text}");
    // When they fall, the stations are told that as well.
    let issuing_key = backup.key.public().hash();
    let revokes = RevokedIssuer { issuing_key, denials_until: 9 };
    station.grant(&lock, &stolen, &revocation_of_issuer(&master, &stolen, revokes));
    station.until(topic, |payload| payload.is_empty());
}
