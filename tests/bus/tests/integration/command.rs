//! `keywrightctl` against the daemon, with real firmware.

use std::{fs, os::unix::fs::PermissionsExt};

use keywright_bus_tests::{
    Gate, Objects, Plugged, Station,
    card::{Reaction, Script},
    certs,
    objects::Object,
    pins::{FACTORY_PIN, FACTORY_PUK, PIN, WRONG_PIN},
};

/// A station with PIN files and one Key in factory state.
async fn station() -> (Station, Plugged) {
    let mut station = Station::start().await;
    station.write("pin", &format!("{PIN}\n"));
    station.write("factory", FACTORY_PIN);
    station.write("csr", &certs::request("gate"));
    let key = station.plug("master").await;
    station.until_state(&key.path, "blank").await;
    (station, key)
}

const MASTER: &[&str] = &[
    "--json",
    "serialize",
    "--kind",
    "master",
    "--name",
    "Root",
    "--candidate-pin-file",
    "@factory",
    "--new-pin-file",
    "@pin",
    "--recovery-code-file",
    "@code",
    "--yes",
];
const LOCK: &[&str] = &[
    "--json",
    "lock",
    "add",
    "gate",
    "--csr",
    "@csr",
    "--out",
    "@chain",
    "--issuer-pin-file",
    "@pin",
];

fn make<'a>(kind: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["serialize", "--kind", kind, "--name", name, "--issuer-pin-file", "@pin"];
    let pins = ["--candidate-pin-file", "@factory", "--new-pin-file", "@pin", "--yes"];
    [&fixed[..], &pins, more].concat()
}

#[tokio::test]
async fn script_makes_a_whole_family() {
    let (mut station, master) = station().await;
    let json = station.ctl(MASTER).await.json();
    assert_eq!(json["serialization"]["step"], "finished");
    assert_eq!((&json["key"]["state"], &json["key"]["name"]), (&"master".into(), &"Root".into()));
    station.until_state(&master.path, "master").await;
    let mode = fs::metadata(station.file("code")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let none = |objects: &Objects| objects.serializations.is_empty().then_some(());
    station.watch.until("nothing lingering", none).await;

    let lock = station.ctl(LOCK).await.json();
    assert_eq!(lock["name"], "gate");
    let bundle = station.ctl(&["--json", "family", "bundle"]).await.json();
    let (roots, crls) =
        (bundle["roots_pem"].as_str().unwrap(), bundle["crls_pem"].as_str().unwrap());
    certs::verify(&fs::read_to_string(station.file("chain")).unwrap(), roots, crls);

    let sub = station.plug("sub").await;
    station.offer(&master, &sub).await;
    station.ctl(&make("sub", "Travel", &["--lock", "gate"])).await.done();
    station.until_state(&sub.path, "sub").await;
    let backup = station.plug("backup").await;
    station.offer(&master, &backup).await;
    station.ctl(&make("backup", "Spare", &[])).await.done();
    station.until_state(&backup.path, "backup").await;

    let keys = station.ctl(&["--json", "keys"]).await.json();
    let mut named: Vec<_> = keys.as_array().unwrap().iter().map(|key| &key["name"]).collect();
    named.sort_by_key(|name| name.as_str());
    assert_eq!(named, ["Root", "Spare", "Travel"]);
    let rights = station.ctl(&["--json", "locks", "--key", "Travel"]).await.json();
    assert_eq!((&rights[0]["lock_id"], &rights[0]["state"]), (&lock["id"], &"pending".into()));
    let locks = station.ctl(&["--json", "locks"]).await.json();
    assert_eq!((&locks[0]["id"], &locks[0]["online"]), (&lock["id"], &false.into()));
    let decisions = station.ctl(&["--json", "decisions"]).await.json();
    let reasons = decisions.as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap());
    assert!(reasons.clone().any(|reason| reason == "same-family"), "{decisions}");
    let said = station.ctl(&["decisions"]).await.done().stdout;
    assert!(said.contains("both Keys are issuers of one family"), "{said}");

    let family = station.ctl(&["--json", "family", "show"]).await.json();
    let issuers = family["issuers"].as_array().unwrap();
    let of = |name: &str| issuers.iter().find(|row| row["key_name"] == name).unwrap();
    assert_eq!(issuers.len(), 2, "{family}");
    assert_eq!((&of("Root")["depth"], &of("Spare")["depth"]), (&0.into(), &1.into()));
    assert_eq!(of("Spare")["certified_by"][0], of("Root")["id"]);
    assert!(issuers.iter().all(|row| row["standing"] == "believed" && row["origin"] == "job"));
    let said = station.ctl(&["family", "show"]).await.done().stdout;
    assert!(said.contains("CERTIFIED BY") && said.contains("Spare"), "{said}");
    let spare = of("Spare")["id"].as_str().unwrap();
    let refused = station.ctl(&["family", "revoke-issuer", spare, "--yes"]).await;
    assert!(refused.status == 1 && refused.stderr.contains("key revoke"), "{}", refused.stderr);
    let said = station.ctl(&["registry", "acknowledge", "--yes"]).await.done().stdout;
    assert!(said.contains("nothing is lost"), "{said}");

    station.ctl(&["key", "rename", "Travel", "Holiday"]).await.done();
    let chain = station.ctl(&["key", "certificate", "Holiday"]).await.done().stdout;
    let bundle = station.ctl(&["--json", "family", "bundle"]).await.json();
    certs::verify(&chain, roots, bundle["crls_pem"].as_str().unwrap());
    let doctor = station.ctl(&["doctor"]).await.done().stdout;
    assert!(doctor.contains("Holiday (sub) may access its Locks"), "{doctor}");
    assert!(doctor.contains("both Keys are issuers of one family"), "{doctor}");
}

