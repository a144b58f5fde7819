//! Runs shell commands, and reads the journal.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

/// The daemon's unit.
pub const UNIT: &str = "keywrightd.service";

/// Limit for a command, in seconds.
const LIMIT: &str = "120";

/// Runs a shell line. A command that hangs is killed, and fails.
pub fn sh(line: &str) -> Output {
    Command::new("timeout").args([LIMIT, "/bin/sh", "-c", line]).output().unwrap()
}

/// Runs a shell line, asserts that it succeeds, and returns its standard output.
#[track_caller]
pub fn run(line: &str) -> String {
    let output = sh(line);
    let said = String::from_utf8_lossy(&output.stderr);
    let wrote = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{wrote}{said}");
    wrote
}

/// Returns a property of the daemon's unit, such as MainPID.
pub fn unit(property: &str) -> String {
    run(&format!("systemctl show --value --property={property} {UNIT}")).trim().to_owned()
}

/// Returns the current time for journalctl's `--since`. A real cursor does not work: with a unit, systemd 252 skips the
/// first entry after it.
pub fn journal_cursor() -> String {
    format!("@{}", run("date +%s.%6N").trim())
}

/// Returns what the daemon, and systemd about it, logged since then.
pub fn journal_since(cursor: &str) -> String {
    run(&format!("journalctl --quiet --output=cat --unit={UNIT} --since='{cursor}'"))
}

/// Returns what the kernel logged since then.
pub fn kernel_since(cursor: &str) -> String {
    run(&format!("journalctl --quiet --output=cat --dmesg --since='{cursor}'"))
}

/// Waits for a line of the daemon's log with this text; returns all lines since the cursor up to this one.
pub fn wait_for_journal(cursor: &str, text: &str) -> Vec<String> {
    let follow = format!(
        "timeout 60 journalctl --quiet --output=cat --follow --lines=all --unit={UNIT} --since='{cursor}'"
    );
    let mut journal = Command::new("/bin/sh")
        .args(["-c", &format!("exec {follow}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut lines, mut found) = (Vec::new(), false);
    for line in BufReader::new(journal.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        found = lines.last().is_some_and(|line| line.contains(text));
        if found {
            break;
        }
    }
    let _ = journal.kill();
    journal.wait().unwrap();
    assert!(found, "no line with {text:?}, but:\n{}", lines.join("\n"));
    lines
}

/// Writes an SSH_ASKPASS program that prints this answer. Not below /run, which is mounted noexec.
pub fn askpass(answer: &str) -> &'static str {
    let path = "/usr/local/bin/askpass-of-the-tests";
    std::fs::write(path, format!("#!/bin/sh\necho {answer}\n")).unwrap();
    run(&format!("chmod 755 {path}"));
    path
}

/// Something broken for a test; repaired when dropped.
pub struct Broken(&'static str);

impl Broken {
    /// Runs `breaks` now and `repairs` when dropped.
    #[track_caller]
    pub fn with(breaks: &str, repairs: &'static str) -> Self {
        let broken = Self(repairs);
        run(breaks);
        broken
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        sh(self.0);
    }
}
