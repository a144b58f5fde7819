//! Tests that `keywrightctl doctor` finds what is wrong with the machine and prints a command that fixes it.

use std::time::{Duration, Instant};

use keywright_bus_tests::{Objects, pins};
use keywright_virtual_key::usb::{
    Answer,
    descriptors::{BULK_IN, BULK_OUT, bulk, ccid, interface, interrupt},
};

use crate::{
    device::{Inserted, Scripted},
    install,
    machine::{self, MASTER, Machine, STATE},
    system::{self, Broken},
    vhci,
};

/// Longer than any fix takes to be noticed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `doctor`; returns result, text and fix of each finding.
fn findings() -> Vec<[String; 3]> {
    let output = system::sh("keywrightctl doctor");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<[String; 3]> = Vec::new();
    for line in text.lines() {
        match (line.trim_start().strip_prefix("-> "), found.last_mut()) {
            (Some(mend), Some(last)) => last[2] = mend.into(),
            _ => {
                let (word, what) = line.split_once(' ').unwrap();
                found.push([word.into(), what.trim().into(), String::new()]);
            }
        }
    }
    let failed = found.iter().any(|[word, ..]| word == "FAIL");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{text}");
    found
}

/// Asserts a failure with this text and fix.
#[track_caller]
fn assert_fails(found: &[[String; 3]], what: &str, mend: &str) {
    assert_found(found, "FAIL", what, mend);
}

/// Asserts a warning with this text and fix.
#[track_caller]
fn assert_warns(found: &[[String; 3]], what: &str, mend: &str) {
    assert_found(found, "warn", what, mend);
}

#[track_caller]
fn assert_found(found: &[[String; 3]], health: &str, what: &str, mend: &str) {
    let said = found.iter().any(|[word, text, command]| {
        word == health && text.contains(what) && command.contains(mend)
    });
    assert!(said, "{health} {what:?} with {mend:?} is not in {found:#?}");
}

pub async fn healthy_machine_has_no_finding() {
    let mut machine = Machine::start().await;
    let key = machine.plug("1").await;
    machine.until_state(&key.path, "blank").await;
    let found = findings();
    assert!(!found.iter().any(|[word, ..]| word != "ok"), "{found:#?}");
}

/// Breaks something, asserts that `doctor` finds it, runs the printed fix, and asserts that it is gone.
fn assert_fixed_by_its_command(breaks: &str, puts_back: &'static str, what: &str, command: &str) {
    let _broken = Broken::with(breaks, puts_back);
    let found = findings();
    assert_fails(&found, what, command);
    let said = found.iter().filter(|[word, text, _]| word == "FAIL" && text.contains(what));
    for [_, text, mend] in said {
        // The tests run as root, in the directory of the packages.
        let mend = mend.replace("sudo ", "");
        system::run(&format!(
            "cd /payload/packages && export DEBIAN_FRONTEND=noninteractive && {mend}"
        ));
        let left = || findings().iter().any(|[word, now, _]| word == "FAIL" && now == text);
        // The bus and polkit reload their files with a short delay.
        let begun = Instant::now();
        while left() {
            assert!(begun.elapsed() < PATIENCE, "{mend} does not fix: {text}");
        }
    }
    install::overlay_debug_programs();
}

pub async fn masked_daemon_is_found_and_fixed() {
    machine::reset();
    assert_fixed_by_its_command(
        "systemctl mask --quiet keywrightd",
        "systemctl unmask --quiet keywrightd",
        "",
        "systemctl unmask keywrightd.service",
    );
}

pub async fn masked_udev_rule_is_found_and_fixed() {
    machine::reset();
    assert_fixed_by_its_command(
        "ln -s /dev/null /etc/udev/rules.d/70-keywright.rules && udevadm control --reload",
        "rm -f /etc/udev/rules.d/70-keywright.rules; udevadm control --reload",
        "udev rule",
        "udevadm trigger",
    );
}

pub async fn missing_files_are_found_and_restored() {
    machine::reset();
    for (breaks, what) in [
        ("rm /lib/udev/rules.d/70-keywright.rules && udevadm control --reload", "udev rule"),
        ("rm /usr/share/dbus-1/system.d/org.keywright1.conf", "D-Bus policy org.keywright1.conf"),
        (
            "rm /usr/share/polkit-1/actions/org.keywright1.policy && systemctl restart polkit",
            "polkit does not know org.keywright1",
        ),
    ] {
        let puts_back = "test -e /lib/udev/rules.d/70-keywright.rules -a -e /usr/share/polkit-1/actions/org.keywright1.policy \
            -a -e /usr/share/dbus-1/system.d/org.keywright1.conf || dpkg --install /payload/packages/keywrightd_*.deb; \
            systemctl reset-failed keywrightd";
        assert_fixed_by_its_command(breaks, puts_back, what, "apt install --reinstall");
    }
}

pub async fn missing_group_is_found_and_created() {
    machine::reset();
    assert_fixed_by_its_command(
        "cp -a /etc/group /etc/gshadow /run/ && sed -i /^keywright:/d /etc/group /etc/gshadow",
        "cp -a /run/group /run/gshadow /etc/",
        "group keywright",
        "systemd-sysusers",
    );
}

