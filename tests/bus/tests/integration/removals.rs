//! Locks are removed from their family. Signatures that are pending after a revocation are listed, known to other
//! stations, and made when the right Key is plugged in.

use keywright_bus_tests::{
    Answers, Gate, Plugged, Station,
    api::{Options, WaitingRow},
    certs,
    client::assert_refused,
    pins::{self, PIN, WRONG_PIN},
};
use zbus::Variant;

/// A station where the revocation of a Master takes effect at once.
async fn hasty() -> Station {
    Station::prepared(|launch| {
        let config = launch.state_dir.with_file_name("config");
        std::fs::write(&config, "revoke_delay_days = 0\n").unwrap();
        launch.config = Some(config);
    })
    .await
}

async fn with_master() -> (Station, Plugged, String) {
    with_master_at(Station::start().await).await
}

async fn with_master_at(mut station: Station) -> (Station, Plugged, String) {
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let family = station.family(&master.path).await;
    (station, master, family)
}

async fn locks(station: &Station) -> Vec<String> {
    let manager = station.client.manager().await;
    let rows = manager.list_locks(Options::new(), "", 100).await.unwrap().0;
    rows.into_iter().map(|row| row.0).collect()
}

async fn waiting(station: &Station, family: &str) -> Vec<WaitingRow> {
    let manager = station.client.manager().await;
    let (rows, next) = manager.list_waiting(family, "", 100).await.unwrap();
    assert_eq!(next, "");
    rows
}

/// Of each row: what is to be signed, the name of its subject, and who signs.
fn words(rows: &[WaitingRow]) -> Vec<(&str, &str, &str)> {
    rows.iter().map(|row| (&*row.0, &*row.1, &*row.4)).collect()
}

async fn remove(station: &Station, by: &Plugged, lock: &str) -> zbus::Result<()> {
    station.client.manager().await.remove_lock(&by.path, lock, pins::pipe(PIN)).await
}

async fn revoke(station: &Station, by: &Plugged, key: &str, reason: &str) {
    let manager = station.client.manager().await;
    manager.revoke_key(&by.path, key, reason, pins::pipe(PIN)).await.unwrap();
}

#[tokio::test]
async fn lock_removal_is_final_at_every_station() {
    let (mut here, master, family) = with_master().await;
    let mut gate = Gate::add(&here, &master, "gate", 21).await;
    let barn = Gate::add(&here, &master, "barn", 22).await;
    let sub = here.plug("sub").await;
    here.make(&master, &sub, &Answers::sub("Sub", &[&gate.id, &barn.id])).await;
    let (key, own) = (here.id(&sub.path).await, here.id(&master.path).await);
    gate.settle(&here, &key).await;
    let old = here.export(&family).await;
    let chain = gate.chain.clone();

    // The other station knows both Locks and not the removal.
    let mut there = Station::start().await;
    let master = here.carry_to(&mut there, master, "master").await;
    Gate::add(&there, &master, "attic", 23).await;
    there.import(&old).await;
    assert_eq!(locks(&there).await.len(), 3);
    let master = there.carry_to(&mut here, master, "master").await;

    let manager = here.client.manager().await;
    let wrong = manager.remove_lock(&master.path, &gate.id, pins::pipe(WRONG_PIN)).await;
    assert_refused(wrong, "PinInvalid");
    assert_refused(remove(&here, &master, &key).await, "NotFound");
    assert_refused(remove(&here, &sub, &gate.id).await, "NotAnIssuer");
    assert_eq!(locks(&here).await.len(), 2);
    remove(&here, &master, &gate.id).await.unwrap();
    remove(&here, &master, &gate.id).await.unwrap();
    assert_eq!(locks(&here).await, std::slice::from_ref(&barn.id));
    let left = [(barn.id.clone(), "pending".to_owned())];
    assert_eq!(here.rights(&key).await, left);
    assert_eq!(here.rights(&own).await, left);
    let objects = here.watch.objects().await;
    let object = objects.key(&sub.path).unwrap();
    assert_eq!((object.get::<u32>("Locks"), object.get::<u32>("PendingLocks")), (0, 1));
    assert_refused(manager.get_grant(&key, &gate.id).await, "NotFound");
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let refusal = certs::try_verify(&chain, &roots, &crls).unwrap_err();
    assert!(refusal.contains("revoked"), "{refusal}");
    assert_eq!(waiting(&here, &family).await, []);

    // The removal is final: importing an older file does not restore the Lock.
    let again = manager.add_lock(&master.path, "gate", &Gate::request(21), pins::pipe(PIN)).await;
    assert_refused(again, "InvalidArgument");
    here.import(&old).await;
    assert_eq!(locks(&here).await, std::slice::from_ref(&barn.id));
    let newer = here.export(&family).await;
    assert!(there.import(&newer).await > 0);
    assert_eq!(there.import(&newer).await, 0);
    assert_eq!(there.import(&old).await, 0);
    let found = locks(&there).await;
    assert!(found.len() == 2 && !found.contains(&gate.id), "{found:?}");
    assert_eq!(there.rights(&key).await, left);

    // The next statement on the Key omits it. When the last Lock is removed there is no offer.
    manager.change_rights(&master.path, &key, &[], &[&barn.id], pins::pipe(PIN)).await.unwrap();
    assert_eq!(here.rights(&key).await, [(barn.id.clone(), "removing".into())]);
    remove(&here, &master, &barn.id).await.unwrap();
    let blank = here.plug("blank").await;
    here.watch.until_decision([&master.path, &blank.path], "no-lock").await;
}

