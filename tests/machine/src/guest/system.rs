//! Commands of the system, and what it has written down.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

/// The unit.
pub const UNIT: &str = "keywrightd.service";

/// Seconds: far longer than any command takes.
const LIMIT: &str = "120";

/// Runs a shell line and returns what it left. A command that hangs is ended, and fails.
pub fn sh(line: &str) -> Output {
    Command::new("timeout").args([LIMIT, "/bin/sh", "-c", line]).output().unwrap()
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

/// Now, as the journal has it. Not a cursor of its own: together with a unit, systemd 252 leaves out the first entry
/// after that.
pub fn journal_cursor() -> String {
    format!("@{}", run("date +%s.%6N").trim())
}

/// What the daemon, and systemd about it, wrote after that.
pub fn journal_since(cursor: &str) -> String {
    run(&format!("journalctl --quiet --output=cat --unit={UNIT} --since='{cursor}'"))
}

/// What the kernel wrote after that.
pub fn kernel_since(cursor: &str) -> String {
    run(&format!("journalctl --quiet --output=cat --dmesg --since='{cursor}'"))
}

/// Waits for a line of the daemon's with this text; returns all lines after the cursor up to and with it.
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

/// A program that says this where SSH asks for something. Not below /run, from where nothing is executed.
pub fn askpass(answer: &str) -> &'static str {
    let path = "/usr/local/bin/askpass-of-the-tests";
    std::fs::write(path, format!("#!/bin/sh\necho {answer}\n")).unwrap();
    run(&format!("chmod 755 {path}"));
    path
}

/// Something broken; mended when it is dropped, so that no other test has it.
pub struct Broken(&'static str);

impl Broken {
    /// Breaks it.
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
