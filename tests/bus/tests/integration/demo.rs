//! What `make demo` shows goes as it tells, and nothing of it stays behind.

use std::{fs, process::Command};

use keywright_bus_tests::programs;
use tempfile::TempDir;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/run.sh");

#[test]
fn the_demo_goes_as_told_and_leaves_nothing() {
    for program in ["keywrightctl", "keywright-lockd", "virtual-key"] {
        programs::find(program);
    }
    let daemon = programs::find("keywrightd");
    let place = TempDir::new().unwrap();
    let output = Command::new(DEMO)
        .env("DEMO_PROGRAMS", daemon.parent().unwrap())
        .env("TMPDIR", place.path())
        .output()
        .expect("bash is installed");
    let told = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{told}\n{failed}", output.status);
    // Three Keys and three Locks.
    assert_eq!(told.matches(".pem: OK").count(), 6, "{told}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{told}");
}
