//! Races between calls, and jobs that are cancelled or interrupted half-way.

use std::sync::mpsc;

use keywright_bus_tests::{
    Answers, LIMIT, Objects, Plugged, Station,
    api::{NONE, Options},
    card::{GENERATE, Reaction},
    certs,
    client::assert_refused,
    pins::{self, NEW_PIN, PIN, WRONG_PIN},
};
use zbus::OwnedObjectPath;

async fn with_lock() -> (Station, Plugged) {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    station.add_lock(&master, "gate").await;
    (station, master)
}

/// An offer for a Sub Key, with every PIN given but the new one, which starts the write.
async fn before_the_write(
    station: &mut Station,
    master: &Plugged,
    candidate: &Plugged,
    answers: &Answers,
) -> OwnedObjectPath {
    let job = station.offer(master, candidate).await;
    let Station { client, watch, .. } = station;
    client.answer_until(watch, &job, answers, "pins").await;
    let needed = |objects: &Objects| Some(objects.serialization(&job)?.words("PinsNeeded"));
    while watch.until("PinsNeeded", needed).await != ["candidate-new"] {
        client.answer(watch, &job, answers).await.unwrap();
    }
    job
}

/// Starts the write and holds it at the first GENERATE until a message is sent; then the card does `reaction`.
async fn hold_at_generate(
    station: &Station,
    job: &OwnedObjectPath,
    candidate: &Plugged,
    reaction: Reaction,
) -> mpsc::Sender<()> {
    let (reached, is_reached) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    candidate.card.script(move |_, command| {
        if command[1] != GENERATE || reached.send(()).is_err() {
            return Reaction::Forward;
        }
        let _ = goes_on.recv();
        reaction.clone()
    });
    let answers = Answers::sub("Sub", &[]);
    station.client.answer(&station.watch, job, &answers).await.unwrap();
    is_reached.recv_timeout(LIMIT).unwrap();
    // Only the first one is held.
    go_on
}

/// Holds the write at the first GENERATE until Cancel was answered.
async fn cancel_at_generate(
    station: &mut Station,
    job: &OwnedObjectPath,
    candidate: &Plugged,
    reaction: Reaction,
) {
    let go_on = hold_at_generate(station, job, candidate, reaction).await;
    station.client.serialization(job).await.cancel().await.unwrap();
    go_on.send(()).unwrap();
    station.watch.until_step(job, "cancelled").await;
}

#[tokio::test]
async fn queued_pin_calls_do_not_use_the_last_try() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.make_master(&key, "Master").await;
    let wrong = || station.change_pin(&key, WRONG_PIN, NEW_PIN);
    let (a, b, c) = tokio::join!(wrong(), wrong(), wrong());
    for refused in [a, b, c] {
        assert_refused(refused, "PinInvalid");
    }
    let left: i32 = station.watch.objects().await.key(&key.path).unwrap().get("PinRetries");
    assert_eq!(left, 1, "the last try is for after a re-plug");
}

#[tokio::test]
async fn lock_added_twice_concurrently_is_listed_once() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let manager = station.client.manager().await;
    let request = certs::request("gate");
    let add = || manager.add_lock(&master.path, "gate", &request, pins::pipe(PIN));
    let (a, b) = tokio::join!(add(), add());
    assert_eq!(a.unwrap(), b.unwrap(), "one Lock has one certificate");
    let locks: u32 = station.watch.objects().await.key(&master.path).unwrap().get("PendingLocks");
    assert_eq!(locks, 1);
}

#[tokio::test]
async fn cancelled_write_reports_a_key_that_stays_authorized() {
    let (mut station, master) = with_lock().await;
    let candidate = station.plug("candidate").await;
    let answers = Answers::sub("Sub", &[]);
    let job = before_the_write(&mut station, &master, &candidate, &answers).await;
    cancel_at_generate(&mut station, &job, &candidate, Reaction::Forward).await;
    // This firmware forgets its management key's authentication only when it loses power.
    let objects = station.watch.objects().await;
    assert!(objects.key(&candidate.path).unwrap().get::<bool>("Authorized"));
    let (_, text): (String, String) = objects.serialization(&job).unwrap().get("Outcome");
    assert!(text.contains("unplug"), "{text}");
}

#[tokio::test]
async fn answered_cancel_holds_after_an_unplug() {
    let (mut station, master) = with_lock().await;
    let candidate = station.plug("candidate").await;
    let answers = Answers::sub("Sub", &[]);
    let job = before_the_write(&mut station, &master, &candidate, &answers).await;
    cancel_at_generate(&mut station, &job, &candidate, Reaction::Cut).await;
}

