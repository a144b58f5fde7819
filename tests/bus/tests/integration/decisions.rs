//! Which pairs are offered, and why the others are not, on virtual Keys. The
//! whole table is tested as a pure function in the daemon.

use keywright_bus_tests::{
    Answers, Objects, Plugged, Station, Watch,
    api::{NONE, Options},
    card::{Card, Reaction, Script},
    certs,
    client::assert_refused,
    pins::{self, FACTORY_PIN, PIN},
};
use zbus::OwnedObjectPath;

async fn kinds(station: &Station, job: &OwnedObjectPath) -> Vec<String> {
    let mut kinds = station.watch.objects().await.serialization(job).unwrap().words("Kinds");
    kinds.sort();
    kinds
}

/// A card without firmware that answers only SELECT and certificate reads.
fn stand_in(select: &'static [u8], certificate: Vec<u8>) -> Script {
    const GET_ACCESS_CERTIFICATE: &[u8] = &[0x5C, 0x03, 0x5F, 0xC1, 0x05];
    Box::new(move |_, command| {
        let reads = command.windows(5).any(|part| part == GET_ACCESS_CERTIFICATE);
        Reaction::Answer(match command[1] {
            0xA4 => select.into(),
            0xCB if reads && !certificate.is_empty() => [&certificate[..], &[0x90, 0x00]].concat(),
            _ => vec![0x6A, 0x82],
        })
    })
}

/// A Master with one Lock, made and plugged in.
async fn master(station: &mut Station, name: &str) -> Plugged {
    let master = station.plug(name).await;
    station.make_master(&master, name).await;
    station.add_lock(&master, &format!("{name}'s gate")).await;
    master
}

/// Masters of two families, plugged in one after the other.
async fn two_masters(station: &mut Station) -> (Plugged, Plugged) {
    for name in ["first", "second"] {
        let made = master(station, name).await;
        station.unplug(made).await;
    }
    (station.plug("first").await, station.plug("second").await)
}

#[tokio::test]
async fn two_blank_keys_have_no_issuer() {
    let mut station = Station::start().await;
    let (a, b) = (station.plug("a").await, station.plug("b").await);
    station.watch.until_decision([&a.path, &b.path], "no-issuer").await;
}

#[tokio::test]
async fn offer_appears_with_the_first_lock() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let blank = station.plug("blank").await;
    station.watch.until_decision([&master.path, &blank.path], "no-lock").await;
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&master.path, &blank.path, Options::new()).await;
    assert_refused(start, "NoLock");
    station.add_lock(&master, "gate").await;
    let job = station.offer(&master, &blank).await;
    assert_eq!(kinds(&station, &job).await, ["backup", "sub"]);
    assert!(station.watch.decisions().await.is_empty(), "an offered pair has no decision");
}

#[tokio::test]
async fn offer_is_announced_after_its_keys() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let mut watch = Watch::start(station.bus.connect().await).await;
    let blank = station.plug("blank").await;
    let job = station.offer(&issuer, &blank).await;
    assert_eq!(watch.added_until(&job).await, [blank.path.clone(), job]);
}

#[tokio::test]
async fn the_order_of_plugging_does_not_matter() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    station.unplug(issuer).await;
    let blank = station.plug("blank").await;
    let issuer = station.plug("master").await;
    let job = station.offer(&issuer, &blank).await;
    assert_eq!(kinds(&station, &job).await, ["backup", "sub"]);
}

#[tokio::test]
async fn several_candidates_get_an_offer_each() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let (a, b) = (station.plug("a").await, station.plug("b").await);
    let (first, second) = (station.offer(&issuer, &a).await, station.offer(&issuer, &b).await);
    assert_ne!(first, second);
    station.finish(&second, &Answers::sub("B", &[])).await;
    station.finish(&first, &Answers::sub("A", &[])).await;
}

#[tokio::test]
async fn sub_key_cannot_issue_and_same_family_gets_no_offer() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let (sub, backup) = (station.plug("sub").await, station.plug("backup").await);
    station.make(&issuer, &sub, &Answers::sub("Sub", &[])).await;
    station.make(&issuer, &backup, &Answers::backup("Backup")).await;
    station.watch.until_decision([&issuer.path, &backup.path], "same-family").await;
    station.unplug(issuer).await;
    station.unplug(backup).await;
    let blank = station.plug("blank").await;
    station.watch.until_decision([&sub.path, &blank.path], "not-an-issuer").await;
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&sub.path, &blank.path, Options::new()).await;
    assert_refused(start, "NotAnIssuer");
}

