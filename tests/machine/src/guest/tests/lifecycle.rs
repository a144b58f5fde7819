//! Tests of the daemon's life cycle under systemd: start on demand, idle exit, and the watchdog during a write.

use std::time::Duration;

use keywright_bus_tests::{Answers, pins};

use super::{devices, interruptions};
use crate::{
    device::Inserted,
    machine::{CONFIG, MASTER, Machine, STATE},
    system::{self, Broken, UNIT},
};

/// Returns the number of Keys that the daemon lists; the call starts the daemon if needed.
async fn listed(machine: &Machine) -> usize {
    let manager = machine.client.manager().await;
    manager.list_keys(Default::default(), "", 10).await.unwrap().0.len()
}

/// Waits until systemd has this watchdog interval for the daemon.
fn until_watched(limit: &str) {
    let shown = format!("systemctl show --property=WatchdogUSec --value {UNIT}");
    system::run(&format!("until [ \"$({shown})\" = {limit} ]; do sleep 0.1; done"));
}

/// Waits until the daemon has exited, without calling it.
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
    // A token that cannot be a Key does not keep the daemon running.
    let reader = Inserted::plug(devices::empty_reader());
    let unusable = machine.until_shown_in(reader.port).await;
    machine.until_state(&unusable, "unusable").await;
    until_ended();

    let master = machine.insert(MASTER, &[]);
    machine.until_owned().await;
    let master = machine.until_shown(MASTER, master).await;
    machine.until_state(&master.path, "master").await;
    let process = system::unit("MainPID");
    // A usable Key does, as long as it is plugged in.
    tokio::time::sleep(Duration::from_secs(3 * seconds)).await;
    assert_eq!(system::unit("MainPID"), process);
    machine.unplug(master).await;
    until_ended();

    assert_eq!(listed(&machine).await, 1, "nothing is lost");
    until_ended();

    // So does a claimed wizard, even with both Keys unplugged.
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

/// The daemon exits with status 75 if a plug or a call came during its idle exit.
pub async fn daemon_needed_during_idle_exit_is_restarted() {
    let machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT}"));
    // The first process exits with 75, the next one is the real daemon.
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
    // Slow enough for the stop to come during the write.
    let blank = machine.plug_with("blank", &["--sign-delay-ms", "1500"]).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    interruptions::answer_until_last_pin(&mut machine, &job, &answers).await;
    let not_watched = system::unit("WatchdogUSec");
    machine.client.answer(&machine.watch, &job, &answers).await.unwrap();
    machine.until_stage(&job, "keys").await;
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

/// For administrators who monitor machines by their journals.
pub async fn journal_has_events_and_no_pins() {
    let cursor = system::journal_cursor();
    let (mut machine, master) = Machine::with_master().await;
    let blank = machine.plug("blank").await;
    machine.make(&master, &blank, &Answers::sub("Sub", &[])).await;
    let key = machine.watch.objects().await.key(&blank.path).unwrap().text("Id");
    // journald writes with a delay.
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