/// The second write is cancelled while it waits for the issuer; at its turn its Key is unplugged, or was replugged.
#[tokio::test]
async fn answered_cancel_holds_for_a_queued_write() {
    for is_back in [false, true] {
        let (mut station, master) = with_lock().await;
        let answers = Answers::sub("Sub", &[]);
        let (first, second) = (station.plug("first").await, station.plug("second").await);
        let one = before_the_write(&mut station, &master, &first, &answers).await;
        let two = before_the_write(&mut station, &master, &second, &answers).await;
        let go_on = hold_at_generate(&station, &one, &first, Reaction::Forward).await;
        station.client.answer(&station.watch, &two, &answers).await.unwrap();
        station.watch.until_step(&two, "writing").await;
        station.client.serialization(&two).await.cancel().await.unwrap();
        station.unplug(second).await;
        let early = if is_back { Some(station.plug("second").await) } else { None };
        go_on.send(()).unwrap();
        station.watch.until_step(&one, "finished").await;
        station.watch.until_step(&two, "cancelled").await;
        let second = match early {
            Some(second) => second,
            None => station.plug("second").await,
        };
        let again = |objects: &Objects| {
            let offer = &objects.offer(&master.path, &second.path)?.path;
            (*offer != two).then_some(())
        };
        station.watch.until("an offer, as it was re-plugged", again).await;
    }
}

#[tokio::test]
async fn recovery_code_possibly_in_force_is_handed_out() {
    for cancelled in [false, true] {
        let mut station = Station::start().await;
        let key = station.plug("key").await;
        station.until_state(&key.path, "blank").await;
        let job = station.client.start_master(&key.path, "Master").await;
        key.card.script(|_, command| match command[..] {
            [_, 0x24, 0, 0x81, ..] => Reaction::ExecuteAndCut,
            _ => Reaction::Forward,
        });
        let answers = Answers::master("Master");
        let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
        assert_eq!(ended.step, "awaiting-key");
        station.unplug(key).await;
        let key = station.plug("key").await;
        station.watch.until_step(&job, "pins").await;
        let proxy = station.client.serialization(&job).await;
        if cancelled {
            proxy.cancel().await.unwrap();
        } else {
            let mut again = answers.clone();
            again.pins.candidate = PIN.into();
            let ended = station.client.answer_all(&mut station.watch, &job, &again).await;
            ended.assert_finished();
        }
        let code = pins::read(proxy.take_recovery_code().await.unwrap());
        let object = station.client.key(&key.path).await;
        object.unblock_pin(pins::pipe(&code), pins::pipe(NEW_PIN)).await.unwrap();
    }
}

#[tokio::test]
async fn unfinished_backup_cannot_issue() {
    let (mut station, master) = with_lock().await;
    let backup = station.plug("backup").await;
    let answers = Answers::backup("Backup");
    let job = before_the_write(&mut station, &master, &backup, &answers).await;
    backup.card.script(|_, command| {
        let access_certificate = command.windows(3).any(|tag| tag == [0x5F, 0xC1, 0x05]);
        let put = command[1] == 0xDB && access_certificate;
        if put { Reaction::ExecuteAndCut } else { Reaction::Forward }
    });
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended.step, "awaiting-key");
    station.unplug(backup).await;
    station.unplug(master).await;

    let backup = station.plug("backup").await;
    let blank = station.plug("blank").await;
    station.until_state(&blank.path, "blank").await;
    assert!(station.watch.objects().await.offer(&backup.path, &blank.path).is_none());
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&backup.path, &blank.path, Options::new()).await;
    assert_refused(start, "KeyBusy");
    let request = certs::request("barn");
    let lock = manager.add_lock(&backup.path, "barn", &request, pins::pipe(PIN)).await;
    assert_refused(lock, "KeyBusy");
}

#[tokio::test]
async fn chain_of_a_key_made_at_another_station_is_complete() {
    let (mut station, master) = with_lock().await;
    let backup = station.plug("backup").await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    station.unplug(backup).await;
    station.unplug(master).await;
    elsewhere(&mut station).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    station.add_lock(&master, "attic").await;
    station.unplug(master).await;
    let backup = station.plug("backup").await;
    station.add_lock(&backup, "cellar").await;
    let sub = station.plug("sub").await;
    station.make(&backup, &sub, &Answers::sub("Sub", &[])).await;
    let chain = station.client.key(&sub.path).await.get_certificate_chain("").await.unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 3, "Sub, Backup, Master");
}