/// A Backup removes a Lock that the Master certified: every station lists the CRL entry as pending, and the Master signs
/// it with its next revocation. If the Backup is revoked as stolen, the Lock is restored; if as lost, the Master signs
/// the removal again.
#[tokio::test]
async fn crl_entry_of_another_ca_is_listed_as_pending() {
    for reason in ["stolen", "lost"] {
        let (mut here, master, family) = with_master().await;
        let gate = Gate::add(&here, &master, "gate", 21).await;
        Gate::add(&here, &master, "barn", 22).await;
        let backup = here.plug("backup").await;
        here.make(&master, &backup, &Answers::backup("Backup")).await;
        let (own, lost) = (here.id(&master.path).await, here.id(&backup.path).await);
        here.unplug(master).await;
        remove(&here, &backup, &gate.id).await.unwrap();
        assert_eq!(locks(&here).await.len(), 1);
        let pending = [("crl-entry", &*gate.id, &*own)];
        assert_eq!(words(&waiting(&here, &family).await), pending);
        let (roots, crls) = here.client.manager().await.get_family_bundle(&family).await.unwrap();
        certs::verify(&gate.chain, &roots, &crls);

        // Only the signed removal is exchanged; each station derives the entry.
        let mut there = Station::start().await;
        let master = here.plug("master").await;
        let master = here.carry_to(&mut there, master, "master").await;
        Gate::add(&there, &master, "attic", 23).await;
        there.import(&here.export(&family).await).await;
        assert_eq!(words(&waiting(&there, &family).await), pending);
        assert_eq!(waiting(&there, &family).await[0].2.split(' ').next(), Some("Lock"));

        revoke(&there, &master, &lost, reason).await;
        let found = locks(&there).await;
        assert_eq!(found.contains(&gate.id), reason == "stolen", "{reason}: {found:?}");
        let (roots, crls) = there.client.manager().await.get_family_bundle(&family).await.unwrap();
        certs::try_verify(&gate.chain, &roots, &crls).unwrap_err();
        let left = waiting(&there, &family).await;
        if reason == "stolen" {
            // It is a Lock again. The Master had revoked its certificate meanwhile, and issues a new one.
            assert_eq!(words(&left), [("certificate", &*gate.id, "")]);
            let request = Gate::request(21);
            let manager = there.client.manager().await;
            let again = manager.add_lock(&master.path, "gate", &request, pins::pipe(PIN)).await;
            certs::verify(&again.unwrap().1, &roots, &crls);
        }
        assert_eq!(waiting(&there, &family).await, []);
    }
}

