//! PINs are asked for, refused, blocked and replaced. A PIN that a token refused is never sent again.

use std::{collections::HashMap, sync::mpsc};

use keywright_bus_tests::{
    Answers, Client, Objects, Plugged, Station,
    api::Options,
    card::Reaction,
    client::assert_refused,
    pins::{self, FACTORY_PIN, FACTORY_PUK, NEW_PIN, PIN, WRONG_PIN},
};
use zbus::{OwnedObjectPath, OwnedVariant};

/// A station where a Master with a Lock and a blank Key are at the step `pins` of a Sub Key.
async fn at_pins() -> (Station, Plugged, Plugged, OwnedObjectPath) {
    let mut station = Station::start().await;
    let (master, candidate, job) = station.at_pins().await;
    (station, master, candidate, job)
}

async fn provide(
    station: &Station,
    job: &OwnedObjectPath,
    who: &str,
    pin: &str,
) -> zbus::Result<()> {
    let job = station.client.serialization(job).await;
    job.provide_pin(who, pins::pipe(pin), Options::new()).await
}

async fn retries(station: &Station, key: &Plugged) -> i32 {
    station.watch.objects().await.key(&key.path).unwrap().get("PinRetries")
}

/// How often a PIN was sent to the token since the last call: VERIFY and CHANGE REFERENCE DATA
/// with data. One command is one try.
fn tries(key: &Plugged) -> usize {
    let commands = key.card.take_commands();
    let tries = |command: &&Vec<u8>| matches!(command[..], [_, 0x20 | 0x24, 0, 0x80, _, ..]);
    // An empty VERIFY has no Lc, or is only followed by Le.
    commands.iter().filter(tries).filter(|command| command.len() > 8).count()
}

/// Two refusals, so that one try is left.
async fn spend_all_but_one(station: &Station, key: &Plugged) {
    for left in [2, 1] {
        assert_refused(station.change_pin(key, WRONG_PIN, NEW_PIN).await, "PinInvalid");
        assert_eq!(retries(station, key).await, left);
    }
}

#[tokio::test]
async fn refused_pin_is_sent_once_and_counted_before_the_reply() {
    let (mut station, master, _candidate, job) = at_pins().await;
    tries(&master);
    assert_refused(provide(&station, &job, "issuer", WRONG_PIN).await, "PinInvalid");
    assert_eq!(retries(&station, &master).await, 2, "signalled before the reply");
    assert_eq!(tries(&master), 1);
    station.finish(&job, &Answers::sub("Sub", &[])).await;
    let restored = |objects: &Objects| {
        (objects.key(&master.path)?.get::<i32>("PinRetries") == 3).then_some(())
    };
    station.watch.until("3 tries after the right PIN", restored).await;
}

#[tokio::test]
async fn last_pin_try_is_used_only_after_a_replug() {
    let (mut station, master, _candidate, job) = at_pins().await;
    for left in [2, 1] {
        assert_refused(provide(&station, &job, "issuer", WRONG_PIN).await, "PinInvalid");
        assert_eq!(retries(&station, &master).await, left);
    }
    tries(&master);
    // The right PIN, but that is not known before it is tried.
    let withheld = provide(&station, &job, "issuer", PIN).await;
    assert!(withheld.is_err());
    assert_eq!(tries(&master), 0);
    station.unplug(master).await;
    station.watch.until_step(&job, "awaiting-key").await;
    let _master = station.plug("master").await;
    station.watch.until_step(&job, "pins").await;
    station.finish(&job, &Answers::sub("Sub", &[])).await;
}

#[tokio::test]
async fn outcome_reports_a_refused_pin_until_one_is_accepted() {
    let (mut station, _master, _candidate, job) = at_pins().await;
    let outcome = |objects: &Objects| {
        let job = objects.serialization(&job).unwrap();
        let details: HashMap<String, OwnedVariant> = job.get("OutcomeDetails");
        let who = details.get("who").map(|who| String::try_from(who.try_clone().unwrap()).unwrap());
        let left = details.get("retries").map(|left| u32::try_from(left).unwrap());
        (job.outcome(), who, left)
    };
    assert_refused(provide(&station, &job, "issuer", WRONG_PIN).await, "PinInvalid");
    let refused = ("PinInvalid".to_owned(), Some("issuer".to_owned()), Some(2));
    assert_eq!(outcome(&station.watch.objects().await), refused);
    // An invalid PIN is not sent to a token and does not change the Outcome.
    assert_refused(provide(&station, &job, "issuer", "123").await, "InvalidArgument");
    assert_eq!(outcome(&station.watch.objects().await), refused);
    provide(&station, &job, "issuer", PIN).await.unwrap();
    assert_eq!(outcome(&station.watch.objects().await), (String::new(), None, None));
    station.finish(&job, &Answers::sub("Sub", &[])).await;
}

