//! Which commands the tokens of a job get, in which order, and which tokens are refused.

use keywright_bus_tests::{
    Answers, Objects, Plugged, Station,
    api::Options,
    card::Reaction,
    certs,
    client::assert_refused,
    pins::{self, PIN},
};

async fn with_lock() -> (Station, Plugged) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    station.add_lock(&master, "gate").await;
    (station, master)
}

/// The object that GET DATA or PUT DATA names: its tag.
fn object(command: &[u8]) -> String {
    let at = command.windows(2).position(|bytes| bytes == [0x5C, 0x03]).unwrap();
    command[at + 2..at + 5].iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The commands that change a token, in order; for keys with their PIN policy.
fn changes(commands: &[Vec<u8>]) -> Vec<String> {
    let change = |command: &Vec<u8>| match command[..] {
        [_, 0xDB, ..] => Some(format!("put {}", object(command))),
        [_, 0x47, _, slot, ..] => {
            // Without an algorithm it only checks the authentication.
            let policy = command.windows(2).position(|bytes| bytes == [0xAA, 0x01])?;
            Some(format!("generate {slot:02X} {:02X}", command[policy + 2]))
        }
        [_, 0x24, _, which, ..] => Some(format!("change {which:02X}")),
        // Without data it only asks whether the command exists.
        [_, 0xFF, _, _, _, ..] => Some("management key".into()),
        _ => None,
    };
    commands.iter().filter_map(change).collect()
}

/// How often the issuing key signed.
fn signatures(commands: &[Vec<u8>]) -> usize {
    commands.iter().filter(|command| command[1..4] == [0x87, 0x11, 0x9C]).count()
}

#[tokio::test]
async fn token_is_changed_in_the_documented_order() {
    let (mut station, master) = with_lock().await;
    let secrets = ["change 80", "put 5FC109", "management key", "put 5FFF00", "change 81"];
    let sub = ["put 5FC102", "generate 9A 02", "put 5FC105"];
    let backup = [
        "put 5FC102",
        "generate 9A 02",
        "generate 9C 03",
        "put 5FC10A",
        "put 5FC105",
        "put 5FC10D",
    ];
    for (answers, first) in [(Answers::sub("S", &[]), &sub[..]), (Answers::backup("B"), &backup)] {
        let key = station.plug(answers.kind).await;
        master.card.take_commands();
        station.make(&master, &key, &answers).await;
        assert_eq!(changes(&key.card.take_commands()), [first, &secrets].concat());
        let issuer = master.card.take_commands();
        assert_eq!((signatures(&issuer), changes(&issuer).len()), (2, 0), "{}", answers.kind);
    }
}

#[tokio::test]
async fn resumed_job_does_not_ask_the_issuer_again_after_it_signed() {
    let (mut station, master) = with_lock().await;
    let sub = station.plug("sub").await;
    let job = station.offer(&master, &sub).await;
    sub.card.script(|_, command| {
        let certificate = command[1] == 0xDB && object(command) == "5FC105";
        if certificate { Reaction::Cut } else { Reaction::Forward }
    });
    master.card.take_commands();
    let answers = Answers::sub("Sub", &[]);
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!((&*ended.step, &*ended.outcome), ("awaiting-key", "Interrupted"));
    station.unplug(sub).await;
    let sub = station.plug("sub").await;
    station.watch.until_step(&job, "pins").await;
    let objects = station.watch.objects().await;
    assert_eq!(objects.serialization(&job).unwrap().words("PinsNeeded"), ["candidate"]);
    station.finish(&job, &answers).await;
    assert_eq!(signatures(&master.card.take_commands()), 2);
    let generated = changes(&sub.card.take_commands());
    assert!(!generated.iter().any(|change| change.starts_with("generate")), "{generated:?}");
}

/// The public certificates of a Master, on a token with keys of its own.
#[tokio::test]
async fn token_with_copied_certificates_cannot_issue() {
    let (mut station, master) = with_lock().await;
    let chain = station.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    let stolen: Vec<_> = certs::certificates(&chain).iter().map(|c| certs::container(c)).collect();
    let real = station.unplug(master).await;
    let thief = station.plug("thief").await;
    station.make_master(&thief, "Thief").await;
    station.unplug(thief).await;

    let script = move |_, command: &[u8]| {
        let read = (command[1] == 0xCB).then(|| object(command));
        let copy = match read.as_deref() {
            Some("5FC105") => &stolen[0],
            Some("5FC10A") => &stolen[1],
            _ => return Reaction::Forward,
        };
        Reaction::Answer([&copy[..], &[0x90, 0]].concat())
    };
    let (copy, _key) = station.insert_scripted("thief", &[], Box::new(script));
    let shown = |objects: &Objects| objects.present().any(|key| key.path == real).then_some(());
    station.watch.until("the copy, shown as what it claims", shown).await;
    let manager = station.client.manager().await;
    let request = certs::request("barn");
    let lock = manager.add_lock(&real, "barn", &request, pins::pipe(PIN)).await;
    assert_refused(lock, "Unverified");

    let blank = station.plug("blank").await;
    let offer = |objects: &Objects| Some(objects.offer(&real, &blank.path)?.path.clone());
    let job = station.watch.until("an offer by the copy", offer).await;
    let ended =
        station.client.answer_all(&mut station.watch, &job, &Answers::sub("Sub", &[])).await;
    assert_eq!((&*ended.step, &*ended.outcome), ("failed", "Unverified"));
    // Its job failed; it was not cancelled.
    station.watch.until_decision([&real, &blank.path], "done").await;
    assert!(signatures(&copy.take_commands()) > 0, "it was asked");
    let put = changes(&blank.card.take_commands());
    assert!(!put.contains(&"put 5FC105".to_owned()), "{put:?}");
    let keys = manager.list_keys(Options::new(), "", 10).await.unwrap().0;
    let mut names: Vec<_> = keys.into_iter().map(|row| row.1).collect();
    names.sort();
    assert_eq!(names, ["Master", "Thief"]);
    assert_eq!(manager.list_locks(Options::new(), "", 10).await.unwrap().0.len(), 1);
    let log = station.ctl(&["audit", "export"]).await.done().stdout;
    for logged in ["\"event\":\"key-not-genuine\"", "\"error\":\"Unverified\""] {
        assert!(log.contains(logged), "{log}");
    }
}