#[tokio::test]
async fn sub_key_of_the_issuer_is_offered_kind_sub_only() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let sub = station.plug("sub").await;
    station.make(&issuer, &sub, &Answers::sub("Sub", &[])).await;
    station.unplug(sub).await;
    let sub = station.plug("sub").await;
    let job = station.offer(&issuer, &sub).await;
    assert_eq!(kinds(&station, &job).await, ["sub"]);
}

#[tokio::test]
async fn a_key_can_be_the_sub_key_of_a_second_family() {
    let mut station = Station::start().await;
    let (first, second) = two_masters(&mut station).await;
    // The one present first is the issuer.
    let job = station.offer(&first, &second).await;
    assert_eq!(kinds(&station, &job).await, ["sub"]);
    let mut answers = Answers::sub("Second", &[]);
    answers.pins.candidate = answers.pins.issuer.clone();
    station.finish(&job, &answers).await;
    let memberships = |objects: &Objects| {
        let memberships: Vec<(String, String)> = objects.key(&second.path)?.get("Memberships");
        (memberships.len() == 2).then_some(memberships)
    };
    let memberships = station.watch.until("two memberships", memberships).await;
    let state = station.watch.objects().await.key(&second.path).unwrap().text("State");
    assert_eq!(state, "master", "the highest role");
    let key = station.client.key(&second.path).await;
    let manager = station.client.manager().await;
    for (family, _) in &memberships {
        let chain = key.get_certificate_chain(family).await.unwrap();
        let (roots, crls) = manager.get_family_bundle(family).await.unwrap();
        certs::verify(&chain, &roots, &crls);
        // Another family's servers do not accept it.
        for (other, _) in memberships.iter().filter(|(other, _)| other != family) {
            let (roots, crls) = manager.get_family_bundle(other).await.unwrap();
            certs::try_verify(&chain, &roots, &crls).unwrap_err();
        }
    }
    // The second Master's right in the first family is not copied to its Backup.
    station.unplug(first).await;
    let blank = station.plug("blank").await;
    let job = station.offer(&second, &blank).await;
    let backup = Answers::backup("Backup");
    station.client.answer_until(&mut station.watch, &job, &backup, "review").await;
    let (mut summary, _) = station.client.serialization(&job).await.review().await.unwrap();
    let warnings: Vec<(String, String)> = summary.remove("warnings").unwrap().try_into().unwrap();
    let words: Vec<_> = warnings.iter().map(|(word, _)| &**word).collect();
    assert_eq!(words, ["rights-not-copied", "right-not-copied"]);
    let (locks, _) = manager.list_locks(Options::new(), "", 10).await.unwrap();
    let lock = locks.iter().find(|lock| warnings[1].1.contains(&lock.0)).unwrap();
    assert!(warnings[1].1.contains(&lock.1), "each right that is not copied is named");

    // keywrightctl shows the same warning before the write.
    station.client.serialization(&job).await.cancel().await.unwrap();
    station.unplug(blank).await;
    let blank = station.plug("blank").await;
    station.offer(&second, &blank).await;
    station.write("pin", PIN);
    station.write("factory", FACTORY_PIN);
    let what = ["serialize", "--kind", "backup", "--name", "Spare", "--yes"];
    let own = ["--candidate-pin-file", "@factory", "--new-pin-file", "@pin"];
    let code = ["--issuer-pin-file", "@pin", "--recovery-code-file", "@code"];
    let made = station.ctl(&[&what[..], &own, &code].concat()).await.done();
    for (_, warning) in &warnings {
        assert!(made.stderr.contains(warning), "{warning} is not in {}", made.stderr);
    }
}

/// A token's key history may wrongly say that no retired container is in use.
#[tokio::test]
async fn retired_container_is_read_before_it_is_used() {
    let mut station = Station::start().await;
    let (first, second) = two_masters(&mut station).await;
    let job = station.offer(&first, &second).await;
    let tag = |command: &[u8], retired: u8| command.windows(3).any(|t| t == [0x5F, 0xC1, retired]);
    let mut taken = certs::foreign_container();
    taken.extend([0x90, 0x00]);
    second.card.script(move |_, command| {
        let reads = command[1] == 0xCB && tag(command, 0x0E);
        if reads { Reaction::Answer(taken.clone()) } else { Reaction::Forward }
    });
    second.card.take_commands();
    let mut answers = Answers::sub("Second", &[]);
    answers.pins.candidate = answers.pins.issuer.clone();
    station.finish(&job, &answers).await;
    let commands = second.card.take_commands();
    let written = |retired| commands.iter().any(|c| c[1] == 0xDB && tag(c, retired));
    assert!(!written(0x0E), "what is in the first one stays");
    assert!(written(0x0F), "the next one is taken");
}