#[tokio::test]
async fn pin_is_changed_and_unblocked_with_the_stored_recovery_code() {
    let (mut station, key) = station().await;
    station.ctl(MASTER).await.done();
    station.until_state(&key.path, "master").await;
    for (name, pin) in [("new", "135791"), ("wrong", WRONG_PIN)] {
        station.write(name, pin);
    }
    let pin = |old| ["key", "pin", "Root", "--old-pin-file", old, "--new-pin-file", "@new"];
    station.ctl(&pin("@pin")).await.done();
    for left in [2, 1] {
        let refused = station.ctl(&pin("@wrong")).await;
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("Error.PinInvalid: "), "{left}: {}", refused.stderr);
    }
    station.unplug(key).await;
    let key = station.plug("master").await;
    station.until_state(&key.path, "master").await;
    let blocked = station.ctl(&pin("@wrong")).await;
    assert!(blocked.stderr.contains("Error.PinBlocked: "), "{}", blocked.stderr);
    let doctor = station.ctl(&["doctor"]).await;
    assert_eq!(doctor.status, 1, "{}", doctor.stdout);
    assert!(doctor.stdout.contains("keywrightctl key unblock"), "{}", doctor.stdout);

    let code = fs::read_to_string(station.file("code")).unwrap();
    assert_ne!(code.trim(), FACTORY_PUK);
    let unblock =
        ["key", "unblock", "Root", "--recovery-code-file", "@code", "--new-pin-file", "@pin"];
    station.ctl(&unblock).await.done();
    station.ctl(&pin("@pin")).await.done();
    let doctor = station.ctl(&["doctor"]).await.done().stdout;
    assert!(doctor.contains("has no Lock yet"), "{doctor}");
}

/// The virtual Key's firmware does not report it; many tokens do, by GET METADATA.
#[tokio::test]
async fn doctor_reports_a_factory_pin() {
    let (mut station, key) = station().await;
    station.ctl(MASTER).await.done();
    station.until_state(&key.path, "master").await;
    station.unplug(key).await;
    let tells: Script = Box::new(|_, command| match command {
        [_, 0xF7, 0, 0x80, ..] => Reaction::Answer(vec![5, 1, 1, 6, 2, 3, 3, 0x90, 0]),
        _ => Reaction::Forward,
    });
    let (_card, _key) = station.insert_scripted("master", &[], tells);
    let there = |objects: &Objects| {
        let told = |key: &Object| (key.text("State"), key.text("Pin"));
        objects.present().any(|key| told(key) == ("master".into(), "default".into())).then_some(())
    };
    station.watch.until("the Master with its PIN", there).await;
    let doctor = station.ctl(&["doctor"]).await;
    assert_eq!(doctor.status, 1, "{}", doctor.stdout);
    assert!(doctor.stdout.contains("Root has its factory PIN"), "{}", doctor.stdout);
    assert!(doctor.stdout.contains("keywrightctl key pin "), "{}", doctor.stdout);
}

