//! The checks of `doctor` on the machine: files, users, disks and USB devices. Pure functions of the collected facts.

use keywright_client::model::KeyState;

use crate::{
    checks::{Facts, Finding, Health, finding},
    installed::{Installed, REINSTALL, Rule, STATE_DIR, USER},
    usb::{ExchangeLevel, Holder, Token},
};

const TRIGGER: &str =
    "sudo udevadm control --reload; sudo udevadm trigger --settle --subsystem-match=usb";
/// Warn below this free space, in bytes. The daemon's commits need 2 MiB to stay free.
const MIN_FREE: u64 = 4 * 1024 * 1024;

/// Checks the packaged files; only on the system bus.
pub fn files(facts: &Facts) -> Vec<Finding> {
    let Some(found) = &facts.installed else { return Vec::new() };
    let mut findings = Vec::new();
    if !found.policy {
        let text = "the D-Bus policy org.keywright1.conf is missing, so the daemon cannot own its bus name";
        findings.push(finding("policy", Health::Fail, text, REINSTALL));
    }
    let rule = match &found.rule {
        Rule::Installed => None,
        Rule::Missing => Some(("is missing".into(), REINSTALL.into())),
        Rule::Masked(by) => {
            let by = by.display();
            Some((format!("is masked by {by}"), format!("sudo rm {by}; {TRIGGER}")))
        }
    };
    if let Some((how, fix)) = rule {
        let text =
            format!("the udev rule 70-keywright.rules {how}, so the daemon cannot open tokens");
        findings.push(finding("udev", Health::Fail, text, fix));
    }
    let missing = match (found.user, found.group) {
        (None, _) => Some("user"),
        (Some(_), false) => Some("group"),
        (Some(_), true) => None,
    };
    if let Some(missing) = missing {
        let text = format!("the {missing} {USER} is missing, so the daemon cannot start");
        findings.push(finding("user", Health::Fail, text, "sudo systemd-sysusers keywrightd.conf"));
    }
    if findings.is_empty() {
        findings.push(finding(
            "files",
            Health::Ok,
            "D-Bus policy, udev rule and user are installed",
            "",
        ));
    }
    findings
}

/// Checks the state directory.
pub fn state_directory(facts: &Facts) -> Vec<Finding> {
    let Some(Installed { state: Some(state), user, .. }) = &facts.installed else {
        return Vec::new();
    };
    let fail = |text: String, fix: String| finding("state", Health::Fail, text, fix);
    let mut findings = Vec::new();
    if state.read_only {
        let fix = format!(
            "sudo mount -o remount,rw \"$(findmnt -no TARGET --target {STATE_DIR})\"; if that fails: dmesg"
        );
        findings.push(fail(format!("{STATE_DIR} is on a read-only file system"), fix));
    }
    if state.free < MIN_FREE {
        let text = format!("the disk of {STATE_DIR} is full: {} KiB are free", state.free / 1024);
        findings.push(fail(text, format!("df -h {STATE_DIR}; free some disk space")));
    }
    if user.is_some_and(|user| user != state.owner) {
        let text = format!("{STATE_DIR} does not belong to {USER}");
        findings.push(fail(text, format!("sudo chown -R {USER}:{USER} {STATE_DIR}")));
    }
    findings
}

/// Checks the tokens on USB, whether or not the daemon shows them.
pub fn tokens(facts: &Facts) -> Vec<Finding> {
    let Some(tokens) = &facts.tokens else { return Vec::new() };
    if !tokens.iter().any(|token| token.level.is_some()) && tokens.is_empty() {
        let text = "no USB device with a CCID interface is plugged in";
        let fix = "plug a Key in; if one is plugged in, check with lsusb -v and switch CCID (smart card) on with the vendor's tool";
        return vec![finding("usb", Health::Warn, text, fix)];
    }
    let user = facts.installed.as_ref().and_then(|installed| installed.user);
    tokens
        .iter()
        .flat_map(|token| check_token(token, user, is_usable(facts, &token.port)))
        .collect()
}

/// Whether the daemon shows a usable Key in this port.
fn is_usable(facts: &Facts, port: &str) -> bool {
    let mut keys = facts.state.iter().flat_map(|state| state.keys.values());
    keys.any(|key| key.present && key.port == port && key.state != KeyState::Unusable)
}

fn check_token(token: &Token, user: Option<u32>, is_usable: bool) -> Vec<Finding> {
    let fail = |text: String, fix: String| finding("usb", Health::Fail, text, fix);
    let name = &token.name;
    let mut findings = Vec::new();
    match token.level {
        None => {
            let text = format!(
                "{name} is a security token without a CCID interface, so it cannot be a Key"
            );
            let fix = "switch CCID (smart card, PIV) on with the vendor's tool; on a YubiKey: ykman config usb --enable PIV";
            return vec![fail(text, fix.into())];
        }
        Some(ExchangeLevel::Apdu) => {}
        Some(ExchangeLevel::Tpdu | ExchangeLevel::Character) => {
            let kind =
                if token.level == Some(ExchangeLevel::Tpdu) { "TPDUs" } else { "characters" };
            let text =
                format!("{name} is a reader that exchanges {kind}, so its card cannot be a Key");
            return vec![finding(
                "usb",
                Health::Warn,
                text,
                "use a USB token, or a reader that exchanges APDUs",
            )];
        }
    }
    if user.is_some() && token.owner.is_some() && token.owner != user {
        let text = format!(
            "the device node of {name} does not belong to {USER}: the udev rule was not applied to it"
        );
        findings.push(fail(text, TRIGGER.into()));
    }
    let others: Vec<&Holder> =
        token.holders.iter().filter(|holder| holder.name != "keywrightd").collect();
    if token.claimed && others.is_empty() && token.holders.is_empty() {
        // Only root sees every process. It may also be the daemon itself.
        let text = format!("{name} is in use by a program that only root can identify");
        findings.push(finding("holder", Health::Warn, text, "sudo keywrightctl doctor"));
    }
    for holder in others {
        let Holder { pid, name: program } = holder;
        if program == "pcscd" && is_usable {
            let text = format!("{name} is held by pcscd (process {pid}) and used through it");
            findings.push(finding("holder", Health::Ok, text, ""));
            continue;
        }
        let text = format!("{name} is held by {program} (process {pid}), so it cannot be used");
        findings.push(finding("holder", Health::Fail, text, release_command(holder)));
    }
    findings
}

