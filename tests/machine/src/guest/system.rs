//! Commands of the system, and what it has written down.

use std::process::{Command, Output};

/// The unit.
pub const UNIT: &str = "keywrightd.service";

/// Runs a shell line and returns what it left.
pub fn sh(line: &str) -> Output {
    Command::new("/bin/sh").args(["-c", line]).output().unwrap()
}

/// Runs a shell line that has to go well; returns its standard output.
#[track_caller]
pub fn run(line: &str) -> String {
    let output = sh(line);
    let said = String::from_utf8_lossy(&output.stderr);
    let wrote = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{wrote}{said}");
    wrote
}

/// A property of the unit, such as MainPID.
pub fn unit(property: &str) -> String {
    run(&format!("systemctl show --value --property={property} {UNIT}")).trim().to_owned()
}

/// Where the journal ends now.
pub fn journal_cursor() -> String {
    let shown = run("journalctl --quiet --lines=0 --show-cursor");
    shown.trim().trim_start_matches("-- cursor: ").to_owned()
}

/// What the daemon, and systemd about it, wrote after that.
pub fn journal_since(cursor: &str) -> String {
    run(&format!("journalctl --quiet --output=cat --unit={UNIT} --after-cursor='{cursor}'"))
}