#[tokio::test]
async fn two_possible_issuers_are_ambiguous_until_one_is_named() {
    let mut station = Station::start().await;
    let (first, second) = two_masters(&mut station).await;
    let blank = station.plug("blank").await;
    station.watch.until_decision([&first.path, &blank.path], "ambiguous-issuer").await;
    station.watch.until_decision([&second.path, &blank.path], "ambiguous-issuer").await;
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&second.path, &blank.path, Options::new());
    let job = start.await.unwrap();
    station.finish(&job, &Answers::sub("Sub", &[])).await;
}

#[tokio::test]
async fn foreign_credentials_are_never_overwritten() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let script = stand_in(b"\x61\x00\x90\x00", certs::foreign_container());
    let foreign = station.plug_script(script).await;
    station.until_state(&foreign.path, "foreign").await;
    station.watch.until_decision([&issuer.path, &foreign.path], "foreign-credentials").await;
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&issuer.path, &foreign.path, Options::new()).await;
    assert_refused(start, "ForeignCredentials");
}

#[tokio::test]
async fn token_without_piv_is_unusable() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let other = station.plug_script(stand_in(b"\x6A\x82", Vec::new())).await;
    station.until_state(&other.path, "unusable").await;
    station.watch.until_decision([&issuer.path, &other.path], "unusable").await;
}

#[tokio::test]
async fn malformed_tokens_are_unusable() {
    let mut station = Station::start().await;
    let scripts: [Script; 5] = [
        Box::new(|_, _| Reaction::Answer(vec![0x6F, 0x00])),
        Box::new(|_, _| Reaction::Answer(vec![0x61, 0x10])),
        Box::new(|_, _| Reaction::Answer(Vec::new())),
        Box::new(|_, _| Reaction::Answer(vec![0x90])),
        Box::new(|_, _| Reaction::Answer(vec![0x53, 0x82, 0xFF, 0xFF, 0x90, 0x01])),
    ];
    for script in scripts {
        let bad = station.plug_script(script).await;
        station.until_state(&bad.path, "unusable").await;
        station.unplug(bad).await;
    }
}

#[tokio::test]
async fn token_with_a_blocked_pin_says_so() {
    let mut station = Station::start().await;
    let script: Script = Box::new(|_, command| {
        Reaction::Answer(match command[1] {
            0xA4 => vec![0x90, 0x00],
            0x20 => vec![0x69, 0x83],
            _ => vec![0x6A, 0x82],
        })
    });
    let blocked = station.plug_script(script).await;
    let said = |objects: &Objects| {
        let key = objects.key(&blocked.path)?;
        (key.text("Pin") == "blocked").then(|| key.get::<i32>("PinRetries"))
    };
    assert_eq!(station.watch.until("the PIN blocked", said).await, 0);
    let change = station.client.key(&blocked.path).await;
    let change = change.change_pin(pins::pipe("123456"), pins::pipe("246810")).await;
    assert_refused(change, "PinBlocked");
    let sent = blocked.card.take_commands();
    assert!(!sent.iter().any(|command| command[1] == 0x24), "{sent:?}");
}

/// While a token is silent no new decision is made, but decisions on an unplugged Key are removed.
#[tokio::test]
async fn decision_on_an_unplugged_key_goes_while_another_key_is_silent() {
    let mut station = Station::start().await;
    let (a, b) = (station.plug("a").await, station.plug("b").await);
    station.watch.until_decision([&a.path, &b.path], "no-issuer").await;
    let _silent = Card::plug(&station.launch.reader, Box::new(|_, _| Reaction::Silence));
    let gone = station.unplug(b).await;
    // Its reply is sent after all earlier signals.
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&NONE, &gone, Options::new()).await;
    assert_refused(start, "NotFound");
    assert!(station.watch.decisions().await.is_empty());
}

#[tokio::test]
async fn hanging_or_vanishing_token_delays_no_other() {
    let mut station = Station::start().await;
    let issuer = master(&mut station, "master").await;
    let sub = station.plug("sub").await;
    let reader = &station.launch.reader;
    let _silent = Card::plug(reader, Box::new(|_, _| Reaction::Silence));
    let _gone = Card::plug(reader, Box::new(|_, _| Reaction::Cut));
    let _garbage = Card::plug_with_atr(reader, vec![0; 40], Box::new(|_, _| Reaction::Cut));
    station.make(&issuer, &sub, &Answers::sub("Sub", &[])).await;
}
