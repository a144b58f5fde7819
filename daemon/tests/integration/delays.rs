//! The delay of revocations counts in uptime, whatever the wall clock says.

use std::{path::Path, process::Command};

use keywright_proto::{Id, SignedObjects};
use keywrightd::{
    config::Config,
    registry::{Batch, Registry, records::Revocation},
    station::Station,
    trust::Moment,
};

use crate::family::{Bench, Key, MASTERS_KEY, ToState, add_statement, nothing_stated, root};

const DELAY: u64 = 7 * 86_400;

/// The Master's revocation by a Backup.
fn master_revoked() -> SignedObjects {
    let mut objects = nothing_stated();
    add_statement(&mut objects, 1, &ToState::RevokeCa(0, 5));
    objects
}

fn is_revoked(registry: &Registry, moment: Moment) -> bool {
    let master = Key::new(MASTERS_KEY).public().id();
    moment.statements(registry, master, root().family()).unwrap().is_revoked()
}

/// A thief who has a Backup sets the station's clock ahead.
#[test]
fn a_clock_that_is_set_ahead_ends_no_delay() {
    let mut bench = Bench::start();
    bench.import(nothing_stated());
    let objects = master_revoked();
    let signed = objects.statements().next().unwrap();
    let revocation = Revocation {
        key: signed.statement.subject.id(),
        cose: signed.cose.clone(),
        salt_seed: signed.seed,
        // By the wall clock this was half a century ago.
        first_seen: 1,
        reason: String::new(),
    };
    let mut batch = Batch::new();
    batch.put_revocation(root().family(), revocation.clone());
    bench.registry.commit(batch).unwrap();
    let now = Moment::now(&bench.registry, DELAY);
    assert!(!is_revoked(&bench.registry, now));
    assert!(!is_revoked(&bench.registry, Moment { now: now.now + DELAY - 60, ..now }));
    assert!(is_revoked(&bench.registry, Moment { now: now.now + DELAY, ..now }));
    // It is imported again, and keeps the time at which it was first seen.
    bench.import(objects);
    assert!(is_revoked(&bench.registry, Moment { now: now.now + DELAY, ..now }));
}

#[test]
fn uptime_never_falls_behind_a_stored_revocation() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("registry");
    let registry = Registry::open(&dir).unwrap();
    let objects = master_revoked();
    let signed = objects.statements().next().unwrap();
    let revocation = Revocation {
        key: signed.statement.subject.id(),
        cose: signed.cose.clone(),
        salt_seed: signed.seed,
        first_seen: 1,
        reason: String::new(),
    };
    let (family, later) = (root().family(), registry.uptime() + 1_000_000);
    let mut batch = Batch::new();
    batch.put_revocation(family, revocation.clone());
    batch.put_revocation_uptime(family, &revocation, later);
    registry.commit(batch).unwrap();
    drop(registry);
    // The file of the uptime is lost.
    std::fs::remove_file(state.path().join("registry.uptime")).unwrap_or_default();
    assert!(Registry::open(&dir).unwrap().uptime() >= later);
}

/// The registry of a version that counted by the wall clock: a delay that was over stays over.
#[test]
fn delays_of_an_older_version_that_were_over_stay_over() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("registry");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/registry-v4");
    assert!(Command::new("cp").arg("-r").arg(fixture).arg(&dir).status().unwrap().success());
    let registry = Registry::open(&dir).unwrap();
    let mut families: Vec<Id> = Vec::new();
    for (family, _) in registry.families().unwrap() {
        if !registry.revocations(family).unwrap().is_empty() {
            families.push(family);
        }
        assert!(registry.revocation_uptimes(family).unwrap().is_empty());
    }
    assert!(!families.is_empty());
    let (station, mut outputs) = Station::start(registry.clone(), Config::default()).unwrap();
    while !matches!(outputs.blocking_recv(), Some(keywrightd::outbox::Output::Ready)) {}
    for family in families {
        let revocations = registry.revocations(family).unwrap();
        assert!(revocations.iter().all(|revocation| revocation.first_seen > 0));
        let uptimes = registry.revocation_uptimes(family).unwrap();
        assert_eq!(uptimes.len(), revocations.len());
        assert!(uptimes.values().all(|seen| *seen + DELAY <= registry.uptime()), "{uptimes:?}");
    }
    drop(station);
}
