//! Which statements stay in effect after a lost Backup, a stolen Backup or a lost Master is revoked.

use keywright_bus_tests::{
    Answers, Gate, Plugged, Station,
    api::Options,
    card::Reaction,
    certs,
    client::assert_refused,
    pins::{self, PIN},
    station::states,
};

/// A station with a Master, where the revocation of a senior takes effect after so many days.
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

/// A Backup that made a Sub Key and removed a right is lost: its statements are void, its Sub Key
/// keeps its right, and the removed right stays removed.
#[tokio::test]
async fn statements_of_a_lost_backup_are_reissued() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let old_sub = station.plug("old").await;
    station.make(&master, &old_sub, &Answers::sub("Old", &[&gate.id])).await;
    let old = station.id(&old_sub.path).await;
    station.unplug(old_sub).await;
    gate.settle(&station, &old).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = station.id(&backup.path).await;
    station.unplug(master).await;
    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[&gate.id, &barn.id])).await;
    let key = station.id(&sub.path).await;
    station.unplug(sub).await;
    let manager = station.client.manager().await;
    station.change_rights(&backup, &old, &[], &[&gate.id]).await.unwrap();
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
    // The gate gets the revocation first, the barn last.
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
    assert_eq!(
        station.rights_by_name(&key).await,
        states(&[("barn", "active"), ("gate", "active")])
    );
    assert_eq!(station.rights_by_name(&old).await, states(&[]));

    let backup = station.plug("backup").await;
    assert_refused(station.change_rights(&backup, &key, &[], &[&gate.id]).await, "Revoked");
    station.unplug(backup).await;

    // Servers know the Sub Key by its certificate, which a standing issuer must re-issue.
    let family = station.family(&master.path).await;
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

/// The issuer is pulled out while it re-issues objects: the revocation holds, and the next call signs the rest.
#[tokio::test]
async fn revocation_holds_when_reissuing_is_interrupted() {
    let (mut station, master) = Station::with_master().await;
    let gate = Gate::add(&station, &master, "gate", 21).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = station.id(&backup.path).await;
    let family = station.family(&master.path).await;
    let master_path = station.unplug(master).await;
    let mut subs = Vec::new();
    for name in ["one", "two"] {
        let sub = station.plug(name).await;
        station.make(&backup, &sub, &Answers::sub(name, &[&gate.id])).await;
        subs.push(station.id(&sub.path).await);
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
        assert_eq!(station.rights_by_name(key).await, states(&[("gate", "pending")]));
        let grant = manager.get_grant(key, &gate.id).await;
        assert_eq!(grant.is_err(), left.contains(key));
    }
    station.unplug(master).await;
    let master = station.plug("master").await;
    station.until_state(&master_path, "master").await;
    manager.revoke_key(&master.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    assert_eq!(waiting().await, Vec::<String>::new());
    for key in &subs {
        manager.get_grant(key, &gate.id).await.unwrap();
    }
}

/// With the reason `stolen`, no object of the revoked Key is re-issued automatically.
#[tokio::test]
async fn statements_of_a_stolen_backup_stay_void() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let stolen = station.id(&backup.path).await;
    station.unplug(master).await;
    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = station.id(&sub.path).await;
    station.unplug(backup).await;
    let master = station.plug("master").await;
    let manager = station.client.manager().await;
    manager.revoke_key(&master.path, &stolen, "stolen", pins::pipe(PIN)).await.unwrap();
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "pending")]));
    assert_refused(manager.get_grant(&key, &gate.id).await, "NotFound");
    station.change_rights(&master, &key, &[&barn.id], &[]).await.unwrap();
    barn.settle(&station, &key).await;
    gate.settle(&station, &key).await;
    assert!(barn.admits(&key) && !gate.admits(&key), "nor with the next change");
    // A person grants the legitimate right again.
    station.change_rights(&master, &key, &[&gate.id], &[]).await.unwrap();
    gate.settle(&station, &key).await;
    assert!(gate.admits(&key));
    assert_eq!(
        station.rights_by_name(&key).await,
        states(&[("barn", "active"), ("gate", "active")])
    );
}

/// A Backup revokes a lost Master, which takes effect after the delay, and makes a new Backup.
#[tokio::test]
async fn backup_replaces_a_lost_master() {
    let (mut station, master) = with_delay(0).await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let (lost, key) = (station.id(&master.path).await, station.id(&sub.path).await);
    station.unplug(sub).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let heir = station.id(&backup.path).await;
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
    let new = station.id(&new.path).await;
    gate.settle(&station, &new).await;
    assert!(gate.admits(&new));

    // For servers the Backup becomes a root, because the Master no longer is one.
    let family = station.family(&backup.path).await;
    assert_eq!(manager.get_family_bundle(&family).await.unwrap().0, "");
    manager.revoke_key(&backup.path, &lost, "lost", pins::pipe(PIN)).await.unwrap();
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let chain = station.client.key(&backup.path).await.get_certificate_chain("").await.unwrap();
    certs::verify(&chain, &roots, &crls);
}

/// If the Master is not lost, it objects.
#[tokio::test]
async fn master_overrules_its_revocation_by_a_backup() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    let (own, thief) = (station.id(&master.path).await, station.id(&backup.path).await);
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
