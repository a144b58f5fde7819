//! Two stations of one family that signed apart exchange their signed objects in a file.

use std::os::fd::OwnedFd;

use keywright_bus_tests::{
    Answers, Gate, Station,
    client::{assert_refused, error_name},
    pins::{self, PIN},
};
use zbus::Fd;

/// Exports from one station and imports at the other; returns how many objects were new there.
async fn tell(from: &Station, to: &Station, family: &str) -> u32 {
    to.import(&from.export(family).await).await
}

#[tokio::test]
async fn stations_that_signed_apart_converge() {
    let (mut here, master) = Station::with_master().await;
    let mut gate = Gate::add(&here, &master, "gate", 21).await;
    let sub = here.plug("sub").await;
    here.make(&master, &sub, &Answers::sub("Bob's Key", &[&gate.id])).await;
    let (key, own) = (here.id(&sub.path).await, here.id(&master.path).await);
    let family = here.family(&master.path).await;
    gate.settle(&here, &key).await;

    let mut there = Station::start().await;
    let file = pins::pipe(&here.export(&family).await);
    let refused = there.client.manager().await.import_family(file).await;
    assert_refused(refused, "Unverified");
    // The Master's own signature pins the family there.
    let master = here.carry_to(&mut there, master, "master").await;
    let mut barn = Gate::add(&there, &master, "barn", 22).await;
    assert!(tell(&here, &there, &family).await > 0);
    assert_eq!(tell(&here, &there, &family).await, 0, "nothing is new any more");
    assert_eq!(there.rights(&key).await, [(gate.id.clone(), "active".into())]);
    let (keys, _) = there.client.manager().await.list_keys([].into(), "", 10).await.unwrap();
    assert!(keys.iter().any(|row| row.0 == key && row.1 != "Bob's Key"), "names stay at home");

    // Apart: here the Key is away and gate is confirmed again; there it gets the barn.
    let manager = there.client.manager().await;
    there.change_rights(&master, &key, &[&barn.id], &[&gate.id]).await.unwrap();
    gate.settle(&there, &key).await;
    barn.settle(&there, &key).await;
    assert!(!gate.admits(&key) && barn.admits(&key));
    assert!(tell(&there, &here, &family).await > 0);
    assert_eq!(here.rights(&key).await, [(barn.id.clone(), "active".into())]);
    assert_eq!(there.rights(&key).await, here.rights(&key).await);
    assert_eq!(tell(&there, &here, &family).await, 0);
    assert_eq!(tell(&here, &there, &family).await, 0);
    let (one, other) = (here.export(&family).await, there.export(&family).await);
    assert_eq!(one, other, "both have the same");

    // A Key revoked there is revoked here.
    manager.revoke_key(&master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    assert!(tell(&there, &here, &family).await > 0);
    here.until_state(&sub.path, "revoked").await;
    // The revocation is pending at every Lock of the family.
    let mut locks = [gate.id.clone(), barn.id.clone()];
    locks.sort();
    assert_eq!(here.rights(&key).await, locks.map(|lock| (lock, "removing".into())));
    let (roots, crls) = here.client.manager().await.get_family_bundle(&family).await.unwrap();
    let chain = here.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    keywright_bus_tests::certs::try_verify(&chain, &roots, &crls).unwrap_err();
    assert_ne!(own, key);
}

/// Two Keys are plugged in: one is known here from another family, the other is unknown.
#[tokio::test]
async fn import_keeps_plugged_in_keys_present() {
    let (mut here, master) = Station::with_master().await;
    here.add_lock(&master, "hut").await;
    let both = here.plug("both").await;
    here.make_master(&both, "Both").await;
    let mut answers = Answers::sub("Both", &[]);
    answers.pins.candidate = PIN.into();
    let job = here.offer(&master, &both).await;
    here.finish(&job, &answers).await;
    let sub = here.plug("sub").await;
    here.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    let (sub_id, family) = (here.id(&sub.path).await, here.family(&master.path).await);

    let mut there = Station::start().await;
    let master = here.carry_to(&mut there, master, "master").await;
    Gate::add(&there, &master, "gate", 21).await;
    let both = here.carry_to(&mut there, both, "both").await;
    Gate::add(&there, &both, "barn", 22).await;
    let sub = here.carry_to(&mut there, sub, "sub").await;
    assert!(tell(&here, &there, &family).await > 0);
    let objects = there.watch.objects().await;
    let present: Vec<_> = objects.present().map(|key| &key.path).collect();
    assert_eq!(present.len(), 3, "{objects:?}");
    assert!([&master, &both, &sub].iter().all(|key| present.contains(&&key.path)), "{objects:?}");
    let memberships: Vec<(String, String)> = objects.key(&both.path).unwrap().get("Memberships");
    assert_eq!(memberships.len(), 2, "{objects:?}");
    let known: Vec<_> = objects.keys.iter().filter(|key| key.text("Id") == sub_id).collect();
    assert_eq!(known.len(), 1, "one object for one Key: {objects:?}");
    let path = there.unplug(sub).await;
    assert_eq!(there.plug("sub").await.path, path);
}

#[tokio::test]
async fn forged_family_files_are_refused() {
    let (station, master) = Station::with_master().await;
    let family = station.family(&master.path).await;
    let manager = station.client.manager().await;
    assert_refused(manager.import_family(pins::pipe("hello")).await, "InvalidArgument");
    assert_refused(manager.import_family(pins::pipe("")).await, "InvalidArgument");
    let good = station.export(&family).await;
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

/// Each import keeps a thread until the other end of its pipe is done.
#[tokio::test]
async fn user_who_imports_without_end_waits_alone() {
    let (here, _master) = Station::with_master().await;
    let manager = here.client.manager().await;
    let (readers, writers): (Vec<_>, Vec<_>) = (0..4).map(|_| pins::open_pipe()).unzip();
    let slow = readers.into_iter().map(|reader| manager.import_family(reader));
    let slow = futures_util::future::join_all(slow);
    // Asked until the answer is another one: the four are sent before, but may not be open yet.
    let until_not = async |name: &str| loop {
        let refused = manager.import_family(pins::pipe("hello")).await.unwrap_err();
        if error_name(&refused) != name {
            return error_name(&refused).to_owned();
        }
    };
    let others = async {
        let refused = until_not("InvalidArgument").await;
        let (keys, _) = manager.list_keys([].into(), "", 10).await.unwrap();
        (refused, keys.len())
    };
    let answered = tokio::select! {
        biased;
        _ = slow => panic!("an import ended while its pipe was open"),
        answered = others => answered,
    };
    assert_eq!(answered, ("LimitExceeded".into(), 1));
    drop(writers);
    assert_eq!(until_not("LimitExceeded").await, "InvalidArgument");
}
