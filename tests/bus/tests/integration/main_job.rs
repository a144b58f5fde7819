//! The main job from end to end: a Master, three Locks, a Sub Key for two of them, a Backup Key.

use keywright_bus_tests::{
    Answers, Object, Objects, Plugged, Station, Watch,
    api::{LockRow, Options, RightRow},
    certs,
    client::assert_refused,
    pins::{self, PIN},
};
use zbus::Variant;

/// A station with a Master, and Locks of these names.
async fn with_master(locks: &[&str]) -> (Station, Plugged, Vec<String>) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Anna's Master").await;
    let mut ids = Vec::new();
    for name in locks {
        let (id, chain) = station.add_lock(&master, name).await;
        check_chain(&station, &master, &chain).await;
        assert_eq!(id, certs::key_id(&chain), "a Lock's id is that of its identity key");
        ids.push(id);
    }
    (station, master, ids)
}

/// The family that a Key belongs to first.
fn family(key: &Object) -> String {
    let memberships: Vec<(String, String)> = key.get("Memberships");
    memberships[0].0.clone()
}

/// openssl accepts the chain with the bundle of the family that the Key belongs to.
async fn check_chain(station: &Station, member: &Plugged, chain: &str) {
    let objects = station.watch.objects().await;
    let family = family(objects.key(&member.path).unwrap());
    let (roots, crls) = station.client.manager().await.get_family_bundle(&family).await.unwrap();
    certs::verify(chain, &roots, &crls);
}

async fn check_key(station: &Station, key: &Plugged, role: &str) {
    let chain = station.client.key(&key.path).await.get_certificate_chain("").await.unwrap();
    check_chain(station, key, &chain).await;
    let objects = station.watch.objects().await;
    let object = objects.key(&key.path).unwrap();
    let (id, family) = (object.text("Id"), family(object));
    assert_eq!(object.text("State"), role);
    assert_eq!(id, certs::key_id(&chain));
    let names = certs::show(&chain, &["-ext", "subjectAltName"]);
    assert!(names.contains(&format!("URI:spiffe://{family}/{role}/{id}")), "{names}");
    let usage = certs::show(&chain, &["-ext", "extendedKeyUsage"]);
    assert!(usage.contains("TLS Web Client Authentication"), "{usage}");
}

async fn rights(station: &Station, key: &Plugged) -> Vec<RightRow> {
    let id = station.id(&key.path).await;
    let (rows, next) = station.client.manager().await.list_rights(&id, "", 100).await.unwrap();
    assert_eq!(next, "", "all of them fit on one page");
    rows
}

async fn locks(station: &Station) -> Vec<LockRow> {
    let manager = station.client.manager().await;
    manager.list_locks(Options::new(), "", 100).await.unwrap().0
}

#[tokio::test]
async fn master_makes_a_sub_key_for_two_locks_and_a_backup_key() {
    let (mut station, master, ids) = with_master(&["gate", "barn", "attic"]).await;
    assert_eq!(locks(&station).await.len(), 3);

    let sub = station.plug("sub").await;
    let two = Answers::sub("Bob's Key", &[&ids[0], &ids[2]]);
    station.make(&master, &sub, &two).await;
    let mut named: Vec<_> = rights(&station, &sub).await;
    named.sort_by(|a, b| a.1.cmp(&b.1));
    let named: Vec<_> = named.iter().map(|row| (&*row.1, &*row.2)).collect();
    assert_eq!(named, [("attic", "pending"), ("gate", "pending")]);

    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Anna's Backup")).await;

    for (key, role) in [(&master, "master"), (&sub, "sub"), (&backup, "backup")] {
        check_key(&station, key, role).await;
    }
    station.watch.until_decision([&master.path, &backup.path], "same-family").await;
}

#[tokio::test]
async fn lock_left_out_of_a_new_selection_is_denied() {
    let (mut station, master, ids) = with_master(&["gate", "barn"]).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&master.path, &sub.path, Options::new()).await;
    let job = start.unwrap();
    let mut answers = Answers::sub("Sub", &[&ids[0]]);
    answers.pins.candidate = PIN.into();
    station.client.answer_until(&mut station.watch, &job, &answers, "review").await;
    let (mut summary, _) = station.client.serialization(&job).await.review().await.unwrap();
    let warnings: Vec<(String, String)> = summary.remove("warnings").unwrap().try_into().unwrap();
    assert_eq!(warnings.iter().map(|(word, _)| &**word).collect::<Vec<_>>(), ["rights-removed"]);
    station.finish(&job, &answers).await;

    let mut states: Vec<_> =
        rights(&station, &sub).await.into_iter().map(|row| (row.1, row.2)).collect();
    states.sort();
    assert_eq!(states, [("barn".into(), "removing".into()), ("gate".into(), "pending".into())]);
    let objects = station.watch.objects().await;
    let key = objects.key(&sub.path).unwrap();
    assert_eq!(key.get::<u32>("PendingLocks"), 1);
    // There is a grant for this Lock: its leaf denies.
    let grant = manager.get_grant(&key.text("Id"), &ids[1]).await.unwrap();
    assert!(!grant.is_empty());
}

#[tokio::test]
async fn backup_key_issues_without_the_master() {
    let (mut station, master, _) = with_master(&["gate"]).await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    station.unplug(master).await;
    station.add_lock(&backup, "barn").await;

    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[])).await;
    check_key(&station, &sub, "sub").await;
    assert_eq!(rights(&station, &sub).await.len(), 2, "all Locks were selected");
}

