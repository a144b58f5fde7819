//! Suspends, as logind makes them; the last step, which would stop the machine, is taken out.

use keywright_bus_tests::{Answers, Objects};

use crate::{machine::Machine, system};

const SUSPEND: &str = "/run/systemd/system/systemd-suspend.service.d";

/// Who keeps the machine from sleeping, as logind has it.
fn inhibitors() -> String {
    system::run("systemd-inhibit --list --no-pager --no-legend")
}

pub async fn a_suspend_is_put_off_only_while_a_key_is_written() {
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
    machine.finish(&job, &answers).await;
    machine.until_state(&blank.path, "sub").await;
    // It closes a descriptor, which logind sees in its own time.
    system::run("while systemd-inhibit --list --no-pager | grep -q keywrightd; do sleep 0.1; done");
}

pub async fn after_a_suspend_everything_is_as_before() {
    let (mut machine, master) = Machine::with_master().await;
    system::run(&format!("mkdir -p {SUSPEND}"));
    std::fs::write(format!("{SUSPEND}/test.conf"), "[Service]\nExecStart=\nExecStart=/bin/true\n")
        .unwrap();
    system::run("systemctl daemon-reload");
    let process = system::unit("MainPID");
    let signals = "busctl --system --match=\"type='signal',member='PrepareForSleep'\" monitor";
    // Until it has said that the sleep is over.
    system::run(&format!(
        "(timeout 60 {signals} >/run/sleeps) & until [ -s /run/sleeps ] || ! sleep 0.1; do \
         [ -e /run/asked ] || systemctl suspend; touch /run/asked; done; \
         until grep -q 'BOOLEAN false' /run/sleeps; do sleep 0.1; done; kill %1; rm /run/asked"
    ));
    system::run(&format!("rm -r {SUSPEND} && systemctl daemon-reload"));
    assert_eq!(system::unit("MainPID"), process);
    let blank = machine.plug("blank").await;
    machine.make(&master, &blank, &Answers::sub("Sub", &[])).await;
}