#[tokio::test]
async fn pins_are_forgotten_when_the_front_end_releases_the_job() {
    let (mut station, master, candidate, job) = at_pins().await;
    tries(&master);
    provide(&station, &job, "issuer", PIN).await.unwrap();
    provide(&station, &job, "candidate", FACTORY_PIN).await.unwrap();
    let needed = async |station: &Station| {
        station.watch.objects().await.serialization(&job).unwrap().words("PinsNeeded")
    };
    assert_eq!(needed(&station).await, ["candidate-new"]);
    station.client.serialization(&job).await.release().await.unwrap();
    let owner =
        |objects: &Objects| objects.serialization(&job)?.text("Owner").is_empty().then_some(());
    station.watch.until("no owner", owner).await;
    let all = needed(&station).await;
    assert!(["issuer", "candidate"].iter().all(|who| all.iter().any(|one| one == who)), "{all:?}");
    // Another front-end must provide both PINs, and both tokens check them again.
    let other = Client::new(station.bus.connect().await);
    assert_eq!((tries(&master), tries(&candidate)), (1, 1));
    let ended = other.answer_all(&mut station.watch, &job, &Answers::sub("Sub", &[])).await;
    ended.assert_finished();
    assert!(tries(&master) > 0 && tries(&candidate) > 0);
}

/// After a release while a Key is unplugged, the next front-end provides every PIN and gets the recovery code.
#[tokio::test]
async fn pins_are_forgotten_when_a_job_awaiting_its_key_is_released() {
    let (mut station, _master, candidate, job) = at_pins().await;
    provide(&station, &job, "issuer", PIN).await.unwrap();
    provide(&station, &job, "candidate", FACTORY_PIN).await.unwrap();
    station.client.serialization(&job).await.take_recovery_code().await.unwrap();
    station.unplug(candidate).await;
    station.watch.until_step(&job, "awaiting-key").await;
    station.client.serialization(&job).await.release().await.unwrap();
    let _candidate = station.plug("candidate").await;
    station.watch.until_step(&job, "pins").await;
    let needed = station.watch.objects().await.serialization(&job).unwrap().words("PinsNeeded");
    for who in ["issuer", "candidate"] {
        assert!(needed.iter().any(|one| one == who), "{needed:?}");
    }
    station.client.serialization(&job).await.take_recovery_code().await.unwrap();
    station.finish(&job, &Answers::sub("Sub", &[])).await;
}

/// The front-end releases the job or leaves the bus while the token still checks its PIN: the PIN is discarded, and the
/// front-end does not own the job.
#[tokio::test]
async fn pin_being_checked_when_its_front_end_leaves_is_discarded() {
    for leaves_the_bus in [false, true] {
        let (mut station, master, _candidate, job) = at_pins().await;
        station.client.serialization(&job).await.release().await.unwrap();
        let (reached, is_reached) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        master.card.script(move |_, command| {
            if matches!(command, [_, 0x20, 0, 0x80, 8, ..]) && reached.send(()).is_ok() {
                let _ = goes_on.recv();
            }
            Reaction::Forward
        });
        let other = Client::new(station.bus.connect().await);
        let name = other.connection().unique_name().unwrap().to_string();
        let proxy = other.serialization(&job).await;
        let calling = proxy.clone();
        let call = tokio::spawn(async move {
            calling.provide_pin("issuer", pins::pipe(PIN), Options::new()).await
        });
        let owner = |objects: &Objects, owner: &str| {
            (objects.serialization(&job)?.text("Owner") == owner).then_some(())
        };
        station.watch.until("the caller is owner", |objects| owner(objects, &name)).await;
        tokio::task::spawn_blocking(move || is_reached.recv().unwrap()).await.unwrap();
        if leaves_the_bus {
            other.connection().clone().close().await.unwrap();
        } else {
            proxy.release().await.unwrap();
        }
        station.watch.until("no owner", |objects| owner(objects, "")).await;
        go_on.send(()).unwrap();
        let answer = call.await.unwrap();
        if !leaves_the_bus {
            assert_refused(answer, "Cancelled");
        }
        // The token gets another command only after the check has ended.
        assert_refused(station.change_pin(&master, WRONG_PIN, NEW_PIN).await, "PinInvalid");
        let objects = station.watch.objects().await;
        let shown = objects.serialization(&job).unwrap();
        assert_eq!(shown.text("Owner"), "");
        assert!(shown.words("PinsNeeded").contains(&"issuer".to_owned()), "{shown:?}");
        assert_eq!(shown.text("Step"), "pins");
    }
}

