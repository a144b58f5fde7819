//! Tests of Keys that are pulled out at each step and during the write. `tests/bus` interrupts every single command.

use keywright_bus_tests::{Answers, Objects, pins::PIN};
use zbus::OwnedObjectPath;

use crate::{
    machine::{MASTER, Machine, Plugged},
    system::{self, UNIT},
};

const STEPS: [&str; 5] = ["kind", "name", "locks", "review", "pins"];

pub async fn wizard_resumes_with_the_master_in_another_port_at_each_step() {
    let (mut machine, mut master) = Machine::with_master().await;
    let blank = machine.plug("blank").await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    for step in STEPS {
        machine.client.answer_until(&mut machine.watch, &job, &answers, step).await;
        let port = master.key.port;
        machine.unplug(master).await;
        machine.watch.until_step(&job, "awaiting-key").await;
        let other = if port == 5 { 6 } else { 5 };
        master = machine.plug_at(MASTER, other).await;
        machine.watch.until_step(&job, step).await;
    }
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
}

pub async fn wizard_resumes_with_the_blank_key_in_its_port_at_each_step() {
    let (mut machine, master) = Machine::with_master().await;
    let mut blank = machine.plug_at("blank", 4).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    for step in STEPS {
        machine.client.answer_until(&mut machine.watch, &job, &answers, step).await;
        let path = machine.unplug(blank).await;
        machine.watch.until_step(&job, "awaiting-key").await;
        blank = machine.plug_at("blank", 4).await;
        assert_eq!(blank.path, path);
        machine.watch.until_step(&job, step).await;
    }
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
}

pub async fn another_key_in_the_awaited_port_is_refused() {
    let (mut machine, master) = Machine::with_master().await;
    let blank = machine.plug_at("blank", 4).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    machine.client.answer_until(&mut machine.watch, &job, &answers, "review").await;
    machine.unplug(blank).await;
    machine.watch.until_step(&job, "awaiting-key").await;
    let wrong = machine.plug_at("wrong", 4).await;
    let told =
        |objects: &Objects| (objects.serialization(&job)?.outcome() == "WrongKey").then_some(());
    machine.watch.until("Outcome WrongKey", told).await;
    let step = machine.watch.objects().await.serialization(&job).unwrap().text("Step");
    assert_eq!(step, "awaiting-key");
    machine.unplug(wrong).await;
    let blank = machine.plug_at("blank", 4).await;
    machine.watch.until_step(&job, "review").await;
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
}

/// Answers all steps and PINs except the last PIN, which starts the write.
pub(super) async fn answer_until_last_pin(
    machine: &mut Machine,
    job: &OwnedObjectPath,
    answers: &Answers,
) {
    machine.client.answer_until(&mut machine.watch, job, answers, "pins").await;
    let needed = |objects: &Objects| Some(objects.serialization(job)?.words("PinsNeeded"));
    while machine.watch.until("PinsNeeded", needed).await != ["candidate-new"] {
        machine.client.answer(&machine.watch, job, answers).await.unwrap();
    }
}

/// Answers the PINs that are still needed and finishes. If the command that changes the PIN was interrupted, only the
/// token knows which PIN is in force, so the old one is tried first.
pub(super) async fn resume(machine: &mut Machine, job: &OwnedObjectPath, answers: &Answers) {
    machine.watch.until_step(job, "pins").await;
    let mut ended = machine.client.answer_all(&mut machine.watch, job, answers).await;
    if ended.outcome == "PinInvalid" {
        let mut other = answers.clone();
        other.pins.candidate = PIN.into();
        ended = machine.client.answer_all(&mut machine.watch, job, &other).await;
    }
    ended.assert_finished();
    machine.client.serialization(job).await.finish().await.unwrap();
}

