//! The daemon's life as systemd has it: started by a call, ended when nobody needs it, watched while it writes.

use std::time::Duration;

use keywright_bus_tests::{Answers, Objects, pins};

use super::{devices, interruptions};
use crate::{
    device::Inserted,
    machine::{CONFIG, MASTER, Machine, STATE},
    system::{self, Broken, UNIT},
};

/// How many Keys a call lists. Where no daemon runs, it starts one.
async fn listed(machine: &Machine) -> usize {
    let manager = machine.client.manager().await;
    manager.list_keys(Default::default(), "", 10).await.unwrap().0.len()
}

/// Waits until systemd has heard for how long the daemon may be silent.
fn until_watched(limit: &str) {
    let shown = format!("systemctl show --property=WatchdogUSec --value {UNIT}");
    system::run(&format!("until [ \"$({shown})\" = {limit} ]; do sleep 0.1; done"));
}

/// Waits until it has ended, without asking it.
fn until_ended() {
    system::run(&format!("while systemctl is-active --quiet {UNIT}; do sleep 0.1; done"));
    assert_eq!(system::unit("Result"), "success");
}

pub async fn a_call_starts_the_daemon() {
    let machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT}"));
    assert_eq!(listed(&machine).await, 1);
    assert_eq!(system::unit("ActiveState"), "active");
}

pub async fn a_daemon_that_nobody_needs_ends_and_is_back_by_a_plug_and_by_a_call() {
    let mut machine = Machine::with_absent_master().await;
    let seconds = 3;
    let config = format!("mkdir -p /etc/keywright && echo 'idle_exit_seconds = {seconds}'");
    system::run(&format!("{config} >{CONFIG} && systemctl restart {UNIT}"));
    // What cannot be a Key keeps nobody awake.
    let reader = Inserted::plug(devices::empty_reader());
    let unusable = machine.in_port(reader.port).await;
    machine.until_state(&unusable, "unusable").await;
    until_ended();

    let master = machine.insert(MASTER, &[]);
    machine.until_owned().await;
    let master = machine.seen(MASTER, master).await;
    machine.until_state(&master.path, "master").await;
    let process = system::unit("MainPID");
    // A Key does, for as long as it is there.
    tokio::time::sleep(Duration::from_secs(3 * seconds)).await;
    assert_eq!(system::unit("MainPID"), process);
    machine.unplug(master).await;
    until_ended();

    assert_eq!(listed(&machine).await, 1, "nothing is lost");
    until_ended();

    // Nor does it leave a person who is in the middle of a wizard, and has both Keys in the hand.
    let (master, blank) = (machine.plug(MASTER).await, machine.plug("blank").await);
    let job = machine.offer(&master, &blank).await;
    let wizard = machine.client.serialization(&job).await;
    wizard.claim().await.unwrap();
    let process = system::unit("MainPID");
    machine.unplug(blank).await;
    machine.unplug(master).await;
    tokio::time::sleep(Duration::from_secs(3 * seconds)).await;
    assert_eq!(system::unit("MainPID"), process);
    wizard.release().await.unwrap();
    until_ended();
}

/// It ends with 75 where a plug came or somebody called at the last moment.
pub async fn a_daemon_that_is_needed_while_it_ends_is_started_anew() {
    let machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT}"));
    // The first one ends like that, the next one is the real one.
    let exec =
        format!("[ -e {STATE}/ended ] && exec /usr/libexec/keywrightd; : >{STATE}/ended; exit 75");
    let unit = format!("[Service]\nType=simple\nExecStart=\nExecStart=/bin/sh -c '{exec}'\n");
    let place = "/run/systemd/system/keywrightd.service.d";
    std::fs::write("/run/ends-once.conf", unit).unwrap();
    let _ends = Broken::by(
        &format!("mkdir -p {place} && cp /run/ends-once.conf {place}/ && systemctl daemon-reload"),
        "rm -r /run/systemd/system/keywrightd.service.d; systemctl daemon-reload",
    );
    machine.start_daemon();
    machine.until_owned().await;
    assert_eq!(system::unit("NRestarts"), "1");
    assert_eq!(listed(&machine).await, 1);
}

pub async fn a_daemon_that_hangs_during_the_write_is_started_anew_and_finishes_it() {
    let (mut machine, master) = Machine::with_master().await;
    // Long enough that it is stopped in between.
    let blank = machine.plug_with("blank", &["--sign-delay-ms", "1500"]).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    interruptions::answer_all_but_the_last(&mut machine, &job, &answers).await;
    let not_watched = system::unit("WatchdogUSec");
    machine.client.answer(&machine.watch, &job, &answers).await.unwrap();
    let generating =
        |objects: &Objects| (objects.serialization(&job)?.text("Stage") == "keys").then_some(());
    machine.watch.until("keys generated", generating).await;
    until_watched("30s");
    let (before, cursor) = (system::unit("MainPID"), system::journal_cursor());
    system::run(&format!("systemctl kill --signal=STOP {UNIT}"));
    machine.until_owned_by_another(&before).await;
    system::await_journal(&cursor, "Watchdog timeout");
    let master = machine.seen(MASTER, master.key).await;
    let blank = machine.seen("blank", blank.key).await;
    interruptions::go_on(&mut machine, &job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    until_watched(&not_watched);
    drop(master);
}

/// For whoever watches many machines by their journals.
pub async fn what_happens_is_in_the_journal_and_no_pin_is() {
    let cursor = system::journal_cursor();
    let (mut machine, master) = Machine::with_master().await;
    let blank = machine.plug("blank").await;
    machine.make(&master, &blank, &Answers::sub("Sub", &[])).await;
    let key = machine.watch.objects().await.key(&blank.path).unwrap().text("Id");
    // journald writes in its own time.
    let found = format!(
        "journalctl --since='{cursor}' --output=json KEYWRIGHT_EVENT=key-made KEYWRIGHT_KEY={key}"
    );
    let entry = system::run(&format!("until {found} | grep . ; do sleep 0.1; done"));
    for field in ["\"KEYWRIGHT_KIND\":\"sub\"", "\"KEYWRIGHT_POSITION\":", "\"KEYWRIGHT_HASH\":"] {
        assert!(entry.contains(field), "{field} is not in {entry}");
    }
    let all = system::run(&format!("journalctl --since='{cursor}' --output=cat"));
    for pin in [pins::PIN, pins::FACTORY_PIN] {
        assert!(!all.contains(pin), "a PIN is in the journal");
    }
    assert!(system::run("keywrightctl audit verify").contains("whole"));
}