#[tokio::test]
async fn too_long_a_chain_is_refused_before_anything_is_written() {
    let (mut station, mut issuer, _) = with_master(&["gate"]).await;
    for name in ["second", "third", "fourth"] {
        let backup = station.plug(name).await;
        station.make(&issuer, &backup, &Answers::backup(name)).await;
        station.unplug(issuer).await;
        issuer = backup;
    }
    let fifth = station.plug("fifth").await;
    let job = station.offer(&issuer, &fifth).await;
    let backup = Answers::backup("Fifth");
    station.client.answer_until(&mut station.watch, &job, &backup, "review").await;
    assert_refused(station.client.answer(&station.watch, &job, &backup).await, "LimitExceeded");
    let serialization = station.client.serialization(&job).await;
    serialization.back().await.unwrap();
    serialization.back().await.unwrap();
    station.finish(&job, &Answers::sub("Fifth", &[])).await;
    check_key(&station, &fifth, "sub").await;
}

#[tokio::test]
async fn every_step_is_announced_once_and_in_order() {
    let (mut station, master, _) = with_master(&["gate"]).await;
    let mut listener = Watch::start(station.bus.connect().await).await;
    let sub = station.plug("sub").await;
    let job = station.offer(&master, &sub).await;
    let ended =
        station.client.answer_all(&mut station.watch, &job, &Answers::sub("Sub", &[])).await;
    ended.assert_finished();
    let steps = listener.steps_until(&job, "finished").await;
    assert_eq!(steps, ["kind", "name", "locks", "review", "pins", "writing", "finished"]);
}

#[tokio::test]
async fn a_finished_key_has_the_properties_that_were_asked_for() {
    let (mut station, master, ids) = with_master(&["gate"]).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Bob's Key", &[&ids[0]])).await;
    let (master_path, sub_path) = (station.unplug(master).await, station.unplug(sub).await);

    let (master, sub) = (station.plug("master").await, station.plug("sub").await);
    assert_eq!((&master.path, &sub.path), (&master_path, &sub_path), "a path stays");
    // The other properties of a token are read after it has been classified.
    let read = |objects: &Objects| {
        objects.present().all(|key| key.get::<i32>("PinRetries") == 3).then_some(())
    };
    station.watch.until("both counters of tries", read).await;
    let objects = station.watch.objects().await;
    let [master, sub] = [&master, &sub].map(|key| objects.key(&key.path).unwrap());
    assert_eq!(sub.text("Name"), "Bob's Key");
    // This firmware does not report whether the PIN is the factory's.
    assert!(["set", "unknown"].contains(&sub.text("Pin").as_str()));
    assert_eq!((sub.get::<u32>("Locks"), sub.get::<u32>("PendingLocks")), (0, 1));
    assert_eq!(sub.get::<Vec<(String, String)>>("Memberships"), [(family(master), "sub".into())]);
    assert_eq!((master.get::<bool>("Authorized"), sub.get::<bool>("Authorized")), (false, false));
    assert_eq!(sub.text("Serial").len(), 32, "this firmware's serials are all the same: the GUID");
}

#[tokio::test]
async fn outcome_names_the_new_key() {
    let (mut station, master, _) = with_master(&["gate"]).await;
    let sub = station.plug("sub").await;
    let job = station.offer(&master, &sub).await;
    let answers = Answers::sub("Bob's Key", &[]);
    station.client.answer_all(&mut station.watch, &job, &answers).await.assert_finished();
    let objects = station.watch.objects().await;
    let (_, text): (String, String) = objects.serialization(&job).unwrap().get("Outcome");
    // This firmware stays authorized, so both Keys are to be unplugged.
    assert!(text.contains("\"Bob's Key\"") && !text.contains("blank"), "{text}");
}

#[tokio::test]
async fn lists_are_paged_and_searchable() {
    let (station, _master, mut ids) = with_master(&["north gate", "south gate", "barn"]).await;
    let manager = station.client.manager().await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (rows, next) = manager.list_locks(Options::new(), &after, 2).await.unwrap();
        assert!(rows.len() <= 2);
        seen.extend(rows.into_iter().map(|row| row.0));
        if next.is_empty() {
            break;
        }
        after = next;
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    let query = Options::from([("query", Variant::from("gate"))]);
    assert_eq!(manager.list_locks(query, "", 10).await.unwrap().0.len(), 2);
    let (keys, _) = manager.list_keys(Options::new(), "", 10).await.unwrap();
    assert_eq!(
        keys.iter().map(|row| (&*row.1, &*row.2)).collect::<Vec<_>>(),
        [("Anna's Master", "master")]
    );
}

#[tokio::test]
async fn all_objects_return_after_a_restart() {
    let (mut station, master, ids) = with_master(&["gate"]).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&ids[0]])).await;
    let before = (locks(&station).await, rights(&station, &sub).await);
    drop((master, sub));
    assert!(station.daemon.stop().await.success());
    station.daemon.restart(station.client.connection()).await;
    let (master, sub) = (station.plug("master").await, station.plug("sub").await);
    station.until_state(&master.path, "master").await;
    station.until_state(&sub.path, "sub").await;
    assert_eq!((locks(&station).await, rights(&station, &sub).await), before);
}

#[tokio::test]
async fn no_pin_is_in_the_log_or_in_the_state() {
    let (mut station, master, _) = with_master(&["gate"]).await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    assert!(station.daemon.stop().await.success());
    assert!(!pins::tells(&station.daemon.log(), PIN));
    // Finding the Key's name proves that the search works: the state is not compressed.
    let (mut pin, mut name) = (0, 0);
    let mut directories = vec![station.launch.state_dir.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let count =
                |text: &str| bytes.windows(text.len()).filter(|b| *b == text.as_bytes()).count();
            pin += count(PIN);
            name += count("Anna's Master");
        }
    }
    assert!(name > 0);
    assert_eq!(pin, 0);
}
