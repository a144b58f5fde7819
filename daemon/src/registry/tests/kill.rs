//! After `kill -9`, every acknowledged commit is there, and each batch is there whole or not at all.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::*;

const DIR: &str = "KEYWRIGHT_KILLED_REGISTRY";

/// The process that the test below kills. In an ordinary run it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let registry = Registry::open(dir.as_ref()).unwrap();
    let first = registry.audit_tail(1_000_000).unwrap().len() as u32;
    for number in first.. {
        let taken = registry.take_serialization_number().unwrap();
        let mut batch = Batch::new();
        batch
            .put_key(id(number), key(number, id(0)))
            .put_lock(id(number), lock(number, id(0)))
            .put_statement(id(number), id(0), statement(300), entries(0..300))
            .audit(taken, "key-made", vec![]);
        registry.commit(batch).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nacknowledged {number} {taken}").unwrap();
    }
}

#[test]
fn acknowledged_commits_survive_a_kill() {
    let place = TestDir::new();
    let mut newest_number = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "registry::tests::kill::child"])
            .env(DIR, place.dir())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap) {
            let Some(numbers) = line.strip_prefix("acknowledged ") else { continue };
            let (key, taken) = numbers.split_once(' ').unwrap();
            acknowledged.push((key.parse::<u32>().unwrap(), taken.parse::<u64>().unwrap()));
            // Lines that were written before the kill are read to the end.
            if acknowledged.len() == 3 * round + 1 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() > 3 * round);

        let registry = place.open();
        registry.verify().unwrap();
        let events = registry.audit_tail(1_000_000).unwrap().len();
        assert!(events > acknowledged.last().unwrap().0 as usize);
        for number in 0..events as u32 {
            assert_eq!(registry.key(id(number)).unwrap(), Some(key(number, id(0))));
            assert_eq!(registry.lock(id(number)).unwrap(), Some(lock(number, id(0))));
            let listed = registry.statement_entries(id(number), id(0)).unwrap();
            assert_eq!(listed, entries(0..300));
        }
        assert_eq!(registry.key(id(events as u32)).unwrap(), None);
        assert!(acknowledged[0].1 > newest_number, "a number was used twice");
        newest_number = acknowledged.last().unwrap().1;
    }
}