#[tokio::test]
async fn factory_pin_must_be_replaced() {
    let (mut station, master, candidate, job) = at_pins().await;
    provide(&station, &job, "issuer", PIN).await.unwrap();
    provide(&station, &job, "candidate", FACTORY_PIN).await.unwrap();
    let grown = |objects: &Objects| {
        (objects.serialization(&job)?.words("PinsNeeded") == ["candidate-new"]).then_some(())
    };
    station.watch.until("candidate-new needed", grown).await;
    for bad in [FACTORY_PIN, "12345", "123456789", "12ab\0", ""] {
        let refused = provide(&station, &job, "candidate-new", bad).await;
        assert_refused(refused, "InvalidArgument");
    }
    assert_refused(provide(&station, &job, "nobody", PIN).await, "InvalidArgument");
    provide(&station, &job, "candidate-new", NEW_PIN).await.unwrap();
    station.watch.until_step(&job, "finished").await;
    station.client.serialization(&job).await.finish().await.unwrap();
    station.unplug(master).await;
    station.change_pin(&candidate, NEW_PIN, PIN).await.unwrap();
}

#[tokio::test]
async fn changed_pin_is_kept() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
    station.change_pin(&key, FACTORY_PIN, NEW_PIN).await.unwrap();
    let job = station.client.start_master(&key.path, "Master").await;
    let mut answers = Answers::master("Master");
    answers.pins.candidate = NEW_PIN.into();
    answers.pins.candidate_new = "is not asked for".into();
    station.finish(&job, &answers).await;
    station.change_pin(&key, NEW_PIN, PIN).await.unwrap();
}

/// If the configuration allows it, a factory PIN stays; then the outcome does not report a replaced PIN.
#[tokio::test]
async fn factory_pin_is_kept_if_the_configuration_allows_it() {
    let mut station = Station::prepared(|launch| {
        let config = launch.state_dir.with_file_name("config");
        std::fs::write(&config, "require_new_pin = false\n").unwrap();
        launch.config = Some(config);
    })
    .await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
    let job = station.client.start_master(&key.path, "Master").await;
    let mut answers = Answers::master("Master");
    answers.pins.candidate_new = "is not asked for".into();
    station.finish(&job, &answers).await;
    station.unplug(key).await;
    let key = station.plug("key").await;
    let read =
        |objects: &Objects| (objects.key(&key.path)?.get::<i32>("PinRetries") == 3).then_some(());
    station.watch.until("the counter of tries", read).await;
    assert_eq!(station.watch.objects().await.key(&key.path).unwrap().text("Pin"), "unknown");
    station.change_pin(&key, FACTORY_PIN, NEW_PIN).await.unwrap();
}

#[tokio::test]
async fn pins_are_read_from_pipes_and_sealed_memfds_only() {
    let (station, master, _candidate, job) = at_pins().await;
    let proxy = station.client.serialization(&job).await;
    let directory = std::fs::File::open(station.dir.path()).unwrap();
    let file = tempfile::tempfile().unwrap();
    tries(&master);
    for fd in [
        pins::unsealed_memfd(PIN),
        pins::memfd("123"),
        pins::memfd("123456789"),
        pins::pipe([0xFF; 100_000].get(..60_000).unwrap()),
        zbus::Fd::from(std::os::fd::OwnedFd::from(directory)),
        zbus::Fd::from(std::os::fd::OwnedFd::from(file)),
    ] {
        assert_refused(proxy.provide_pin("issuer", fd, Options::new()).await, "InvalidArgument");
    }
    let (endless, _writer) = pins::open_pipe();
    assert_refused(proxy.provide_pin("issuer", endless, Options::new()).await, "InvalidArgument");
    assert_eq!(tries(&master), 0);
    proxy.provide_pin("issuer", pins::memfd(PIN), Options::new()).await.unwrap();
}