#[tokio::test]
async fn watch_prints_the_plug_the_offer_and_the_progress() {
    let (mut station, master) = station().await;
    station.ctl(MASTER).await.done();
    station.until_state(&master.path, "master").await;
    station.ctl(LOCK).await.done();
    let mut events = station.ctl_watch();
    events.until("Master", |event| event["key"]["name"] == "Root").await;
    let sub = station.plug("sub").await;
    let path = sub.path.as_str();
    events.until("plug", |event| event["key"]["path"] == path).await;
    let offer = events.until("offer", |event| event["event"] == "offer_added").await;
    assert_eq!(offer["serialization"]["candidate"], path);
    let sub = make("sub", "Travel", &["--all-locks"]);
    let (made, progress) = tokio::join!(
        station.ctl(&sub),
        events.until("progress", |event| event["event"] == "progress")
    );
    made.done();
    assert_eq!(progress["serialization"]["step"], "writing");
    let finished = |event: &serde_json::Value| event["serialization"]["step"] == "finished";
    events.until("end", finished).await;
    events.until("removal", |event| event["event"] == "offer_removed").await;
}

#[tokio::test]
async fn terminal_wizard_makes_a_key() {
    let (mut station, master) = station().await;
    station.ctl(MASTER).await.done();
    station.until_state(&master.path, "master").await;
    station.ctl(LOCK).await.done();
    let sub = station.plug("sub").await;
    station.offer(&master, &sub).await;

    let mut person = station.ctl_at_terminal("wizard");
    person.answer("Backup or sub?", "sub").await;
    person.answer("Its name:", "Trvael").await;
    person.see("gate").await;
    person.answer("or all:", "1").await;
    person.answer("Write it? [y/N]", "n").await;
    person.answer("Change something? [y/N]", "y").await;
    person.answer("Backup or sub?", "sub").await;
    person.answer("Its name:", "Travel").await;
    person.answer("or all:", "all").await;
    person.see("\"Travel\", for 1 Lock ").await;
    person.answer("Write it? [y/N]", "y").await;
    person.answer("PIN of Root", WRONG_PIN).await;
    person.see("PinInvalid").await;
    person.see("2 tries are left").await;
    person.answer("PIN of Root", PIN).await;
    person.answer("PIN of ", FACTORY_PIN).await;
    person.answer("new PIN for ", PIN).await;
    person.answer("Once more:", PIN).await;
    person.see("Recovery code: ").await;
    let (status, screen) = person.end().await;
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("Travel is a sub Key now"), "{screen}");
    for pin in [PIN, FACTORY_PIN, WRONG_PIN] {
        assert!(!screen.contains(pin), "{screen}");
    }
    station.until_state(&sub.path, "sub").await;
}

#[tokio::test]
async fn terminal_wizard_asks_which_of_two_blank_keys_becomes_the_master() {
    let mut station = Station::start().await;
    let keys = [station.plug("one").await, station.plug("two").await];
    for key in &keys {
        station.until_state(&key.path, "blank").await;
    }
    let mut person = station.ctl_at_terminal("wizard");
    person.see("Only blank Keys are plugged in").await;
    person.answer("Which?", "3").await;
    person.see("Please enter one of the numbers.").await;
    person.answer("Which?", "2").await;
    person.answer("Its name:", "Root").await;
    person.answer("Write it? [y/N]", "y").await;
    person.answer("PIN of ", FACTORY_PIN).await;
    person.answer("new PIN for ", PIN).await;
    person.answer("Once more:", PIN).await;
    let (status, screen) = person.end().await;
    assert_eq!(status, 0, "{screen}");
    let masters = |objects: &Objects| {
        let states = keys.iter().filter_map(|key| objects.key(&key.path));
        let mut states: Vec<_> = states.map(|key| key.text("State")).collect();
        states.sort();
        (states == ["blank", "master"]).then_some(())
    };
    station.watch.until("one of them a Master", masters).await;
}

/// The state of a right of the Key called Travel.
async fn state(station: &Station, lock: &str) -> Option<String> {
    let rights = station.ctl(&["--json", "key", "rights", "Travel"]).await.json();
    let right = rights.as_array().unwrap().iter().find(|right| right["name"] == lock);
    right.map(|right| right["state"].as_str().unwrap().to_owned())
}

