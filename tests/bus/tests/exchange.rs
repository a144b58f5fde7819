//! Two stations of one family that worked apart exchange what is signed, by a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::File,
    io::{Read, Seek},
    os::fd::OwnedFd,
};

use keywright_bus_tests::{
    Answers, Gate, Plugged, Station,
    client::assert_refused,
    pins::{self, PIN},
};
use zbus::Fd;

/// A station with a Master.
async fn with_master() -> (Station, Plugged) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    (station, master)
}

/// Carries a Key from one station to the other.
async fn carry(from: &mut Station, to: &mut Station, key: Plugged, name: &str) -> Plugged {
    from.unplug(key).await;
    std::fs::copy(from.memory(name), to.memory(name)).unwrap();
    to.plug(name).await
}

async fn id(station: &Station, key: &Plugged) -> String {
    station.watch.objects().await.key(&key.path).unwrap().text("Id")
}

async fn family(station: &Station, key: &Plugged) -> String {
    let objects = station.watch.objects().await;
    let memberships: Vec<(String, String)> = objects.key(&key.path).unwrap().get("Memberships");
    memberships[0].0.clone()
}

async fn export(station: &Station, family: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let out = Fd::from(OwnedFd::from(file.try_clone().unwrap()));
    station.client.manager().await.export_family(family, out).await.unwrap();
    file.rewind().unwrap();
    file
}

/// One station tells the other; answers how many objects were new there.
async fn tell(from: &Station, to: &Station, family: &str) -> u32 {
    let file = export(from, family).await;
    to.client.manager().await.import_family(Fd::from(OwnedFd::from(file))).await.unwrap()
}

async fn rights(station: &Station, key: &str) -> Vec<(String, String)> {
    let (rows, _) = station.client.manager().await.list_rights(key, "", 100).await.unwrap();
    rows.into_iter().map(|row| (row.0, row.2)).collect()
}

/// Changes the rights of a Key by an issuer with the usual PIN.
async fn change(
    station: &Station,
    issuer: &Plugged,
    key: &str,
    add: &[&str],
    remove: &[&str],
) -> zbus::Result<()> {
    let manager = station.client.manager().await;
    manager.change_rights(&issuer.path, key, add, remove, pins::pipe(PIN)).await
}

#[tokio::test]
async fn stations_that_worked_apart_end_equal() {
    let (mut here, master) = with_master().await;
    let mut gate = Gate::add(&here, &master, "gate", 21).await;
    let sub = here.plug("sub").await;
    here.make(&master, &sub, &Answers::sub("Bob's Key", &[&gate.id])).await;
    let (key, own) = (id(&here, &sub).await, id(&here, &master).await);
    let family = family(&here, &master).await;
    gate.settle(&here, &key).await;

    let mut there = Station::start().await;
    let file = export(&here, &family).await;
    let refused = there.client.manager().await.import_family(Fd::from(OwnedFd::from(file))).await;
    assert_refused(refused, "Unverified");
    // The Master's own signature pins the family there.
    let master = carry(&mut here, &mut there, master, "master").await;
    let mut barn = Gate::add(&there, &master, "barn", 22).await;
    assert!(tell(&here, &there, &family).await > 0);
    assert_eq!(tell(&here, &there, &family).await, 0, "nothing is new any more");
    assert_eq!(rights(&there, &key).await, [(gate.id.clone(), "active".into())]);
    let (keys, _) = there.client.manager().await.list_keys([].into(), "", 10).await.unwrap();
    assert!(keys.iter().any(|row| row.0 == key && row.1 != "Bob's Key"), "names stay at home");

    // Apart: here the Key is away and gate is confirmed again; there it gets the barn.
    let manager = there.client.manager().await;
    change(&there, &master, &key, &[&barn.id], &[&gate.id]).await.unwrap();
    gate.settle(&there, &key).await;
    barn.settle(&there, &key).await;
    assert!(!gate.admits(&key) && barn.admits(&key));
    assert!(tell(&there, &here, &family).await > 0);
    assert_eq!(rights(&here, &key).await, [(barn.id.clone(), "active".into())]);
    assert_eq!(rights(&there, &key).await, rights(&here, &key).await);
    assert_eq!(tell(&there, &here, &family).await, 0);
    assert_eq!(tell(&here, &there, &family).await, 0);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    export(&here, &family).await.read_to_end(&mut one).unwrap();
    export(&there, &family).await.read_to_end(&mut other).unwrap();
    assert_eq!(one, other, "both have the same");

    // A revocation there is one here.
    manager.revoke_key(&master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    assert!(tell(&there, &here, &family).await > 0);
    here.until_state(&sub.path, "revoked").await;
    // Every Lock of it is to hear that this is final.
    let mut locks = [gate.id.clone(), barn.id.clone()];
    locks.sort();
    assert_eq!(rights(&here, &key).await, locks.map(|lock| (lock, "removing".into())));
    let (roots, crls) = here.client.manager().await.get_family_bundle(&family).await.unwrap();
    let chain = here.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    keywright_bus_tests::certs::try_verify(&chain, &roots, &crls).unwrap_err();
    assert_ne!(own, key);
}

#[tokio::test]
async fn hostile_files_are_refused() {
    let (station, master) = with_master().await;
    let family = family(&station, &master).await;
    let manager = station.client.manager().await;
    assert_refused(manager.import_family(pins::pipe("hello")).await, "InvalidArgument");
    assert_refused(manager.import_family(pins::pipe("")).await, "InvalidArgument");
    let mut good = Vec::new();
    export(&station, &family).await.read_to_end(&mut good).unwrap();
    assert_eq!(manager.import_family(pins::pipe(&good)).await.unwrap(), 0);
    let cut = &good[..good.len() - 1];
    assert_refused(manager.import_family(pins::pipe(cut)).await, "InvalidArgument");
    assert_refused(
        manager
            .export_family(&"0".repeat(32), Fd::from(OwnedFd::from(tempfile::tempfile().unwrap())))
            .await,
        "NotFound",
    );
}
