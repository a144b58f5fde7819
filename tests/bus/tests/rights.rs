//! Rights after a Key was made: changed, revoked, confirmed, with the Key itself far away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use futures_util::StreamExt;
use keywright_bus_tests::{
    Answers, Gate, Objects, Plugged, Station,
    api::Options,
    card::Reaction,
    certs,
    client::assert_refused,
    pins::{self, PIN, WRONG_PIN},
};
use zbus::OwnedObjectPath;

/// A station with a Master.
async fn with_master() -> (Station, Plugged) {
    with_delay(7).await
}

/// The same, where the revocation of a senior waits so many days.
async fn with_delay(days: u32) -> (Station, Plugged) {
    let mut station = Station::prepared(|launch| {
        let config = launch.state_dir.with_file_name("config");
        std::fs::write(&config, format!("revoke_delay_days = {days}\n")).unwrap();
        launch.config = Some(config);
    })
    .await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    (station, master)
}

async fn id(station: &Station, key: &OwnedObjectPath) -> String {
    station.watch.objects().await.key(key).unwrap().text("Id")
}

/// Names and states of the rights of a Key, sorted.
async fn rights(station: &Station, key: &str) -> Vec<(String, String)> {
    let (rows, _) = station.client.manager().await.list_rights(key, "", 100).await.unwrap();
    let mut states: Vec<_> = rows.into_iter().map(|row| (row.1, row.2)).collect();
    states.sort();
    states
}

fn states(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, state)| ((*name).into(), (*state).into())).collect()
}

async fn counts(station: &mut Station, key: &OwnedObjectPath, active: u32, pending: u32) {
    let what = format!("{active} active and {pending} pending rights");
    station
        .watch
        .until(&what, |objects| {
            let key = objects.key(key)?;
            let found = (key.get::<u32>("Locks"), key.get::<u32>("PendingLocks"));
            (found == (active, pending)).then_some(())
        })
        .await;
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
async fn rights_are_changed_while_the_key_is_away() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = id(&station, &sub.path).await;
    let path = station.unplug(sub).await;
    gate.settle(&station, &key).await;
    assert!(gate.admits(&key));
    assert_eq!(rights(&station, &key).await, states(&[("gate", "active")]));
    counts(&mut station, &path, 1, 0).await;

    let manager = station.client.manager().await;
    let changed = async |add: &[&str], remove: &[&str], pin: &str| {
        manager.change_rights(&master.path, &key, add, remove, pins::pipe(pin)).await
    };
    assert_refused(changed(&[&barn.id], &[], WRONG_PIN).await, "PinInvalid");
    assert_refused(changed(&[], &[], PIN).await, "InvalidArgument");
    assert_refused(changed(&[&barn.id], &[&barn.id], PIN).await, "InvalidArgument");
    assert_refused(changed(&[&key], &[], PIN).await, "NotFound");
    assert_eq!(rights(&station, &key).await, states(&[("gate", "active")]));

    changed(&[&barn.id], &[&gate.id], PIN).await.unwrap();
    assert_eq!(rights(&station, &key).await, states(&[("barn", "pending"), ("gate", "removing")]));
    counts(&mut station, &path, 0, 1).await;
    let before = manager.get_grant(&key, &barn.id).await.unwrap();
    changed(&[&barn.id], &[&gate.id], PIN).await.unwrap();
    assert_eq!(manager.get_grant(&key, &barn.id).await.unwrap(), before, "nothing was signed");

    let old = gate.fetch(&station, &key).await;
    assert!(!gate.admits(&key));
    manager.apply_confirmation(&old).await.unwrap();
    barn.settle(&station, &key).await;
    assert!(barn.admits(&key));
    assert_eq!(rights(&station, &key).await, states(&[("barn", "active")]));
    counts(&mut station, &path, 1, 0).await;

    // A Master has every Lock, and is revoked where it is to have none.
    let own = id(&station, &master.path).await;
    assert_refused(change(&station, &master, &own, &[&barn.id], &[]).await, "InvalidArgument");
}

