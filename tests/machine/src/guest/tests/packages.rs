//! Tests of the packages: the installed files, upgrade, removal and purge. They run last and reinstall the packages.

use std::path::Path;

use crate::{
    install,
    machine::{self, Machine, STATE},
    system::{self, UNIT},
    vhci,
};

pub async fn installed_files_pass_check_deb() {
    machine::reset();
    let said = system::run("/payload/systemd/check-deb --installed");
    assert!(said.contains("exposure"), "{said}");
    let mode = system::run(&format!("stat --format='%U %G %a' {STATE}"));
    assert_eq!(mode.trim(), "keywright keywright 700");
}

/// Holds for the packaged program. If it fails, /proc/PID/smaps tells which mapping grew.
pub async fn idle_daemon_holds_at_most_7_mb() {
    let _machine = Machine::start().await;
    // With this file a debug build replaces the packaged program.
    if Path::new("/payload/keywrightd").exists() {
        return;
    }
    let process = system::unit("MainPID");
    let held = system::run(&format!("awk '/^Pss:/ {{ print $2 }}' /proc/{process}/smaps_rollup"));
    let kib: u32 = held.trim().parse().unwrap();
    assert!(kib <= 7 * 1000 * 1000 / 1024, "PSS is {kib} KiB");
}

pub async fn upgrade_restarts_a_running_daemon_and_keeps_its_state() {
    let machine = Machine::with_absent_master().await;
    let before = system::unit("MainPID");
    install::install();
    machine.until_owned_by_another(&before).await;
    let manager = machine.client.manager().await;
    let (keys, _) = manager.list_keys(Default::default(), "", 10).await.unwrap();
    assert_eq!(keys.len(), 1, "the Master is known");

    // An upgrade does not start a stopped daemon.
    system::run(&format!("systemctl stop {UNIT}"));
    install::install();
    assert_eq!(system::unit("ActiveState"), "inactive");
}

pub async fn removal_keeps_the_state_and_purge_deletes_it() {
    let _machine = Machine::with_absent_master().await;
    system::run("dpkg --remove keywrightd keywrightctl");
    assert!(Path::new(STATE).join("registry").exists());
    let active = system::sh(&format!("systemctl is-active {UNIT}"));
    assert!(!active.status.success(), "the daemon is stopped");
    system::run("dpkg --purge keywrightd keywrightctl keywright-lockd");
    for left in [
        STATE,
        "/var/lib/keywright-lock",
        "/etc/keywright",
        "/usr/libexec/keywrightd",
        "/usr/bin/keywrightctl",
        "/usr/libexec/keywright-lockd",
        "/lib/systemd/system/keywrightd.service",
        "/lib/udev/rules.d/70-keywright.rules",
    ] {
        assert!(!Path::new(left).exists(), "{left} is left");
    }
    for user in ["keywright", "keywright-lock"] {
        assert!(!system::sh(&format!("getent passwd {user}")).status.success(), "{user} is gone");
    }
    let call =
        system::sh("busctl call org.keywright1 /org/keywright1 org.freedesktop.DBus.Peer Ping");
    assert!(!call.status.success(), "the daemon is gone");
    install::install();
}

/// A device node that exists belongs to the daemon once it is installed, and to root once it is removed.
pub async fn device_node_owner_follows_install_and_removal() {
    let mut machine = Machine::start().await;
    let key = machine.plug("1").await;
    machine.until_state(&key.path, "blank").await;
    let node = vhci::node(key.key.port);
    let owner = || system::run(&format!("stat --format=%U {node}")).trim().to_owned();
    assert_eq!(owner(), "keywright");
    system::run("dpkg --remove keywrightd keywrightctl && udevadm settle");
    assert_eq!(owner(), "root");
    system::run("dpkg --purge keywrightd keywrightctl keywright-lockd");

    install::install();
    machine.until_owned().await;
    let key = machine.until_shown("1", key.key).await;
    machine.until_state(&key.path, "blank").await;
    assert_eq!(owner(), "keywright");
    assert_eq!(system::unit("NRestarts"), "0", "it can own its name at the first start");
}
