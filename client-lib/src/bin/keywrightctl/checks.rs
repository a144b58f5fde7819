//! The checks of `doctor`: each is a pure function of the collected facts, independent of the others.

use std::iter;

use keywright_client::{
    ErrorName, Key, State, bus,
    model::{KeyState, PinState},
};
use serde::Serialize;

use crate::{
    installed::{Installed, REINSTALL},
    machine_checks,
    usb::Token,
    watch,
};

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// In order.
    Ok,
    /// Works, but needs attention.
    Warn,
    /// Does not work.
    Fail,
}

/// One result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// The result.
    pub result: Health,
    /// What is wrong or in order.
    pub text: String,
    /// A command, or what to do by hand; empty if nothing is to be done. `--json` calls it `mend`.
    #[serde(rename = "mend")]
    pub fix: String,
}

/// The collected facts; None if a fact was not asked for. Errors are texts for people.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the bus can be reached.
    pub bus: Option<Result<(), String>>,
    /// The daemon's version.
    pub version: Option<Result<String, String>>,
    /// Whether the bus can start the daemon.
    pub activatable: bool,
    /// The polkit actions that are registered; None on a bus without polkit.
    pub polkit: Option<Result<Vec<String>, String>>,
    /// The daemon's state.
    pub state: Option<State>,
    /// Where a damaged registry was set aside, if nobody has acknowledged it.
    pub lost_registry: Option<String>,
    /// The daemon's unit; only on the system bus.
    pub unit: Option<Unit>,
    /// The installed files; only on the system bus.
    pub installed: Option<Installed>,
    /// The tokens plugged in here; only on the system bus.
    pub tokens: Option<Vec<Token>>,
}

/// State of the unit in systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`…
    pub load: String,
    /// `active`, `inactive`, `failed`…
    pub active: String,
}

type Check = fn(&Facts) -> Vec<Finding>;

/// All checks, in the order of the output.
pub const CHECKS: &[Check] = &[
    bus_reachable,
    daemon_answers,
    machine_checks::files,
    machine_checks::state_directory,
    lost_registry,
    polkit,
    machine_checks::tokens,
    keys,
    pins,
    decisions,
];

/// Builds a finding.
pub fn finding(
    check: &'static str,
    result: Health,
    text: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding { check, result, text: text.into(), fix: fix.into() }
}

fn bus_reachable(facts: &Facts) -> Vec<Finding> {
    match &facts.bus {
        Some(Ok(())) => vec![finding("bus", Health::Ok, "the bus can be reached", "")],
        Some(Err(text)) => {
            vec![finding("bus", Health::Fail, text, "systemctl status dbus.service")]
        }
        None => Vec::new(),
    }
}

fn lost_registry(facts: &Facts) -> Vec<Finding> {
    let lost = facts.lost_registry.as_ref().map(|path| {
        finding(
            "registry",
            Health::Fail,
            format!("a damaged registry was set aside in {path}: revocations may be unknown, nothing is signed"),
            "import what another station exported: keywrightctl family import FILE (add a Lock with the family's Master \
             Key first, which proves the family); then: keywrightctl registry acknowledge",
        )
    });
    lost.into_iter().collect()
}

fn daemon_answers(facts: &Facts) -> Vec<Finding> {
    match &facts.version {
        Some(Ok(version)) => {
            let text = format!("keywrightd {version} answers");
            let mut findings = vec![finding("daemon", Health::Ok, text, "")];
            if !facts.activatable {
                findings.push(finding(
                    "daemon",
                    Health::Warn,
                    "the bus cannot start it on demand",
                    "install the package keywrightd, or org.keywright1.service from systemd/",
                ));
            }
            findings
        }
        Some(Err(text)) => {
            vec![finding("daemon", Health::Fail, text, start(facts.unit.as_ref()))]
        }
        None => Vec::new(),
    }
}