#[tokio::test]
async fn a_confirmation_counts_from_its_lock_only_and_an_old_one_changes_nothing() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let stranger = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = id(&station, &sub.path).await;
    let manager = station.client.manager().await;

    let allowed = gate.fetch(&station, &key).await;
    let mut forged = allowed.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_refused(manager.apply_confirmation(&forged).await, "Unverified");
    assert_refused(manager.apply_confirmation(b"hello").await, "InvalidArgument");
    let unknown = keywright_proto::Confirmation {
        statement: [1; 32],
        effect: keywright_proto::Effect::Allow,
        newest_version: 1,
    };
    assert_refused(manager.apply_confirmation(&gate.confirm(&unknown)).await, "NotFound");
    drop(stranger);
    assert_eq!(rights(&station, &key).await, states(&[("gate", "pending")]));
    manager.apply_confirmation(&allowed).await.unwrap();
    assert_eq!(rights(&station, &key).await, states(&[("gate", "active")]));

    change(&station, &master, &key, &[], &[&gate.id]).await.unwrap();
    gate.settle(&station, &key).await;
    assert_eq!(rights(&station, &key).await, states(&[]));
    manager.apply_confirmation(&allowed).await.unwrap();
    assert_eq!(rights(&station, &key).await, states(&[]), "an old word does not come back");
}

/// A front-end hears of each right that a Lock has confirmed, once, and how long that was waited for.
#[tokio::test]
async fn each_confirmed_right_is_told_by_a_signal() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let manager = station.client.manager().await;
    let mut signals = manager.receive_rights_confirmed().await.unwrap();
    let mut told = async |key: &str, lock: &Gate, word: &str| {
        let heard = tokio::time::timeout(std::time::Duration::from_secs(30), signals.next()).await;
        let heard = heard.expect("a signal").unwrap();
        let heard = heard.args().unwrap();
        let [(of, state, waited)] = &heard.rights[..] else { panic!("{:?}", heard.rights) };
        assert_eq!((&*heard.key_id, &**of, &**state), (key, &*lock.id, word));
        assert!(*waited < 600, "{waited}");
    };
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let (key, own) = (id(&station, &sub.path).await, id(&station, &master.path).await);
    gate.settle(&station, &key).await;
    told(&key, &gate, "active").await;
    // The statement on every Lock counts for each.
    barn.settle(&station, &own).await;
    told(&own, &barn, "active").await;

    // It says once more that the Lock admits the Key: no right has changed.
    change(&station, &master, &key, &[&barn.id], &[]).await.unwrap();
    gate.settle(&station, &key).await;
    let old = gate.fetch(&station, &key).await;
    change(&station, &master, &key, &[], &[&gate.id]).await.unwrap();
    gate.settle(&station, &key).await;
    told(&key, &gate, "removed").await;
    manager.apply_confirmation(&old).await.unwrap();

    // A word on what is not the newest any more leaves the right where it is: it is removed.
    let allowed = barn.fetch(&station, &key).await;
    change(&station, &master, &key, &[], &[&barn.id]).await.unwrap();
    manager.apply_confirmation(&allowed).await.unwrap();
    barn.settle(&station, &key).await;
    told(&key, &barn, "removed").await;
    manager.revoke_key(&master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    gate.settle(&station, &key).await;
    told(&key, &gate, "removed").await;
}

#[tokio::test]
async fn a_revoked_sub_key_is_out_for_good() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = id(&station, &sub.path).await;
    gate.settle(&station, &key).await;
    let old = station.client.manager().await.get_grant(&key, &gate.id).await.unwrap();
    let chain = station.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    let path = station.unplug(sub).await;

    let manager = station.client.manager().await;
    let revoke = async |reason: &str, pin: &str| {
        manager.revoke_key(&master.path, &key, reason, pins::pipe(pin)).await
    };
    assert_refused(revoke("lost", WRONG_PIN).await, "PinInvalid");
    assert_refused(revoke("two\nlines", PIN).await, "InvalidArgument");
    revoke("lost", PIN).await.unwrap();
    revoke("lost", PIN).await.unwrap();
    station.until_state(&path, "revoked").await;
    assert_eq!(rights(&station, &key).await, states(&[("gate", "removing")]));
    counts(&mut station, &path, 0, 0).await;
    gate.settle(&station, &key).await;
    assert!(!gate.admits(&key));
    gate.hear(&old);
    assert!(!gate.admits(&key), "an old grant does not bring it back");
    assert_eq!(rights(&station, &key).await, states(&[]));

    let family = family(&station, &master.path).await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let refusal = certs::try_verify(&chain, &roots, &crls).unwrap_err();
    assert!(refusal.contains("revoked"), "{refusal}");
    assert_refused(change(&station, &master, &key, &[&gate.id], &[]).await, "Revoked");
    let sub = station.plug("sub").await;
    assert_eq!(sub.path, path);
    station.watch.until_decision([&master.path, &path], "revoked").await;
    let own = id(&station, &master.path).await;
    let itself = manager.revoke_key(&master.path, &own, "", pins::pipe(PIN));
    assert_refused(itself.await, "InvalidArgument");
}

