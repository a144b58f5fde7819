//! Suspends, as logind makes them; the last step, which would stop the machine, is taken out.

use std::fs;

use keywright_bus_tests::{Answers, Objects};

use crate::{machine::Machine, system};

const SUSPEND: &str = "/run/systemd/system/systemd-suspend.service.d";
const LOGIND: &str = "/run/systemd/logind.conf.d";

/// What is done instead of sleeping; as before when it is dropped.
struct Sleep;

impl Sleep {
    fn is(command: &str) -> Self {
        system::run(&format!("mkdir -p {SUSPEND} {LOGIND}"));
        let service = format!("[Service]\nExecStart=\nExecStart={command}\n");
        fs::write(format!("{SUSPEND}/test.conf"), service).unwrap();
        // Emulation is slow: by default it waits for nobody longer than 5 s.
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

/// Who keeps the machine from sleeping, as logind has it.
fn inhibitors() -> String {
    system::run("systemd-inhibit --list --no-pager --no-legend")
}

pub async fn suspend_is_delayed_only_during_a_write() {
    let (mut machine, master) = Machine::with_master().await;
    // Long enough that the list is read in between.
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
    let generating =
        |objects: &Objects| (objects.serialization(&job)?.text("Stage") == "keys").then_some(());
    machine.watch.until("keys generated", generating).await;
    let during = inhibitors();
    assert!(during.contains("keywrightd") && during.contains("delay"), "{during}");
    let _sleep = Sleep::is("/bin/sh -c 'keywrightctl keys >/run/keys-asleep 2>&1'");
    system::run("rm -f /run/keys-asleep; systemctl suspend");
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    system::run("until [ -s /run/keys-asleep ]; do sleep 0.1; done");
    let asleep = fs::read_to_string("/run/keys-asleep").unwrap();
    let made = asleep.lines().any(|line| line.starts_with("Sub ") && line.contains(" sub "));
    assert!(made, "it slept when the Key was made:\n{asleep}");
    // It closes a descriptor, which logind sees in its own time.
    system::run("while systemd-inhibit --list --no-pager | grep -q keywrightd; do sleep 0.1; done");
}

pub async fn daemon_works_after_a_suspend() {
    let (mut machine, master) = Machine::with_master().await;
    let sleep = Sleep::is("/bin/true");
    let process = system::unit("MainPID");
    let signals = "busctl --system --match=\"type='signal',member='PrepareForSleep'\" monitor";
    // Until it has said that the sleep is over.
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