#[tokio::test]
async fn a_blocked_pin_is_unblocked_with_the_recovery_code() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
    let job = station.client.start_master(&key.path, "Master").await;
    let answers = Answers::master("Master");
    station.client.answer_all(&mut station.watch, &job, &answers).await.assert_finished();
    let proxy = station.client.serialization(&job).await;
    let code = pins::read(proxy.take_recovery_code().await.unwrap());
    assert_eq!(code.len(), 8);
    assert_ne!(code, FACTORY_PUK);
    assert!(proxy.take_recovery_code().await.is_err(), "it is handed out once");
    proxy.finish().await.unwrap();

    spend_all_but_one(&station, &key).await;
    station.unplug(key).await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "master").await;
    assert_refused(station.change_pin(&key, WRONG_PIN, NEW_PIN).await, "PinBlocked");
    let blocked =
        |objects: &Objects| (objects.key(&key.path)?.text("Pin") == "blocked").then_some(());
    station.watch.until("the PIN blocked", blocked).await;

    let object = station.client.key(&key.path).await;
    let wrong = object.unblock_pin(pins::pipe("00000000"), pins::pipe(NEW_PIN)).await;
    assert_refused(wrong, "PinInvalid");
    object.unblock_pin(pins::pipe(&code), pins::pipe(NEW_PIN)).await.unwrap();
    let open = |objects: &Objects| (objects.key(&key.path)?.text("Pin") != "blocked").then_some(());
    station.watch.until("the PIN not blocked", open).await;
    station.change_pin(&key, NEW_PIN, PIN).await.unwrap();
}

#[tokio::test]
async fn factory_puk_is_refused_after_the_job() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.make_master(&key, "Master").await;
    let object = station.client.key(&key.path).await;
    let refused = object.unblock_pin(pins::pipe(FACTORY_PUK), pins::pipe(NEW_PIN)).await;
    assert_refused(refused, "PinInvalid");
    station.change_pin(&key, PIN, NEW_PIN).await.unwrap();
}

#[tokio::test]
async fn change_pin_counts_refusals_and_checks_the_format() {
    let mut station = Station::start().await;
    let key = station.plug("key").await;
    station.make_master(&key, "Master").await;
    tries(&key);
    for bad in ["12345", "123456789", ""] {
        assert_refused(station.change_pin(&key, PIN, bad).await, "InvalidArgument");
        assert_refused(station.change_pin(&key, bad, PIN).await, "InvalidArgument");
        let object = station.client.key(&key.path).await;
        let unblock = object.unblock_pin(pins::pipe(bad), pins::pipe(NEW_PIN)).await;
        assert_refused(unblock, "InvalidArgument");
        let unblock = object.unblock_pin(pins::pipe(FACTORY_PUK), pins::pipe(bad)).await;
        assert_refused(unblock, "InvalidArgument");
    }
    assert!(key.card.take_commands().is_empty(), "no token is asked for what is refused anyway");
    assert_refused(station.change_pin(&key, WRONG_PIN, NEW_PIN).await, "PinInvalid");
    assert_eq!((tries(&key), retries(&station, &key).await), (1, 2));
    station.change_pin(&key, PIN, NEW_PIN).await.unwrap();
    assert_eq!(retries(&station, &key).await, 3);
}

#[tokio::test]
async fn no_authorization_outlives_a_job() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    station.add_lock(&master, "gate").await;
    let clears = |command: &Vec<u8>| command.starts_with(&[0x00, 0x20, 0xFF, 0x80]);
    assert!(master.card.take_commands().iter().any(clears), "the PIN state is cleared");
    station.unplug(master).await;
    let master = station.plug("master").await;
    let authorized =
        |objects: &Objects| (!objects.key(&master.path)?.get::<bool>("Authorized")).then_some(());
    station.watch.until("Authorized false after plugging again", authorized).await;
    let manager = station.client.manager().await;
    let request = keywright_bus_tests::certs::request("barn");
    let wrong = manager.add_lock(&master.path, "barn", &request, pins::pipe(WRONG_PIN)).await;
    assert_refused(wrong, "PinInvalid");
}