/// Command that makes a program release a token.
fn release_command(holder: &Holder) -> String {
    match holder.name.as_str() {
        "pcscd" => "sudo systemctl stop pcscd.socket pcscd.service".into(),
        "scdaemon" | "gpg-agent" => "gpgconf --kill scdaemon".into(),
        name => format!("close {name} (process {})", holder.pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installed::StateDir;

    fn whole() -> Installed {
        let state = StateDir { free: 1 << 30, owner: 996, ..StateDir::default() };
        Installed {
            policy: true,
            rule: Rule::Installed,
            user: Some(996),
            group: true,
            state: Some(state),
        }
    }

    fn machine(installed: Installed) -> Facts {
        Facts { installed: Some(installed), ..Facts::default() }
    }

    /// Check, result, and a part of the fix.
    type Expected = (&'static str, Health, &'static str);

    #[track_caller]
    fn assert_found(findings: &[Finding], expected: &[Expected]) {
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (found, (check, health, fix)) in findings.iter().zip(expected) {
            assert_eq!((found.check, found.result), (*check, *health), "{found:?}");
            assert!(found.fix.contains(fix), "{found:?}");
        }
    }

    #[test]
    fn each_missing_file_is_reported_with_its_fix() {
        assert_found(&files(&machine(whole())), &[("files", Health::Ok, "")]);
        for (installed, expected) in [
            (Installed { policy: false, ..whole() }, ("policy", Health::Fail, "apt install")),
            (
                Installed { rule: Rule::Missing, ..whole() },
                ("udev", Health::Fail, "apt install --reinstall ./"),
            ),
            (
                Installed { rule: Rule::Masked("/etc/a.rules".into()), ..whole() },
                ("udev", Health::Fail, "sudo rm /etc/a.rules; sudo udevadm control --reload"),
            ),
            (Installed { group: false, ..whole() }, ("user", Health::Fail, "systemd-sysusers")),
            (Installed { user: None, ..whole() }, ("user", Health::Fail, "systemd-sysusers")),
        ] {
            assert_found(&files(&machine(installed)), &[expected]);
        }
        assert!(files(&Facts::default()).is_empty(), "not asked on another bus");
    }

    #[test]
    fn state_directory_problems_are_reported() {
        let of = |change: fn(&mut StateDir)| {
            let mut installed = whole();
            change(installed.state.as_mut().unwrap());
            state_directory(&machine(installed))
        };
        assert_found(&of(|_| ()), &[]);
        assert_found(&of(|s| s.read_only = true), &[("state", Health::Fail, "remount")]);
        assert_found(&of(|s| s.free = MIN_FREE - 1), &[("state", Health::Fail, "df -h")]);
        assert_found(&of(|s| s.owner = 0), &[("state", Health::Fail, "chown")]);
        assert!(state_directory(&machine(Installed { state: None, ..whole() })).is_empty());
    }

    fn key() -> Token {
        Token {
            name: "Key at usb-1-1".into(),
            port: "usb-1-1".into(),
            level: Some(ExchangeLevel::Apdu),
            owner: Some(996),
            claimed: false,
            holders: Vec::new(),
        }
    }

    fn held_by(name: &str) -> Token {
        let holders = vec![Holder { pid: 77, name: name.into() }];
        Token { claimed: true, holders, ..key() }
    }

    #[test]
    fn token_problems_are_reported() {
        let of = |found: Vec<Token>| tokens(&Facts { tokens: Some(found), ..machine(whole()) });
        assert_found(&of(vec![]), &[("usb", Health::Warn, "plug a Key in")]);
        for (token, expected) in [
            (key(), &[][..]),
            (Token { level: None, ..key() }, &[("usb", Health::Fail, "ykman")]),
            (Token { level: Some(ExchangeLevel::Tpdu), ..key() }, &[("usb", Health::Warn, "APDU")]),
            (Token { owner: Some(0), ..key() }, &[("usb", Health::Fail, "udevadm trigger")]),
            (held_by("keywrightd"), &[]),
            (held_by("pcscd"), &[("holder", Health::Fail, "systemctl stop pcscd.socket")]),
            (held_by("scdaemon"), &[("holder", Health::Fail, "gpgconf --kill scdaemon")]),
            (held_by("browser"), &[("holder", Health::Fail, "close browser (process 77)")]),
            (
                Token { claimed: true, ..key() },
                &[("holder", Health::Warn, "sudo keywrightctl doctor")],
            ),
        ] {
            assert_found(&of(vec![token]), expected);
        }
        // The daemon shows it as a usable Key: it is used through pcscd.
        let mut facts = Facts { tokens: Some(vec![held_by("pcscd")]), ..machine(whole()) };
        facts.state = Some(crate::checks::tests::one_key("usb-1-1"));
        assert_found(&tokens(&facts), &[("holder", Health::Ok, "")]);
        facts.tokens = Some(vec![held_by("scdaemon")]);
        assert_found(&tokens(&facts), &[("holder", Health::Fail, "gpgconf")]);
    }
}
