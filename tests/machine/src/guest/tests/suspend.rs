//! Tests of suspends by logind. The command that would stop the machine is replaced.

use std::fs;

use keywright_bus_tests::Answers;

use crate::{machine::Machine, system};

const SUSPEND: &str = "/run/systemd/system/systemd-suspend.service.d";
const LOGIND: &str = "/run/systemd/logind.conf.d";

/// Replaces the suspend by a command until it is dropped.
struct Sleep;

impl Sleep {
    fn with(command: &str) -> Self {
        system::run(&format!("mkdir -p {SUSPEND} {LOGIND}"));
        let service = format!("[Service]\nExecStart=\nExecStart={command}\n");
        fs::write(format!("{SUSPEND}/test.conf"), service).unwrap();
        // Emulation is slow, and by default logind waits at most 5 s for inhibitors.
        fs::write(format!("{LOGIND}/test.conf"), "[Login]\nInhibitDelayMaxSec=60\n").unwrap();
        system::run("systemctl daemon-reload; systemctl kill --signal=HUP systemd-logind");
        Self
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        system::sh(&format!("rm -r {SUSPEND} {LOGIND}; systemctl daemon-reload"));
        system::sh("systemctl kill --signal=HUP systemd-logind");
    }
}

/// Lists logind's inhibitors.
fn inhibitors() -> String {
    system::run("systemd-inhibit --list --no-pager --no-legend")
}

pub async fn suspend_is_delayed_only_during_a_write() {
    let (mut machine, master) = Machine::with_master().await;
    // Slow enough for the list to be read during the write.
    let blank = machine.plug_with("blank", &["--sign-delay-ms", "1500"]).await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    machine.client.answer_until(&mut machine.watch, &job, &answers, "pins").await;
    assert!(!inhibitors().contains("keywrightd"), "{}", inhibitors());
    loop {
        let objects = machine.watch.objects().await;
        if objects.serialization(&job).unwrap().text("Step") != "pins" {
            break;
        }
        machine.client.answer(&machine.watch, &job, &answers).await.unwrap();
    }
    machine.until_stage(&job, "keys").await;
    let during = inhibitors();
    assert!(during.contains("keywrightd") && during.contains("delay"), "{during}");
    let _sleep = Sleep::with("/bin/sh -c 'keywrightctl keys >/run/keys-asleep 2>&1'");
    system::run("rm -f /run/keys-asleep; systemctl suspend");
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    system::run("until [ -s /run/keys-asleep ]; do sleep 0.1; done");
    let asleep = fs::read_to_string("/run/keys-asleep").unwrap();
    let made = asleep.lines().any(|line| line.starts_with("Sub ") && line.contains(" sub "));
    assert!(made, "the suspend came after the Key was made:\n{asleep}");
    // The daemon closes a descriptor; logind notices that with a delay.
    system::run("while systemd-inhibit --list --no-pager | grep -q keywrightd; do sleep 0.1; done");
}

pub async fn daemon_works_after_a_suspend() {
    let (mut machine, master) = Machine::with_master().await;
    let sleep = Sleep::with("/bin/true");
    let process = system::unit("MainPID");
    let signals = "busctl --system --match=\"type='signal',member='PrepareForSleep'\" monitor";
    // Wait until logind has announced the end of the sleep.
    system::run(&format!(
        "(timeout 60 {signals} >/run/sleeps) & until [ -s /run/sleeps ] || ! sleep 0.1; do \
         [ -e /run/asked ] || systemctl suspend; touch /run/asked; done; \
         until grep -q 'BOOLEAN false' /run/sleeps; do sleep 0.1; done; kill %1; rm /run/asked"
    ));
    drop(sleep);
    assert_eq!(system::unit("MainPID"), process);
    let blank = machine.plug("blank").await;
    machine.make(&master, &blank, &Answers::sub("Sub", &[])).await;
}
