//! Rights are changed, revoked and confirmed after a Key was made, while the Key is unplugged.

use futures_util::StreamExt;
use keywright_bus_tests::{
    Answers, Gate, LIMIT, Objects, Station, certs,
    client::assert_refused,
    pins::{self, PIN, WRONG_PIN},
    station::states,
};

#[tokio::test]
async fn rights_are_changed_while_the_key_is_away() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = station.id(&sub.path).await;
    let path = station.unplug(sub).await;
    gate.settle(&station, &key).await;
    assert!(gate.admits(&key));
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "active")]));
    station.until_rights(&path, 1, 0).await;

    let manager = station.client.manager().await;
    let changed = async |add: &[&str], remove: &[&str], pin: &str| {
        manager.change_rights(&master.path, &key, add, remove, pins::pipe(pin)).await
    };
    assert_refused(changed(&[&barn.id], &[], WRONG_PIN).await, "PinInvalid");
    assert_refused(changed(&[], &[], PIN).await, "InvalidArgument");
    assert_refused(changed(&[&barn.id], &[&barn.id], PIN).await, "InvalidArgument");
    assert_refused(changed(&[&key], &[], PIN).await, "NotFound");
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "active")]));

    changed(&[&barn.id], &[&gate.id], PIN).await.unwrap();
    assert_eq!(
        station.rights_by_name(&key).await,
        states(&[("barn", "pending"), ("gate", "removing")])
    );
    station.until_rights(&path, 0, 1).await;
    let before = manager.get_grant(&key, &barn.id).await.unwrap();
    changed(&[&barn.id], &[&gate.id], PIN).await.unwrap();
    assert_eq!(manager.get_grant(&key, &barn.id).await.unwrap(), before, "nothing was signed");

    let old = gate.fetch(&station, &key).await;
    assert!(!gate.admits(&key));
    manager.apply_confirmation(&old).await.unwrap();
    barn.settle(&station, &key).await;
    assert!(barn.admits(&key));
    assert_eq!(station.rights_by_name(&key).await, states(&[("barn", "active")]));
    station.until_rights(&path, 1, 0).await;

    // A Master may access every Lock; its rights end only with its revocation.
    let own = station.id(&master.path).await;
    assert_refused(station.change_rights(&master, &own, &[&barn.id], &[]).await, "InvalidArgument");
}

#[tokio::test]
async fn confirmation_is_taken_from_its_lock_only_and_replays_change_nothing() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let stranger = Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = station.id(&sub.path).await;
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
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "pending")]));
    manager.apply_confirmation(&allowed).await.unwrap();
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "active")]));

    station.change_rights(&master, &key, &[], &[&gate.id]).await.unwrap();
    gate.settle(&station, &key).await;
    assert_eq!(station.rights_by_name(&key).await, states(&[]));
    manager.apply_confirmation(&allowed).await.unwrap();
    assert_eq!(station.rights_by_name(&key).await, states(&[]), "an old word does not come back");
}

/// The signal names each confirmed right once, with the time from the statement to the confirmation.
#[tokio::test]
async fn each_confirmed_right_is_signalled_once() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let mut barn = Gate::add(&station, &master, "barn", 22).await;
    let manager = station.client.manager().await;
    let mut signals = manager.receive_rights_confirmed().await.unwrap();
    let mut told = async |key: &str, lock: &Gate, word: &str| {
        let signal = tokio::time::timeout(LIMIT, signals.next()).await;
        let signal = signal.expect("a signal").unwrap();
        let signal = signal.args().unwrap();
        let [(of, state, waited)] = &signal.rights[..] else { panic!("{:?}", signal.rights) };
        assert_eq!((&*signal.key_id, &**of, &**state), (key, &*lock.id, word));
        assert!(*waited < 600, "{waited}");
    };
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let (key, own) = (station.id(&sub.path).await, station.id(&master.path).await);
    gate.settle(&station, &key).await;
    told(&key, &gate, "active").await;
    // The statement on every Lock is confirmed by each Lock.
    barn.settle(&station, &own).await;
    told(&own, &barn, "active").await;

    // The Lock confirms again that it admits the Key: no right has changed.
    station.change_rights(&master, &key, &[&barn.id], &[]).await.unwrap();
    gate.settle(&station, &key).await;
    let old = gate.fetch(&station, &key).await;
    station.change_rights(&master, &key, &[], &[&gate.id]).await.unwrap();
    gate.settle(&station, &key).await;
    told(&key, &gate, "removed").await;
    manager.apply_confirmation(&old).await.unwrap();

    // A confirmation of a superseded statement leaves the right in its state: it is being removed.
    let allowed = barn.fetch(&station, &key).await;
    station.change_rights(&master, &key, &[], &[&barn.id]).await.unwrap();
    manager.apply_confirmation(&allowed).await.unwrap();
    barn.settle(&station, &key).await;
    told(&key, &barn, "removed").await;
    manager.revoke_key(&master.path, &key, "lost", pins::pipe(PIN)).await.unwrap();
    gate.settle(&station, &key).await;
    told(&key, &gate, "removed").await;
}

#[tokio::test]
async fn sub_key_revocation_is_final() {
    let (mut station, master) = Station::with_master().await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&gate.id])).await;
    let key = station.id(&sub.path).await;
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
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "removing")]));
    station.until_rights(&path, 0, 0).await;
    gate.settle(&station, &key).await;
    assert!(!gate.admits(&key));
    gate.hear(&old);
    assert!(!gate.admits(&key), "an old grant does not bring it back");
    assert_eq!(station.rights_by_name(&key).await, states(&[]));

    let family = station.family(&master.path).await;
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    let refusal = certs::try_verify(&chain, &roots, &crls).unwrap_err();
    assert!(refusal.contains("revoked"), "{refusal}");
    assert_refused(station.change_rights(&master, &key, &[&gate.id], &[]).await, "Revoked");
    let sub = station.plug("sub").await;
    assert_eq!(sub.path, path);
    station.watch.until_decision([&master.path, &path], "revoked").await;
    let own = station.id(&master.path).await;
    let itself = manager.revoke_key(&master.path, &own, "", pins::pipe(PIN));
    assert_refused(itself.await, "InvalidArgument");
}

#[tokio::test]
async fn a_soft_key_is_a_sub_key_in_software() {
    let (mut station, master) = Station::with_master().await;
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
    let family = station.family(&master.path).await;
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
    assert_eq!(station.rights_by_name(&key).await, states(&[("gate", "active")]));
    station.change_rights(&master, &key, &[&barn.id], &[&gate.id]).await.unwrap();
    manager.revoke_key(&master.path, &key, "phone stolen", pins::pipe(PIN)).await.unwrap();
    gate.settle(&station, &key).await;
    assert!(!gate.admits(&key));
    let (roots, crls) = manager.get_family_bundle(&family).await.unwrap();
    assert!(certs::try_verify(&chain, &roots, &crls).unwrap_err().contains("revoked"));
}