/// Makes a Sub Key whose candidate is pulled out at its `n`-th command since the plug (`late`: after it was executed),
/// and resumes the job. Counts in `elsewhere` how often it resumed in another port. False if nothing was interrupted.
async fn pull_the_candidate_at(
    machine: &mut Machine,
    master: &Plugged,
    n: usize,
    late: bool,
    elsewhere: &mut usize,
) -> bool {
    let name = format!("sub {n} {late}");
    let answers = Answers::sub(&name, &[]);
    let at = n.to_string();
    let options: &[&str] =
        if late { &["--pull-at", &at, "--execute-first"] } else { &["--pull-at", &at] };
    let blank = machine.plug_with(&name, options).await;
    let port = blank.key.port;
    let job = machine.offer(master, &blank).await;
    answer_until_last_pin(machine, &job, &answers).await;
    let _ = machine.client.answer(&machine.watch, &job, &answers).await;
    let stopped = |objects: &Objects| {
        let step = objects.serialization(&job)?.text("Step");
        ["finished", "failed", "awaiting-key"].contains(&step.as_str()).then_some(step)
    };
    let step = machine.watch.until("the job stopped", stopped).await;
    if step == "finished" {
        machine.client.serialization(&job).await.finish().await.unwrap();
        machine.unplug(blank).await;
        return false;
    }
    assert_eq!(step, "awaiting-key", "pulled at {n}");
    let path = machine.unplug(blank).await;
    // With a certificate it is recognised in every port; without one only in its own.
    let other = if port == 6 { 7 } else { 6 };
    let mut blank = machine.plug_at(&name, other).await;
    if blank.path == path {
        *elsewhere += 1;
    } else {
        let step = machine.watch.objects().await.serialization(&job).unwrap().text("Step");
        assert_eq!(step, "awaiting-key", "another Key changes nothing");
        machine.unplug(blank).await;
        blank = machine.plug_at(&name, port).await;
        assert_eq!(blank.path, path);
    }
    resume(machine, &job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    machine.unplug(blank).await;
    true
}

pub async fn write_resumes_when_the_candidate_is_back() {
    let (mut machine, master) = Machine::with_master().await;
    // The commands before these are those of the plug and of the PIN check.
    let (mut interrupted, mut elsewhere) = (0, 0);
    for (n, late) in (22..).step_by(3).zip([false, true].into_iter().cycle()) {
        if !pull_the_candidate_at(&mut machine, &master, n, late, &mut elsewhere).await {
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted >= 4, "a write has more commands: only {interrupted} were interrupted");
    let whole = (1..interrupted).contains(&elsewhere);
    assert!(whole, "{elsewhere} of {interrupted} went on in another port");
}

pub async fn write_resumes_with_the_master_in_another_port() {
    let mut machine = Machine::with_absent_master().await;
    // Count its commands up to the write, and in all.
    let log = "/run/commands-of-the-master";
    let count = || std::fs::read_to_string(log).unwrap().lines().count();
    let mut master = machine.plug_with(MASTER, &["--log", log]).await;
    machine.until_state(&master.path, "master").await;
    let blank = machine.plug("uninterrupted").await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("uninterrupted", &[]);
    answer_until_last_pin(&mut machine, &job, &answers).await;
    let before = count();
    machine.finish(&job, &answers).await;
    let all = count();
    machine.unplug(blank).await;

    let mut interrupted = 0;
    for (n, late) in (before + 1..=all).step_by(2).zip([false, true].into_iter().cycle()) {
        machine.unplug(master).await;
        let (name, at) = (format!("sub {n}"), n.to_string());
        let late: &[&str] = if late { &["--execute-first"] } else { &[] };
        master = machine.plug_with(MASTER, &[&["--pull-at", &at], late].concat()).await;
        machine.until_state(&master.path, "master").await;
        let blank = machine.plug(&name).await;
        let job = machine.offer(&master, &blank).await;
        let answers = Answers::sub(&name, &[]);
        answer_until_last_pin(&mut machine, &job, &answers).await;
        let _ = machine.client.answer(&machine.watch, &job, &answers).await;
        let port = master.key.port;
        machine.unplug(master).await;
        let other = if port == 6 { 7 } else { 6 };
        master = machine.plug_at(MASTER, other).await;
        machine.until_state(&master.path, "master").await;
        let stopped = |objects: &Objects| {
            let step = objects.serialization(&job)?.text("Step");
            ["finished", "pins"].contains(&step.as_str()).then_some(step)
        };
        // After its last signature is saved the Master is not needed any more.
        if machine.watch.until("the job stopped", stopped).await == "finished" {
            machine.client.serialization(&job).await.finish().await.unwrap();
        } else {
            interrupted += 1;
            resume(&mut machine, &job, &answers).await;
        }
        machine.until_state(&blank.path, "sub").await;
        machine.unplug(blank).await;
    }
    assert!(interrupted >= 2, "only {interrupted} of its commands were interrupted");
}

pub async fn write_resumes_after_the_daemon_is_killed() {
    let (mut machine, master) = Machine::with_master().await;
    // Slow enough for the kill to come during the write.
    let blank = machine.plug_with("blank", &["--sign-delay-ms", "1500"]).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    answer_until_last_pin(&mut machine, &job, &answers).await;
    machine.client.answer(&machine.watch, &job, &answers).await.unwrap();
    machine.until_stage(&job, "keys").await;
    let before = system::unit("MainPID");
    system::run(&format!("systemctl kill --signal=KILL {UNIT}"));
    machine.until_owned_by_another(&before).await;
    let master = machine.until_shown(MASTER, master.key).await;
    let blank = machine.until_shown("blank", blank.key).await;
    resume(&mut machine, &job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    drop(master);
}