/// The revocation of a lost Backup re-issues the certificates of its Locks; the Locks of a stolen Backup must be added
/// again.
#[tokio::test]
async fn locks_of_a_revoked_backup_are_certified_again() {
    for reason in ["stolen", "lost"] {
        let (mut station, master, family) = with_master().await;
        let backup = station.plug("backup").await;
        Gate::add(&station, &master, "barn", 22).await;
        station.make(&master, &backup, &Answers::backup("Backup")).await;
        let lost = station.id(&backup.path).await;
        let gate = Gate::add(&station, &backup, "gate", 21).await;
        station.unplug(master).await;
        let sub = station.plug("sub").await;
        station.make(&backup, &sub, &Answers::sub("Sub", &[])).await;
        let key = station.id(&sub.path).await;
        station.unplug(backup).await;
        let master = station.plug("master").await;
        assert_eq!(waiting(&station, &family).await, []);

        let before = station.export(&family).await;
        revoke(&station, &master, &lost, reason).await;
        let left = waiting(&station, &family).await;
        // Rights that a thief may have granted are not re-issued; a person may grant them again.
        let mut of_key = vec![("certificate", &*key, "")];
        let mut expected = of_key.clone();
        if reason == "stolen" {
            of_key.push(("statement", &*key, ""));
            expected = [&of_key[..], &[("certificate", &*gate.id, "")]].concat();
        }
        expected.sort_by_key(|row| row.1);
        assert_eq!(words(&left), expected, "{reason}");
        let manager = station.client.manager().await;
        let request = Gate::request(21);
        let add = manager.add_lock(&master.path, "gate", &request, pins::pipe(PIN));
        let (_, chain) = add.await.unwrap();
        assert_ne!(chain, gate.chain);
        let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
        certs::verify(&chain, &roots, &crls);
        assert_eq!(words(&waiting(&station, &family).await), of_key);
        let of_family = Options::from([("family", Variant::from(&*family))]);
        let rows = manager.list_locks(of_family, "", 10).await.unwrap().0;
        assert!(rows.iter().any(|row| row.0 == gate.id && row.1 == "gate"), "{rows:?}");
        assert_eq!(rows.len(), 2);

        // Another station, which knows the old certificate, accepts the new one.
        let mut there = Station::start().await;
        let master = station.carry_to(&mut there, master, "master").await;
        Gate::add(&there, &master, "attic", 23).await;
        there.import(&before).await;
        there.import(&station.export(&family).await).await;
        assert_eq!(words(&waiting(&there, &family).await), of_key);
        let manager = there.client.manager().await;
        let request = Gate::request(21);
        let add = manager.add_lock(&master.path, "gate", &request, pins::pipe(PIN));
        assert_eq!(add.await.unwrap().1, chain);
    }
}

/// A Backup that outlives its Master signs a root of its own, which stations exchange and add to their bundles.
#[tokio::test]
async fn root_of_a_surviving_backup_reaches_other_stations() {
    let (mut here, master, family) = with_master_at(hasty().await).await;
    Gate::add(&here, &master, "gate", 21).await;
    let backup = here.plug("backup").await;
    here.make(&master, &backup, &Answers::backup("Backup")).await;
    let lost = here.id(&master.path).await;
    let mut there = hasty().await;
    let master = here.carry_to(&mut there, master, "master").await;
    Gate::add(&there, &master, "attic", 23).await;
    drop(master);
    revoke(&here, &backup, &lost, "lost").await;
    revoke(&here, &backup, &lost, "lost").await;
    there.import(&here.export(&family).await).await;
    let bundle = async |station: &Station| {
        station.client.manager().await.get_family_bundle(&family).await.unwrap()
    };
    let (roots, crls) = bundle(&there).await;
    assert_eq!(roots, bundle(&here).await.0);
    let chain = here.client.key(&backup.path).await.get_certificate_chain("").await.unwrap();
    certs::verify(&chain, &roots, &crls);
}
