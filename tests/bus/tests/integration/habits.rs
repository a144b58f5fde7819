//! The main job with tokens that behave as other vendors' do.

use keywright_bus_tests::{
    Answers, Ended, Objects, Plugged, Station,
    card::{GENERATE, Reaction},
    client::assert_refused,
    pins::{PIN, WRONG_PIN},
};

/// A PIN of eight digits.
const LONG_PIN: &str = "24681357";

/// Plugs in a Key with habits.
async fn plug(station: &mut Station, name: &str, habits: &[&str]) -> Plugged {
    let options: Vec<_> = habits.iter().flat_map(|habit| ["--habit", *habit]).collect();
    station.plug_with(name, &options).await
}

/// Makes a Master, a Sub Key and a Backup Key, all of them with these habits.
async fn main_job(habits: &[&str]) {
    let mut station = Station::start().await;
    let master = plug(&mut station, "master", habits).await;
    station.make_master(&master, "Master").await;
    let (lock, _) = station.add_lock(&master, "gate").await;
    let sub = plug(&mut station, "sub", habits).await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&lock])).await;
    let backup = plug(&mut station, "backup", habits).await;
    station.make(&master, &backup, &Answers::backup("Backup")).await;
    // They are recognised again, and sign.
    station.unplug(master).await;
    station.unplug(backup).await;
    let backup = plug(&mut station, "backup", habits).await;
    station.until_state(&backup.path, "backup").await;
    station.add_lock(&backup, "barn").await;
}

macro_rules! main_job_with {
    ($($test:ident: $habits:expr;)*) => {
        $(#[tokio::test]
        async fn $test() {
            main_job(&$habits).await;
        })*
    };
}

main_job_with! {
    metadata_of_an_empty_slot_is_no_key: ["metadata-of-empty-slots"];
    token_behind_an_extended_reader_may_take_short_apdus: ["short-only"];
    torn_writes_need_no_other_order: ["short-only", "torn-writes"];
    two_retired_containers_are_enough: ["few-containers"];
    key_history_of_zero_is_no_obstacle: ["key-history-of-zero"];
    aes_192_is_replaced: ["aes192"];
    pin_complexity_is_met_by_a_good_pin: ["pin-complexity"];
    puk_that_cannot_be_changed_stays: ["puk-fixed"];
    several_habits_together: ["aes192", "metadata-of-empty-slots", "short-only", "tries630x"];
}

/// The new Key's PIN is refused by a rule of the token: a person gives another one, and what was made stays.
#[tokio::test]
async fn refused_new_pin_is_asked_for_again() {
    let mut station = Station::start().await;
    let key = plug(&mut station, "master", &["pin-of-eight"]).await;
    station.until_state(&key.path, "blank").await;
    let job = station.client.start_master(&key.path, "Master").await;
    let mut answers = Answers::master("Master");
    let Station { client, watch, .. } = &mut station;
    client.answer_until(watch, &job, &answers, "pins").await;
    client.answer(watch, &job, &answers).await.unwrap();
    client.answer(watch, &job, &answers).await.unwrap();
    let refused = |objects: &Objects| {
        let job = objects.serialization(&job)?;
        (job.outcome() == "InvalidArgument").then(|| job.words("PinsNeeded"))
    };
    let needed = watch.until("the new PIN refused", refused).await;
    assert_eq!(needed, ["candidate-new"], "the PIN that was accepted is kept");
    assert_eq!(generated(&key.card.take_commands()), 2);
    answers.pins.candidate_new = LONG_PIN.into();
    station.finish(&job, &answers).await;
    assert_eq!(generated(&key.card.take_commands()), 0, "the keys stay");

    assert_refused(station.change_pin(&key, LONG_PIN, PIN).await, "InvalidArgument");
    station.change_pin(&key, LONG_PIN, "13572468").await.unwrap();
}

/// How many keys were made. Without an algorithm the command only asks.
fn generated(commands: &[Vec<u8>]) -> usize {
    commands.iter().filter(|command| command[1] == GENERATE && command.len() > 7).count()
}

/// What a token cannot do is found before anything is written to it.
#[tokio::test]
async fn token_without_set_management_key_is_refused_and_not_changed() {
    let mut station = Station::start().await;
    let key = plug(&mut station, "master", &["no-set-management-key"]).await;
    station.until_state(&key.path, "blank").await;
    let job = station.client.start_master(&key.path, "Master").await;
    let answers = Answers::master("Master");
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended, Ended { step: "failed".into(), outcome: "Unsupported".into() });
    let commands = key.card.take_commands();
    assert_eq!(generated(&commands), 0);
    let written = commands.iter().filter(|command| matches!(command[1], 0xDB | 0x24 | 0x2C));
    assert_eq!(written.count(), 0);
    let objects = station.watch.objects().await;
    let (_, text): (String, String) = objects.serialization(&job).unwrap().get("Outcome");
    assert!(text.contains("take another token"), "{text}");
}

/// A job that fails after the PIN was changed does not show the factory PIN.
#[tokio::test]
async fn new_pin_is_shown_although_the_job_failed_later() {
    let mut station = Station::start().await;
    let key = station.plug_with("master", &["--tells-factory-pin"]).await;
    station.until_state(&key.path, "blank").await;
    key.card.script(|_, command| match command {
        [_, 0xFF, _, _, _, ..] => Reaction::Answer(vec![0x6A, 0x80]),
        _ => Reaction::Forward,
    });
    let job = station.client.start_master(&key.path, "Master").await;
    let answers = Answers::master("Master");
    let ended = station.client.answer_all(&mut station.watch, &job, &answers).await;
    assert_eq!(ended, Ended { step: "failed".into(), outcome: "TokenFailed".into() });
    let objects = station.watch.objects().await;
    assert_eq!(objects.key(&key.path).unwrap().text("Pin"), "set");
}

#[tokio::test]
async fn tries_left_are_shown_however_a_token_tells_them() {
    for habit in ["tries630x", "tries-unsaid"] {
        let mut station = Station::start().await;
        let key = plug(&mut station, "master", &[habit]).await;
        station.make_master(&key, "Master").await;
        let error = station.change_pin(&key, WRONG_PIN, LONG_PIN).await.unwrap_err();
        assert!(error.to_string().contains("2 tries are left"), "{habit}: {error}");
        station.change_pin(&key, PIN, LONG_PIN).await.unwrap();
    }
}