/// Command that starts a daemon that does not answer.
fn start(unit: Option<&Unit>) -> &'static str {
    match unit.map(|unit| (unit.load.as_str(), unit.active.as_str())) {
        Some(("not-found", _)) => "sudo apt install ./keywrightd_*.deb",
        Some(("masked", _)) => "sudo systemctl unmask keywrightd.service",
        Some((_, "failed")) => {
            "journalctl -u keywrightd.service -n 20; fix what it reports, then: sudo systemctl restart keywrightd.service"
        }
        Some((_, "active" | "activating" | "deactivating" | "reloading")) => {
            "sudo systemctl restart keywrightd.service"
        }
        Some(_) => "sudo systemctl start keywrightd.service",
        None => "systemctl status keywrightd.service",
    }
}

fn polkit(facts: &Facts) -> Vec<Finding> {
    use bus::action::{INSPECT, MANAGE_KEYS, MANAGE_LOCKS, SERIALIZE};
    match &facts.polkit {
        None => Vec::new(),
        Some(Err(text)) => {
            let text = format!("polkit does not answer, so the daemon denies every call: {text}");
            let fix = "sudo apt install polkitd; sudo systemctl unmask polkit.service; sudo systemctl start polkit.service";
            vec![finding("polkit", Health::Fail, text, fix)]
        }
        Some(Ok(known)) => {
            let missing: Vec<&str> = [INSPECT, SERIALIZE, MANAGE_KEYS, MANAGE_LOCKS]
                .into_iter()
                .filter(|action| !known.iter().any(|name| name == action))
                .collect();
            if missing.is_empty() {
                return vec![finding("polkit", Health::Ok, "polkit knows every action", "")];
            }
            let text = format!("polkit does not know {}", missing.join(", "));
            vec![finding("polkit", Health::Fail, text, REINSTALL)]
        }
    }
}

/// The Keys that are plugged in.
fn present(facts: &Facts) -> impl Iterator<Item = &Key> {
    facts.state.iter().flat_map(|state| state.keys.values()).filter(|key| key.present)
}

fn keys(facts: &Facts) -> Vec<Finding> {
    if facts.state.is_some() && present(facts).next().is_none() {
        let fix = "plug one in; if it does not appear, check with lsusb and pcsc_scan";
        return vec![finding("key", Health::Ok, "no Key is plugged in", fix)];
    }
    present(facts).flat_map(|found| iter::once(key(found)).chain(authorized(found))).collect()
}

/// Warns about a token that stays authorized until it is unplugged.
fn authorized(key: &Key) -> Option<Finding> {
    let text =
        format!("{} is still authorized; any program that can open it could use it", key.label());
    let fix = "unplug it and plug it in again";
    key.authorized.then(|| finding("key", Health::Warn, text, fix))
}

fn key(key: &Key) -> Finding {
    let label = key.label();
    let (result, text, fix) = match key.state.known() {
        Some(KeyState::Blank) => (Health::Ok, "blank", "keywrightctl wizard"),
        Some(KeyState::Master | KeyState::Backup) if key.locks + key.pending_locks == 0 => {
            (Health::Warn, "has no Lock yet, so it gets no offers", "keywrightctl lock add")
        }
        Some(KeyState::Master | KeyState::Backup) => (Health::Ok, "can make Keys", ""),
        Some(KeyState::Sub) => (Health::Ok, "may access its Locks", ""),
        Some(KeyState::Foreign) => (
            Health::Warn,
            "is in use for something else and is never overwritten",
            "use another token, or reset its PIV application with the vendor's tool",
        ),
        Some(KeyState::Revoked) => (Health::Warn, "was revoked for good", "use another token"),
        Some(KeyState::Unusable) => (
            Health::Fail,
            "cannot be used",
            match key.trouble.as_ref().and_then(|trouble| trouble.error) {
                Some(ErrorName::KeyBusy) => "sudo keywrightctl doctor",
                _ => "plug it in again, or use another token",
            },
        ),
        None => {
            (Health::Warn, "is in a state that this program does not know", "update keywrightctl")
        }
    };
    let mut text = format!("{label} ({}) {text}", key.kind());
    if let Some(trouble) = &key.trouble {
        text = format!("{text}: {}", trouble.text);
    }
    if key.state == KeyState::Blank {
        text = format!("{label} can be made into a Key");
    }
    finding("key", result, text, fix)
}

