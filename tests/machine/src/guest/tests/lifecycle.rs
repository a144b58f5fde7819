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

pub async fn dbus_call_starts_the_daemon() {
    let machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT}"));
    assert_eq!(listed(&machine).await, 1);
    assert_eq!(system::unit("ActiveState"), "active");
}

pub async fn idle_daemon_exits_and_a_plug_or_a_call_starts_it() {
    let mut machine = Machine::with_absent_master().await;
    let seconds = 3;
    let config = format!("mkdir -p /etc/keywright && echo 'idle_exit_seconds = {seconds}'");
    system::run(&format!("{config} >{CONFIG} && systemctl restart {UNIT}"));
    // What cannot be a Key keeps nobody awake.
    let reader = Inserted::plug(devices::empty_reader());
    let unusable = machine.until_shown_in(reader.port).await;
    machine.until_state(&unusable, "unusable").await;
    until_ended();

    let master = machine.insert(MASTER, &[]);
    machine.until_owned().await;
    let master = machine.until_shown(MASTER, master).await;
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
pub async fn daemon_needed_during_idle_exit_is_restarted() {
    let machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT}"));
    // The first one ends like that, the next one is the real one.
    let exec =
        format!("[ -e {STATE}/ended ] && exec /usr/libexec/keywrightd; : >{STATE}/ended; exit 75");
    let unit = format!("[Service]\nType=simple\nExecStart=\nExecStart=/bin/sh -c '{exec}'\n");
    let place = "/run/systemd/system/keywrightd.service.d";
    std::fs::write("/run/ends-once.conf", unit).unwrap();
    let _ends = Broken::with(
        &format!("mkdir -p {place} && cp /run/ends-once.conf {place}/ && systemctl daemon-reload"),
        "rm -r /run/systemd/system/keywrightd.service.d; systemctl daemon-reload",
    );
    machine.start_daemon();
    machine.until_owned().await;
    assert_eq!(system::unit("NRestarts"), "1");
    assert_eq!(listed(&machine).await, 1);
}

pub async fn watchdog_restarts_a_hung_daemon_and_the_write_resumes() {
    let (mut machine, master) = Machine::with_master().await;
    // Long enough that it is stopped in between.
    let blank = machine.plug_with("blank", &["--sign-delay-ms", "1500"]).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    interruptions::answer_until_last_pin(&mut machine, &job, &answers).await;
    let not_watched = system::unit("WatchdogUSec");
    machine.client.answer(&machine.watch, &job, &answers).await.unwrap();
    let generating =
        |objects: &Objects| (objects.serialization(&job)?.text("Stage") == "keys").then_some(());
    machine.watch.until("keys generated", generating).await;
    until_watched("30s");
    let (before, cursor) = (system::unit("MainPID"), system::journal_cursor());
    system::run(&format!("systemctl kill --signal=STOP {UNIT}"));
    machine.until_owned_by_another(&before).await;
    system::wait_for_journal(&cursor, "Watchdog timeout");
    let master = machine.until_shown(MASTER, master.key).await;
    let blank = machine.until_shown("blank", blank.key).await;
    interruptions::resume(&mut machine, &job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    until_watched(&not_watched);
    drop(master);
}

/// For whoever watches many machines by their journals.
pub async fn journal_has_events_and_no_pins() {
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
    assert!(system::run("keywrightctl audit verify").contains("intact"));
}