async fn family(station: &Station, key: &OwnedObjectPath) -> String {
    let objects = station.watch.objects().await;
    let memberships: Vec<(String, String)> = objects.key(key).unwrap().get("Memberships");
    memberships[0].0.clone()
}

/// A Backup that made a Sub Key and took a right away is lost: its word is void, its Sub Key keeps
/// its right, and what it had denied does not come back.
#[tokio::test]
async fn what_a_lost_backup_had_signed_is_signed_anew() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let old_sub = station.plug("old").await;
    station.make(&master, &old_sub, &Answers::sub("Old", &[&gate.id])).await;
    let old = id(&station, &old_sub.path).await;
    station.unplug(old_sub).await;
    gate.settle(&station, &old).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = id(&station, &backup.path).await;
    station.unplug(master).await;
    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[&gate.id, &barn.id])).await;
    let key = id(&station, &sub.path).await;
    station.unplug(sub).await;
    let manager = station.client.manager().await;
    change(&station, &backup, &old, &[], &[&gate.id]).await.unwrap();
    for gate in [&mut gate, &mut barn] {
        gate.settle(&station, &key).await;
        gate.settle(&station, &lost).await;
    }
    gate.settle(&station, &old).await;
    assert!(gate.admits(&key) && barn.admits(&key) && gate.admits(&lost) && !gate.admits(&old));
    let backup_path = station.unplug(backup).await;

    let master = station.plug("master").await;
    manager.revoke_key(&master.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    station.until_state(&backup_path, "revoked").await;
    // The gate hears of the revocation first, the barn last.
    gate.settle(&station, &lost).await;
    assert!(!gate.admits(&lost));
    assert!(!gate.admits(&key), "nobody who stands has said so yet");
    assert!(!gate.admits(&old), "a denial does not end with its signer");
    gate.settle(&station, &key).await;
    gate.settle(&station, &old).await;
    barn.settle(&station, &key).await;
    assert!(barn.admits(&key));
    barn.settle(&station, &lost).await;
    assert!(gate.admits(&key) && barn.admits(&key) && !barn.admits(&lost) && !gate.admits(&old));
    assert_eq!(rights(&station, &key).await, states(&[("barn", "active"), ("gate", "active")]));
    assert_eq!(rights(&station, &old).await, states(&[]));

    let backup = station.plug("backup").await;
    assert_refused(change(&station, &backup, &key, &[], &[&gate.id]).await, "Revoked");
    station.unplug(backup).await;

    // Servers know the Sub Key by its certificate, which somebody who stands has to sign anew.
    let family = family(&station, &master.path).await;
    let sub = station.plug("sub").await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let chain =
        async || station.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    assert!(certs::try_verify(&chain().await, &roots, &crls).unwrap_err().contains("revoked"));
    let again = manager.start_serialization(&master.path, &sub.path, Options::new()).await.unwrap();
    let mut answers = Answers::sub("Sub", &[&gate.id]);
    answers.pins.candidate = PIN.into();
    station.finish(&again, &answers).await;
    let chain = station.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    certs::verify(&chain, &roots, &crls);
    let on_token = chain.clone();
    station.unplug(sub).await;
    let sub = station.plug("sub").await;
    let chain = station.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    assert_eq!(chain, on_token);
}

