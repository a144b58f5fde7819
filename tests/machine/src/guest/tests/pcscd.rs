//! Tests of Keys that pcscd holds: the daemon uses them through pcscd, beside other programs.

use std::fs;

use keywright_bus_tests::{Answers, pins::PIN};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

use super::other_programs::stop_pcscd;
use crate::{
    machine::{MASTER, Machine, Plugged},
    system, vhci,
};

/// OpenSC's PKCS#11 module.
pub const MODULE: &str = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";

/// A running pcscd with a connected client, as on a desktop; pcscd is stopped when this is dropped.
pub(super) struct PcscdSession {
    process: String,
    _client: Context,
}

impl PcscdSession {
    pub(super) fn start() -> Self {
        system::run("systemctl start pcscd.service");
        Self { process: pcscd(), _client: Context::establish(Scope::System).unwrap() }
    }

    /// Asserts that pcscd was not restarted and holds this Key.
    pub(super) fn assert_holds(&self, key: &Plugged) {
        assert_eq!(pcscd(), self.process, "pcscd was not restarted");
        assert!(is_claimed(key.key.port), "pcscd holds the Key");
    }
}

impl Drop for PcscdSession {
    fn drop(&mut self) {
        stop_pcscd();
    }
}

fn pcscd() -> String {
    system::run("systemctl show --value --property=MainPID pcscd.service").trim().to_owned()
}

/// Whether a program has claimed the Key's USB interface; between jobs that is pcscd.
fn is_claimed(port: usize) -> bool {
    let device = vhci::device_name(port);
    fs::exists(format!("/sys/bus/usb/devices/{device}/{device}:1.0/driver")).unwrap()
}

/// Number of readers with a card, as OpenSC lists them.
pub(super) fn cards() -> usize {
    let list = system::run("opensc-tool --list-readers");
    list.lines().filter(|line| line.split_whitespace().nth(1) == Some("Yes")).count()
}

pub async fn key_is_usable_by_the_daemon_and_pcscd_at_once() {
    let mut machine = Machine::with_absent_master().await;
    let session = PcscdSession::start();
    for _ in 0..3 {
        let master = machine.plug(MASTER).await;
        machine.until_state(&master.path, "master").await;
        session.assert_holds(&master);
        assert_eq!(cards(), 1, "pcscd sees the Key");
        machine.unplug(master).await;
    }
}

/// pcscd initialises one reader after the other.
pub async fn two_keys_are_usable_by_the_daemon_and_pcscd_at_once() {
    let mut machine = Machine::with_absent_master().await;
    let session = PcscdSession::start();
    for n in 0..3 {
        let name = format!("blank {n}");
        let (master, blank) = (machine.insert(MASTER, &[]), machine.insert(&name, &[]));
        machine.until_present("master").await;
        machine.until_present("blank").await;
        let master = machine.until_shown(MASTER, master).await;
        let blank = machine.until_shown(&name, blank).await;
        session.assert_holds(&master);
        session.assert_holds(&blank);
        assert_eq!(cards(), 2, "pcscd sees both Keys");
        machine.unplug(master).await;
        machine.unplug(blank).await;
    }
}

pub async fn identical_keys_in_pcscd_are_never_confused() {
    let (mut machine, master) = Machine::with_master().await;
    let session = PcscdSession::start();
    let twins = ["--usb-serial", "0001"];
    let a = machine.plug_with("a", &twins).await;
    let b = machine.plug_with("b", &twins).await;
    machine.make(&master, &b, &Answers::sub("B", &[])).await;
    session.assert_holds(&b);
    let (a_path, b_path) = (machine.unplug(a).await, machine.unplug(b).await);
    let b = machine.plug_with("b", &twins).await;
    machine.until_state(&b.path, "sub").await;
    assert_eq!(b.path, b_path);
    let a = machine.plug_with("a", &twins).await;
    machine.until_state(&a.path, "blank").await;
    assert_ne!(a_path, b_path);
    machine.make(&master, &a, &Answers::sub("A", &[])).await;
}

pub async fn exclusively_connected_reader_is_busy_until_released() {
    let mut machine = Machine::with_absent_master().await;
    let session = PcscdSession::start();
    let master = machine.plug(MASTER).await;
    machine.until_state(&master.path, "master").await;
    session.assert_holds(&master);
    // Then the daemon has read everything and released the Key.
    machine.until_all_tries_left(&master.path).await;
    let context = Context::establish(Scope::System).unwrap();
    let reader = context.list_readers_owned().unwrap().remove(0);
    let kept = context.connect(&reader, ShareMode::Exclusive, Protocols::ANY).unwrap();
    let text = machine.add_lock_while_busy(&master).await;
    assert!(text.contains("pcscd"), "{text}");
    kept.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    machine.add_lock(&master, "barn").await;

    // A Key that is held exclusively at its plug is used once it is released.
    let path = machine.unplug(master).await;
    system::run(
        "systemctl stop keywrightd.service && systemctl mask --quiet --runtime keywrightd.service",
    );
    let key = machine.insert(MASTER, &[]);
    system::run("opensc-tool --wait --name");
    let kept = context.connect(&reader, ShareMode::Exclusive, Protocols::ANY).unwrap();
    system::run("systemctl unmask --quiet --runtime keywrightd.service");
    machine.start_daemon();
    let held = machine.until_shown(MASTER, key).await;
    machine.until_state(&held.path, "unusable").await;
    kept.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    machine.until_state(&path, "master").await;
}

/// An agent with OpenSC's PKCS#11 module keeps a session open and its PIN verified.
pub async fn ssh_agent_signs_before_and_after_a_job() {
    let (mut machine, master) = Machine::with_master().await;
    let session = PcscdSession::start();
    let sub = machine.plug("sub").await;
    machine.make(&master, &sub, &Answers::sub("Sub", &[])).await;
    let dir = "/run/agent";
    system::run(&format!(
        "rm -rf {dir}; mkdir {dir}; \
         ssh-agent -a {dir}/socket -P '/usr/lib/*' >/dev/null"
    ));
    let (agent, askpass) = (format!("export SSH_AUTH_SOCK={dir}/socket"), system::askpass(PIN));
    // The Master has a certificate too, but only the Sub Key's is to be used.
    machine.unplug(master).await;
    system::run(&format!(
        "{agent}; DISPLAY=:0 SSH_ASKPASS={askpass} SSH_ASKPASS_REQUIRE=force ssh-add -s {MODULE} </dev/null"
    ));
    let sign = || {
        system::run(&format!(
            "{agent}; cd {dir}; ssh-add -L | head -n 1 >key.pub; rm -f text.sig; echo text >text; \
             ssh-keygen -Y sign -f key.pub -n test text; \
             ssh-keygen -Y check-novalidate -n test -s text.sig <text"
        ))
    };
    assert!(sign().contains("Good"), "before");
    let master = machine.plug(MASTER).await;
    machine.until_state(&master.path, "master").await;
    let job = machine.offer(&master, &sub).await;
    let mut answers = Answers::sub("Sub", &[]);
    answers.pins.candidate = PIN.into();
    machine.finish(&job, &answers).await;
    machine.until_all_tries_left(&sub.path).await;
    assert!(sign().contains("Good"), "after");
    session.assert_holds(&sub);
    system::run(&format!(
        "{agent}; ssh-add -k >/dev/null 2>&1; ssh-agent -k >/dev/null 2>&1 || pkill ssh-agent"
    ));
}
