//! Compares the main job (a Master, a Lock, a Sub Key, a Backup Key) directly on the tokens and through pcscd.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use keywright_bus_tests::Answers;
use zbus::OwnedObjectPath;

use super::pcscd::{MODULE, PcscdSession, cards};
use crate::{
    machine::{Machine, Plugged},
    system,
};

/// Commands and time of a job from its first answer to `finished`.
struct Cost {
    what: &'static str,
    commands: usize,
    time: Duration,
}

/// Path of a virtual Key's command log.
fn log(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/commands-of-{name}"))
}

/// Number of commands that these Keys received so far.
fn commands(keys: &[&Plugged]) -> usize {
    keys.iter().map(|key| fs::read_to_string(log(&key.name)).unwrap().lines().count()).sum()
}

async fn plug(machine: &mut Machine, name: &str) -> Plugged {
    let log = log(name);
    let _ = fs::remove_file(&log);
    machine.plug_with(name, &["--log", log.to_str().unwrap()]).await
}

async fn measured(
    machine: &mut Machine,
    job: &OwnedObjectPath,
    keys: &[&Plugged],
    answers: &Answers,
) -> Cost {
    // Properties that are read after the offer are not part of the job.
    for key in keys {
        machine.until_all_tries_left(&key.path).await;
    }
    let (before, start) = (commands(keys), Instant::now());
    machine.client.answer_all(&mut machine.watch, job, answers).await.assert_finished();
    let (commands, time) = (commands(keys) - before, start.elapsed());
    machine.client.serialization(job).await.finish().await.unwrap();
    Cost { what: answers.kind, commands, time }
}

async fn main_job(session: Option<&PcscdSession>) -> Vec<Cost> {
    let mut machine = Machine::start().await;
    let master = plug(&mut machine, "master-key").await;
    machine.until_state(&master.path, "blank").await;
    let job = machine.client.start_master(&master.path, "Master").await;
    let mut costs =
        vec![measured(&mut machine, &job, &[&master], &Answers::master("Master")).await];
    machine.until_state(&master.path, "master").await;
    let (lock, _) = machine.add_lock(&master, "gate").await;
    let mut keys = vec![master];
    for (name, answers) in
        [("sub-key", Answers::sub("Sub", &[&lock])), ("backup-key", Answers::backup("Backup"))]
    {
        let key = plug(&mut machine, name).await;
        let job = machine.offer(&keys[0], &key).await;
        costs.push(measured(&mut machine, &job, &[&keys[0], &key], &answers).await);
        machine.until_state(&key.path, answers.kind).await;
        keys.push(key);
    }
    for key in &keys {
        if let Some(session) = session {
            session.assert_holds(key);
        }
        let objects = machine.watch.objects().await;
        let retries = objects.key(&key.path).unwrap().get::<i32>("PinRetries");
        assert_eq!(retries, 3, "no PIN try was used up");
    }
    if session.is_some() {
        assert_eq!(cards(), 3);
        let read = system::run(&format!("pkcs11-tool --module {MODULE} --list-slots"));
        assert_eq!(read.matches("token label").count(), 3, "{read}");
    }
    costs
}

pub async fn main_job_sends_the_same_commands_directly_and_through_pcscd() {
    let direct = main_job(None).await;
    let session = PcscdSession::start();
    let shared = main_job(Some(&session)).await;
    println!(
        "       | Key | commands, straight | through pcscd | time, straight | through pcscd |"
    );
    println!("       | --- | --- | --- | --- | --- |");
    for (direct, shared) in direct.iter().zip(&shared) {
        println!(
            "       | {} | {} | {} | {} ms | {} ms |",
            direct.what,
            direct.commands,
            shared.commands,
            direct.time.as_millis(),
            shared.time.as_millis()
        );
        assert_eq!(
            direct.commands, shared.commands,
            "both routes send the same commands: {}",
            direct.what
        );
    }
}