/// After Keys were made: rights, revocations, grants and confirmations, and the exchange between stations.
#[tokio::test]
async fn script_manages_rights_and_families() {
    let (mut station, master) = station().await;
    station.ctl(MASTER).await.done();
    station.until_state(&master.path, "master").await;
    let mut gate = Gate::add(&station, &master, "gate", 21).await;
    Gate::add(&station, &master, "barn", 22).await;
    let sub = station.plug("sub").await;
    station.offer(&master, &sub).await;
    station.ctl(&make("sub", "Travel", &["--lock", "gate"])).await.done();
    station.until_state(&sub.path, "sub").await;
    station.write("wrong", WRONG_PIN);
    let pin = ["--issuer", "Root", "--issuer-pin-file", "@pin"];
    let wrong = ["--issuer", "Root", "--issuer-pin-file", "@wrong"];
    let with = |words: &[&'static str], pin: &[&'static str]| [words, pin].concat();

    for (words, status, said) in [
        (with(&["key", "rights", "Travel", "--add", "barn"], &wrong), 1, "Error.PinInvalid: "),
        (with(&["key", "rights", "Travel", "--add", "attic"], &pin), 1, "Error.NotFound: "),
        (with(&["key", "rights", "Root", "--add", "barn"], &pin), 1, "Error.InvalidArgument: "),
        (with(&["key", "revoke", "Travel"], &pin), 2, "give --yes"),
        (with(&["lock", "remove", "barn"], &pin), 2, "give --yes"),
        (with(&["lock", "remove", "attic", "--yes"], &pin), 1, "Error.NotFound: "),
        (with(&["lock", "confirm", "@pin"], &[]), 1, "Error.InvalidArgument: "),
        (with(&["lock", "grant", "Travel", "barn", "--out", "@no"], &[]), 1, "Error.NotFound: "),
        (with(&["family", "import", "@pin"], &[]), 1, "Error.InvalidArgument: "),
        (with(&["family", "import", "@nothing"], &[]), 2, ""),
    ] {
        let ran = station.ctl(&words).await;
        assert_eq!(ran.status, status, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{words:?}: {}", ran.stderr);
    }
    let changed = with(&["--json", "key", "rights", "Travel", "--add", "barn"], &pin);
    let rights = station.ctl(&changed).await.json();
    assert_eq!(rights.as_array().unwrap().len(), 2, "{rights}");

    station.ctl(&["lock", "grant", "Travel", "gate", "--out", "@grant"]).await.done();
    assert_eq!(
        station.ctl(&["lock", "grant", "Travel", "gate", "--out", "@grant"]).await.status,
        2
    );
    let confirmation = gate.hear(&fs::read(station.file("grant")).unwrap());
    fs::write(station.file("confirmation"), confirmation).unwrap();
    let mut events = station.ctl_watch();
    events.until("a watch", |event| event["key"]["name"] == "Travel").await;
    let confirmed = station.ctl(&["--json", "lock", "confirm", "@confirmation"]).await.json();
    assert_eq!(confirmed["confirmed"], 1);
    let told = events.until("the right", |event| event["event"] == "rights_confirmed").await;
    assert_eq!(
        (&told["rights"][0]["lock_id"], &told["rights"][0]["state"]),
        (&gate.id.clone().into(), &"active".into())
    );
    assert_eq!(state(&station, "gate").await.as_deref(), Some("active"));

    station.ctl(&["family", "export", "@before"]).await.done();
    assert_eq!(
        station.ctl(&["family", "export", "@before"]).await.status,
        2,
        "nothing is overwritten"
    );
    let removed = station.ctl(&with(&["--json", "lock", "remove", "barn", "--yes"], &pin)).await;
    assert_eq!(removed.json()["name"], "barn");
    assert_eq!(station.ctl(&["--json", "locks"]).await.json().as_array().unwrap().len(), 1);
    let revoked = ["key", "revoke", "Travel", "--reason", "lost", "--yes"];
    station.ctl(&with(&revoked, &pin)).await.done();
    station.until_state(&sub.path, "revoked").await;
    assert_eq!(state(&station, "gate").await.as_deref(), Some("removing"));
    assert_eq!(state(&station, "barn").await, None);
    let merged = station.ctl(&["--json", "family", "import", "@before"]).await.json();
    assert_eq!(merged["merged"], 0, "it was all known");
    assert_eq!(state(&station, "barn").await, None, "nor is it back");
    let family = station.ctl(&["--json", "family", "show"]).await.json();
    assert_eq!(family["waiting"].as_array().unwrap().len(), 0, "{family}");

    // A Backup removes what the Master had certified: that waits for the Master.
    let backup = station.plug("backup").await;
    station.offer(&master, &backup).await;
    station.ctl(&with(&make("backup", "Spare", &[]), &["--issuer", "Root"])).await.done();
    station.until_state(&backup.path, "backup").await;
    let by_spare = ["--issuer", "Spare", "--issuer-pin-file", "@pin"];
    station.ctl(&with(&["lock", "remove", "gate", "--yes"], &by_spare)).await.done();
    let shown = station.ctl(&["family", "show"]).await.done().stdout;
    assert!(shown.contains("CRL entry") && shown.contains("Root"), "{shown}");
}