fn pins(facts: &Facts) -> Vec<Finding> {
    let ours = |key: &&Key| key.state != KeyState::Foreign && key.state != KeyState::Unusable;
    present(facts).filter(ours).filter_map(pin).collect()
}

fn pin(key: &Key) -> Option<Finding> {
    let label = key.label();
    let name = if key.id.is_empty() { &key.path } else { &key.id };
    let is_blank = key.state == KeyState::Blank;
    let (result, text, fix) = match (key.pin.known(), key.pin_retries) {
        (Some(PinState::Blocked), _) | (_, 0) => (
            Health::Fail,
            format!("the PIN of {label} is blocked"),
            format!("keywrightctl key unblock {name}"),
        ),
        // A blank Key gets a new PIN when it is made.
        (Some(PinState::Default), _) if !is_blank => (
            Health::Fail,
            format!("{label} has its factory PIN: anybody who has it can use it"),
            format!("keywrightctl key pin {name}"),
        ),
        (_, 1) => (
            Health::Warn,
            format!("{label} has one PIN try left before it is blocked"),
            "plug it in again and enter the right PIN".into(),
        ),
        _ => return None,
    };
    Some(finding("pin", result, text, fix))
}

/// Explains why a pair has no offer: nothing is wrong, but a person may be waiting for one.
fn decisions(facts: &Facts) -> Vec<Finding> {
    let of = |state: &State| -> Vec<Finding> {
        let rows = state.decisions.iter();
        rows.map(|row| finding("decision", Health::Ok, watch::decision(state, row), "")).collect()
    };
    facts.state.as_ref().map(of).unwrap_or_default()
}

#[cfg(test)]
pub mod tests {
    use keywright_client::KeyRow;

    use keywright_client::Word;

    use super::*;

    fn here(role: &str) -> Key {
        let row = KeyRow {
            id: "ab".repeat(16),
            name: "K".into(),
            role: role.parse().ok(),
            family: "f".into(),
            last_seen: 1,
        };
        let mut key = Key::from_row(&row);
        key.state = role.into();
        key.path = "/k".into();
        key.present = true;
        key.pin = Word::Known(PinState::Set);
        key.pin_retries = 3;
        key.locks = 1;
        key
    }

    /// A blank Key in this port.
    pub fn one_key(port: &str) -> State {
        let mut key = here("blank");
        key.port = port.into();
        let mut state = State::default();
        state.keys.insert(key.path.clone(), key);
        state
    }

    fn with(key: Key) -> Facts {
        let mut state = State::default();
        state.keys.insert(key.path.clone(), key);
        Facts { state: Some(state), ..Facts::default() }
    }

    fn worst(findings: &[Finding]) -> (Health, String) {
        let worst = findings.iter().max_by_key(|finding| finding.result as u8).unwrap();
        (worst.result, worst.fix.clone())
    }

    #[test]
    fn every_key_state_has_a_health_and_a_fix() {
        for (state, health, fix) in [
            ("blank", Health::Ok, "wizard"),
            ("master", Health::Ok, ""),
            ("backup", Health::Ok, ""),
            ("sub", Health::Ok, ""),
            ("foreign", Health::Warn, "another"),
            ("revoked", Health::Warn, "another"),
            ("unusable", Health::Fail, "another"),
            ("new-word", Health::Warn, "update"),
        ] {
            let (found, step) = worst(&keys(&with(here(state))));
            assert_eq!(found, health, "{state}");
            assert!(step.contains(fix), "{state}: {step}");
        }
    }