pub async fn stopped_polkit_is_found_and_started() {
    machine::reset();
    assert_fixed_by_its_command(
        "systemctl mask --quiet --now polkit",
        "systemctl unmask --quiet polkit; systemctl start polkit",
        "polkit does not answer",
        "polkit.service",
    );
}

pub async fn full_or_read_only_state_directory_is_found() {
    machine::reset();
    let mount = format!("mount -t tmpfs -o size=256k,mode=700,uid=keywright none {STATE}");
    let unmount =
        "systemctl stop keywrightd; umount /var/lib/keywright; systemctl reset-failed keywrightd";
    let _broken = Broken::with(&format!("{mount} && mount -o remount,ro {STATE}"), unmount);
    // One test for both, because each run waits for a daemon that does not start.
    let found = findings();
    for (what, mend) in [("is full", "df -h"), ("read-only", "remount,rw")] {
        assert_fails(&found, what, mend);
    }
}

pub async fn damaged_registry_is_found() {
    let machine = Machine::with_absent_master().await;
    system::run("systemctl stop keywrightd");
    // Overwrites every record.
    system::run(&format!("dd if=/dev/urandom of={STATE}/registry/db bs=64k count=4 conv=notrunc"));
    system::sh("systemctl start keywrightd; systemctl reset-failed keywrightd");
    assert_fails(&findings(), "damaged registry", "family import");
    system::run("keywrightctl registry acknowledge --yes");
    let found = findings();
    assert!(!found.iter().any(|[.., mend]| mend.contains("registry acknowledge")), "{found:#?}");
    drop(machine);
}

pub async fn key_held_by_another_program_is_found() {
    let mut machine = Machine::start().await;
    let key = machine.plug("1").await;
    machine.until_state(&key.path, "blank").await;
    let _broken = Broken::with(
        "export GNUPGHOME=/run/gnupg-of-doctor; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME; \
         systemctl stop --quiet pcscd.service pcscd.socket; \
         gpg-connect-agent 'scd serialno undefined' /bye",
        "GNUPGHOME=/run/gnupg-of-doctor gpgconf --kill scdaemon gpg-agent",
    );
    assert_fails(&findings(), "is held by scdaemon (process ", "gpgconf --kill scdaemon");
}

/// A device with this interface that never answers.
fn device(name: &str, interface: Vec<u8>) -> Scripted {
    Scripted::new(name, &[interface], Box::new(|_| Answer::Nak))
}

pub async fn devices_that_cannot_be_keys_are_found() {
    let machine = Machine::start().await;
    assert_warns(&findings(), "no USB device with a CCID interface", "plug a Key in");

    // dwFeatures: exchanges TPDUs (CCID 1.1, 5.1).
    let mut tpdu = ccid(3072);
    tpdu[42] = 1;
    let reader = interface(0, [0x0B, 0, 0], &tpdu, &[bulk(BULK_OUT), bulk(BULK_IN)]);
    let reader = Inserted::plug(device("Desk Reader", reader));
    vhci::wait_until_there(reader.port);
    system::run("udevadm settle");
    let what = "Desk Reader at usb-";
    assert_warns(&findings(), what, "a reader that exchanges APDUs");
    drop(reader);

    // A FIDO-only token: HID with a report of the FIDO Alliance's usage page.
    let report = [0x06, 0xD0, 0xF1, 0x09, 0x01, 0xA1, 0x01, 0xC0];
    let length = u8::try_from(report.len()).unwrap();
    let hid = [9, 0x21, 0x11, 1, 0, 1, 0x22, length, 0];
    let mut token = device("Web Token", interface(0, [3, 0, 0], &hid, &[interrupt(0x82)]));
    token.report_descriptor = report.into();
    let token = Inserted::plug(token);
    vhci::wait_until_there(token.port);
    // Its driver is a module that udevd loads.
    system::run("modprobe usbhid && udevadm settle");
    assert_fails(&findings(), "Web Token at usb-", "switch CCID (smart card, PIV) on");
    drop((token, machine));
}

pub async fn factory_pin_is_found() {
    let mut machine = Machine::with_absent_master().await;
    let master = machine.plug_with(MASTER, &["--tells-factory-pin"]).await;
    let told =
        |objects: &Objects| (objects.key(&master.path)?.text("Pin") == "default").then_some(());
    machine.watch.until("what PIN it has", told).await;
    assert_fails(&findings(), "has its factory PIN", "keywrightctl key pin");
}

pub async fn last_try_and_blocked_pin_are_found() {
    let (mut machine, mut master) = Machine::with_master().await;
    let key = machine.client.key(&master.path).await;
    for wrong in ["111113", "222224"] {
        let change = key.change_pin(pins::pipe(wrong), pins::pipe("135791")).await;
        change.unwrap_err();
    }
    assert_warns(&findings(), "has one PIN try left", "enter the right PIN");
    machine.unplug(master).await;
    master = machine.plug(MASTER).await;
    machine.until_state(&master.path, "master").await;
    let key = machine.client.key(&master.path).await;
    key.change_pin(pins::pipe("333335"), pins::pipe("135791")).await.unwrap_err();
    assert_fails(&findings(), "is blocked", "keywrightctl key unblock");
}