/// A key without a certificate is found only after the PIN; here another station made it.
#[tokio::test]
async fn key_without_certificate_found_after_the_pin_makes_a_token_foreign() {
    let (mut station, master) = with_lock().await;
    let candidate = station.plug("candidate").await;
    let answers = Answers::sub("Sub", &[]);
    let job = before_the_write(&mut station, &master, &candidate, &answers).await;
    cancel_at_generate(&mut station, &job, &candidate, Reaction::Forward).await;
    station.unplug(candidate).await;
    station.unplug(master).await;
    elsewhere(&mut station).await;

    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    station.add_lock(&master, "attic").await;
    let candidate = station.plug("candidate").await;
    station.until_state(&candidate.path, "blank").await;
    candidate.card.take_commands();
    let job = station.offer(&master, &candidate).await;
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended.step, "failed");
    assert_eq!(ended.outcome, "ForeignCredentials");
    station.until_state(&candidate.path, "foreign").await;
    station.watch.until_decision([&master.path, &candidate.path], "foreign-credentials").await;
    let writes = |command: &Vec<u8>| matches!(command[1], 0xDB | 0x24 | 0x2C | 0x47 | 0xFF);
    assert!(!candidate.card.take_commands().iter().any(writes), "nothing was written");
    let manager = station.client.manager().await;
    let start = manager.start_serialization(&master.path, &candidate.path, Options::new()).await;
    assert_refused(start, "ForeignCredentials");
}

/// Restarts the daemon as a station with an empty state directory.
async fn elsewhere(station: &mut Station) {
    station.daemon.stop().await;
    station.launch.state_dir = station.dir.path().join("elsewhere");
    std::fs::create_dir(&station.launch.state_dir).unwrap();
    station.daemon = station.launch.start(station.client.connection()).await;
}

#[tokio::test]
async fn pin_changed_elsewhere_is_asked_for_again() {
    let (mut station, master) = with_lock().await;
    let candidate = station.plug("candidate").await;
    let mut answers = Answers::sub("Sub", &[]);
    let job = before_the_write(&mut station, &master, &candidate, &answers).await;
    station.change_pin(&master, PIN, NEW_PIN).await.unwrap();
    let needed = station.watch.objects().await.serialization(&job).unwrap().words("PinsNeeded");
    assert_eq!(needed, ["issuer", "candidate-new"]);
    answers.pins.issuer = NEW_PIN.into();
    station.finish(&job, &answers).await;
}

#[tokio::test]
async fn factory_puk_is_tried_once_across_interrupted_jobs() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
    let answers = Answers::master("Master");
    let mut later = answers.clone();
    later.pins.candidate = PIN.into();

    // The first job tries the factory PUK, which is refused, and is cut off and cancelled.
    let first = station.client.start_master(&key.path, "Master").await;
    let mut offered = false;
    key.card.script(move |_, command| match command[..] {
        [_, 0x24, 0, 0x81, ..] => {
            offered = true;
            Reaction::Answer(vec![0x63, 0xC2])
        }
        _ if offered => Reaction::Cut,
        _ => Reaction::Forward,
    });
    let key = cut_and_cancel(&mut station, key, &first, &answers).await;
    // The second job does not try it.
    let second = station.client.start_master(&key.path, "Master").await;
    key.card.script(
        |_, command| {
            if command[1] == GENERATE { Reaction::Cut } else { Reaction::Forward }
        },
    );
    let key = cut_and_cancel(&mut station, key, &second, &later).await;
    let manager = station.client.manager().await;
    key.card.take_commands();
    let third = manager.start_serialization(&NONE, &key.path, Options::new()).await.unwrap();
    station.finish(&third, &later).await;
    let commands = key.card.take_commands();
    assert!(!commands.iter().any(|command| matches!(command[..], [_, 0x24, 0, 0x81, ..])));
}

async fn cut_and_cancel(
    station: &mut Station,
    key: Plugged,
    job: &OwnedObjectPath,
    answers: &Answers,
) -> Plugged {
    let ended = station.client.answer_all(&mut station.watch, job, answers).await;
    assert_eq!(ended.step, "awaiting-key");
    station.unplug(key).await;
    let key = station.plug("key").await;
    station.watch.until_step(job, "pins").await;
    station.client.serialization(job).await.cancel().await.unwrap();
    station.until_state(&key.path, "blank").await;
    key
}

#[tokio::test]
async fn lock_left_out_of_new_rights_is_listed_as_removing() {
    let (mut station, master) = with_lock().await;
    let (barn, _) = station.add_lock(&master, "barn").await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    let manager = station.client.manager().await;
    let job = manager.start_serialization(&master.path, &sub.path, Options::new()).await.unwrap();
    let mut answers = Answers::sub("Sub", &[&barn]);
    answers.pins.candidate = PIN.into();
    station.finish(&job, &answers).await;

    let objects = station.watch.objects().await;
    let key = objects.key(&sub.path).unwrap();
    assert_eq!(key.get::<u32>("PendingLocks"), 1);
    let id = key.text("Id");
    let (rights, _) = manager.list_rights(&id, "", 10).await.unwrap();
    let states = |(lock, name, state, _): &(String, String, String, u64)| {
        assert_eq!(*lock == barn, name == "barn");
        (name.clone(), state.clone())
    };
    let mut states: Vec<_> = rights.iter().map(states).collect();
    states.sort();
    let expected = [("barn", "pending"), ("gate", "removing")];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    let gate = rights.iter().find(|(_, name, ..)| name == "gate").unwrap();
    manager.get_grant(&id, &gate.0).await.unwrap();
}