    #[test]
    fn lost_registry_fails_until_it_is_acknowledged() {
        let lost =
            Facts { lost_registry: Some("/v/registry.damaged-1".into()), ..Facts::default() };
        let findings = lost_registry(&lost);
        let (health, fix) = worst(&findings);
        assert_eq!(health, Health::Fail);
        assert!(fix.contains("family import") && fix.contains("registry acknowledge"), "{fix}");
        assert!(findings[0].text.contains("/v/registry.damaged-1"), "{}", findings[0].text);
        assert!(lost_registry(&Facts::default()).is_empty());
    }

    #[test]
    fn issuer_without_a_lock_and_authorized_key_are_warned_about() {
        let mut key = here("master");
        key.locks = 0;
        assert_eq!(worst(&keys(&with(key.clone()))).0, Health::Warn);
        key.pending_locks = 1;
        assert_eq!(worst(&keys(&with(key.clone()))).0, Health::Ok);
        key.authorized = true;
        assert!(worst(&keys(&with(key))).1.contains("plug"));
    }

    #[test]
    fn weak_and_blocked_pins_are_reported() {
        for (role, pin, retries, health) in [
            ("sub", PinState::Set, 3, None),
            ("sub", PinState::Set, 1, Some(Health::Warn)),
            ("sub", PinState::Set, 0, Some(Health::Fail)),
            ("sub", PinState::Blocked, -1, Some(Health::Fail)),
            ("sub", PinState::Default, 3, Some(Health::Fail)),
            ("blank", PinState::Default, 3, None),
            ("foreign", PinState::Blocked, 0, None),
        ] {
            let mut key = here(role);
            (key.pin, key.pin_retries) = (Word::Known(pin), retries);
            let found = pins(&with(key)).first().map(|finding| finding.result);
            assert_eq!(found, health, "{role} {pin} {retries}");
        }
    }

    #[test]
    fn station_problems_are_reported_with_their_fix() {
        use bus::action::{INSPECT, MANAGE_KEYS, MANAGE_LOCKS, SERIALIZE};
        let all = [INSPECT, SERIALIZE, MANAGE_KEYS, MANAGE_LOCKS].map(String::from).to_vec();
        let facts = |polkit| Facts { polkit: Some(polkit), ..Facts::default() };
        assert_eq!(worst(&polkit(&facts(Ok(all.clone())))).0, Health::Ok);
        assert_eq!(worst(&polkit(&facts(Ok(all[1..].to_vec())))).0, Health::Fail);
        assert_eq!(worst(&polkit(&facts(Err("no".into())))).0, Health::Fail);
        assert!(polkit(&Facts::default()).is_empty());

        let version = |version, activatable| Facts {
            version: Some(version),
            activatable,
            ..Facts::default()
        };
        assert_eq!(worst(&daemon_answers(&version(Ok("1".into()), true))).0, Health::Ok);
        assert_eq!(worst(&daemon_answers(&version(Ok("1".into()), false))).0, Health::Warn);
        assert_eq!(worst(&daemon_answers(&version(Err("no".into()), true))).0, Health::Fail);
        for (load, active, fix) in [
            ("not-found", "inactive", "apt install"),
            ("masked", "inactive", "unmask"),
            ("loaded", "failed", "journalctl"),
            ("loaded", "active", "restart"),
            ("loaded", "inactive", "start"),
        ] {
            let unit = Some(Unit { load: load.into(), active: active.into() });
            let (health, found) =
                worst(&daemon_answers(&Facts { unit, ..version(Err("no".into()), true) }));
            assert_eq!(health, Health::Fail);
            assert!(found.contains(fix), "{load} {active}: {found}");
        }
        let lost = Facts { bus: Some(Err("no".into())), ..Facts::default() };
        assert_eq!(worst(&bus_reachable(&lost)).0, Health::Fail);
    }
}