/// The issuer is pulled out while it signs anew: the revocation stands, and the rest waits for the next call.
#[tokio::test]
async fn a_revocation_stands_whatever_becomes_of_what_is_signed_anew() {
    let (mut station, master) = with_master().await;
    let gate = Gate::add(&station, &master, "gate", 21).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = id(&station, &backup.path).await;
    let family = family(&station, &master.path).await;
    let master_path = station.unplug(master).await;
    let mut subs = Vec::new();
    for name in ["one", "two"] {
        let sub = station.plug(name).await;
        station.make(&backup, &sub, &Answers::sub(name, &[&gate.id])).await;
        subs.push(id(&station, &sub.path).await);
        station.unplug(sub).await;
    }
    let backup_path = station.unplug(backup).await;
    let manager = station.client.manager().await;
    let waiting = async || {
        let (rows, _) = manager.list_waiting(&family, "", 100).await.unwrap();
        let rows = rows.into_iter().filter(|row| row.0 == "statement");
        rows.map(|row| row.1).collect::<Vec<_>>()
    };
    // The revocation, the CRL, and one of the two statements; signing with 9C is 87 11 9C.
    let master = station.plug("master").await;
    station.until_state(&master_path, "master").await;
    let mut signatures = 0;
    master.card.script(move |_, command| {
        signatures += usize::from(matches!(command, [_, 0x87, _, 0x9C, ..]));
        if signatures > 3 { Reaction::Cut } else { Reaction::Forward }
    });
    manager.revoke_key(&master.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    station.until_state(&backup_path, "revoked").await;
    let left = waiting().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(subs.contains(&left[0]));
    for key in &subs {
        assert_eq!(rights(&station, key).await, states(&[("gate", "pending")]));
        let grant = manager.get_grant(key, &gate.id).await;
        assert_eq!(grant.is_err(), left.contains(key));
    }
    drop(master);
    let master = station.plug("master").await;
    station.until_state(&master_path, "master").await;
    manager.revoke_key(&master.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    assert_eq!(waiting().await, Vec::<String>::new());
    for key in &subs {
        manager.get_grant(key, &gate.id).await.unwrap();
    }
}

/// With the reason `stolen` nothing of the revoked Key's is signed anew by itself.
#[tokio::test]
async fn what_a_stolen_backup_had_signed_stays_void() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let stolen = id(&station, &backup.path).await;
    station.unplug(master).await;
    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = id(&station, &sub.path).await;
    station.unplug(backup).await;
    let master = station.plug("master").await;
    let manager = station.client.manager().await;
    manager.revoke_key(&master.path, &stolen, "stolen", pins::pipe(PIN)).await.unwrap();
    assert_eq!(rights(&station, &key).await, states(&[("gate", "pending")]));
    assert_refused(manager.get_grant(&key, &gate.id).await, "NotFound");
    change(&station, &master, &key, &[&barn.id], &[]).await.unwrap();
    barn.settle(&station, &key).await;
    gate.settle(&station, &key).await;
    assert!(barn.admits(&key) && !gate.admits(&key), "nor with the next change");
    // What is right is granted by hand.
    change(&station, &master, &key, &[&gate.id], &[]).await.unwrap();
    gate.settle(&station, &key).await;
    assert!(gate.admits(&key));
    assert_eq!(rights(&station, &key).await, states(&[("barn", "active"), ("gate", "active")]));
}

/// A Backup takes the place of a lost Master: it revokes it, which acts after the delay, and makes a
/// new Backup.
#[tokio::test]
async fn a_backup_takes_the_place_of_a_lost_master() {
    let (mut station, master) = with_delay(0).await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let (lost, key) = (id(&station, &master.path).await, id(&station, &sub.path).await);
    station.unplug(sub).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let heir = id(&station, &backup.path).await;
    let master_path = station.unplug(master).await;
    for key in [&lost, &heir, &key] {
        gate.settle(&station, key).await;
        assert!(gate.admits(key));
    }
    let manager = station.client.manager().await;
    manager.revoke_key(&backup.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    station.until_state(&master_path, "revoked").await;
    for key in [&lost, &heir, &key] {
        gate.fetch(&station, key).await;
        assert!(gate.admits(key), "the Lock waits for an objection");
    }
    gate.now += 7 * 86_400;
    assert!(!gate.admits(&lost) && gate.admits(&heir) && gate.admits(&key));
    let new = station.plug("new").await;
    station.make(&backup, &new, &Answers::backup("New Backup")).await;
    let new = id(&station, &new.path).await;
    gate.settle(&station, &new).await;
    assert!(gate.admits(&new));

    // For servers the Backup becomes a root, now that the Master is none.
    let family = family(&station, &backup.path).await;
    assert_eq!(manager.get_family_bundle(&family).await.unwrap().0, "");
    manager.revoke_key(&backup.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let chain = station.client.key(&backup.path).await.get_certificate_chain("").await.unwrap();
    certs::verify(&chain, &roots, &crls);
}

/// Where the Master is not lost, it objects.
#[tokio::test]
async fn a_master_objects_to_its_revocation() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let (own, thief) = (id(&station, &master.path).await, id(&station, &backup.path).await);
    for key in [&own, &thief] {
        gate.settle(&station, key).await;
    }
    let manager = station.client.manager().await;
    manager.revoke_key(&backup.path, &own, "mine now", pins::pipe(PIN)).await.unwrap();
    station.until_state(&master.path, "master").await;
    let revocation = manager.get_grant(&own, &gate.id).await.unwrap();
    gate.hear(&revocation);
    manager.revoke_key(&master.path, &thief, "stolen", pins::pipe(PIN)).await.unwrap();
    station.until_state(&backup.path, "revoked").await;
    gate.now += 30 * 86_400;
    gate.settle(&station, &thief).await;
    assert!(gate.admits(&own) && !gate.admits(&thief));
    station.until_state(&master.path, "master").await;
}

#[tokio::test]
async fn a_soft_key_is_a_sub_key_in_software() {
    let (mut station, master) = with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let barn = Gate::add(&station, &master, "barn", 22).await;
    let manager = station.client.manager().await;
    let request = certs::request("phone");
    let issue = async |request: &str, locks: &[&str], pin: &str| {
        manager.issue_soft_key(&master.path, "Phone", request, locks, pins::pipe(pin)).await
    };
    assert_refused(issue(&request, &[&gate.id], WRONG_PIN).await, "PinInvalid");
    assert_refused(issue(&request, &[], PIN).await, "InvalidArgument");
    assert_refused(issue("no request", &[&gate.id], PIN).await, "InvalidArgument");
    assert_refused(issue(&certs::forged_request(), &[&gate.id], PIN).await, "InvalidArgument");
    let (key, chain) = issue(&request, &[&gate.id], PIN).await.unwrap();
    assert_eq!(key, certs::key_id(&chain));
    assert_refused(issue(&request, &[&barn.id], PIN).await, "InvalidArgument");
    let family = family(&station, &master.path).await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    certs::verify(&chain, &roots, &crls);
    let names = certs::show(&chain, &["-ext", "subjectAltName"]);
    assert!(names.contains(&format!("URI:spiffe://{family}/soft/{key}")), "{names}");

    let shown = |objects: &Objects| {
        let key = objects.key_with_id(&key)?;
        let memberships: Vec<(String, String)> = key.get("Memberships");
        Some((key.text("State"), key.text("Model"), memberships[0].1.clone()))
    };
    let shown = station.watch.until("the Soft Key", shown).await;
    assert_eq!(shown, ("sub".into(), "Soft Key".into(), "soft".into()));
    gate.settle(&station, &key).await;
    assert!(gate.admits(&key));
    assert_eq!(rights(&station, &key).await, states(&[("gate", "active")]));
    change(&station, &master, &key, &[&barn.id], &[&gate.id]).await.unwrap();
    manager.revoke_key(&master.path, &key, "phone stolen", pins::pipe(PIN)).await.unwrap();
    gate.settle(&station, &key).await;
    assert!(!gate.admits(&key));
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    assert!(certs::try_verify(&chain, &roots, &crls).unwrap_err().contains("revoked"));
}
