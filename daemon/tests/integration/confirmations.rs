//! Confirmations of statements whose signers are revoked later no longer count, so that newer statements, above all
//! denials, are published to the Locks.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use keywright_proto::Effect::{Allow, Deny};

use crate::family::{self, Bench, ToState, add_statement, confirm, nothing_stated};

const GATE: u8 = 100;
const SUB: u8 = 31;
/// Positions of the Master and of a Backup in `CAS`.
const MASTER: usize = 0;
const BACKUP: usize = 1;

fn rights(version: u64, effect: keywright_proto::Effect) -> ToState {
    ToState::Rights(SUB, version, vec![(GATE, effect)])
}

fn state(bench: &Bench) -> String {
    bench.rights(SUB).pop().map(|(_, state)| state).unwrap_or_default()
}

/// A stolen Backup revokes a Sub Key, and a Lock confirms that. The Master revokes the Backup, grants the right again,
/// and later removes it.
#[test]
fn denial_after_a_void_revocation_waits_for_the_lock() {
    let (mut bench, mut objects) = (Bench::start(), nothing_stated());
    let first = add_statement(&mut objects, MASTER, &rights(5, Allow));
    bench.import(objects.clone());
    bench.confirm(confirm(GATE, first, Allow, 5));
    assert_eq!(state(&bench), "active");
    let theft = add_statement(&mut objects, BACKUP, &ToState::RevokeSub(SUB));
    bench.import(objects.clone());
    assert_eq!(state(&bench), "removing");
    let stolen = confirm(GATE, theft, Deny, 5);
    bench.confirm(stolen.clone());
    assert_eq!(state(&bench), "");

    add_statement(&mut objects, MASTER, &ToState::RevokeCa(BACKUP, 10));
    let regranted = add_statement(&mut objects, MASTER, &rights(12, Allow));
    bench.import(objects.clone());
    assert_eq!(state(&bench), "pending");
    // A replay of the Lock's earlier confirmation does not confirm this statement.
    bench.confirm(stolen.clone());
    assert_eq!(state(&bench), "pending");
    let admitted = confirm(GATE, regranted, Allow, 12);
    bench.confirm(admitted.clone());
    assert_eq!(state(&bench), "active");

    let denied = add_statement(&mut objects, MASTER, &rights(13, Deny));
    bench.import(objects);
    assert_eq!(state(&bench), "removing");
    for again in [stolen, admitted] {
        bench.confirm(again);
        assert_eq!(state(&bench), "removing");
    }
    bench.confirm(confirm(GATE, denied, Deny, 13));
    assert_eq!(state(&bench), "");
}

/// The denial follows before the Lock has confirmed the re-issued grant: the Lock may have applied it all the same.
#[test]
fn void_revocation_does_not_deny_later_grants() {
    let (mut bench, mut objects) = (Bench::start(), nothing_stated());
    let theft = add_statement(&mut objects, BACKUP, &ToState::RevokeSub(SUB));
    add_statement(&mut objects, MASTER, &rights(5, Allow));
    bench.import(objects.clone());
    bench.confirm(confirm(GATE, theft, Deny, 5));
    assert_eq!(state(&bench), "");
    add_statement(&mut objects, MASTER, &ToState::RevokeCa(BACKUP, 10));
    add_statement(&mut objects, MASTER, &rights(12, Allow));
    add_statement(&mut objects, MASTER, &rights(13, Deny));
    bench.import(objects.clone());
    assert_eq!(state(&bench), "removing");
    // A revocation by the Master itself is effective.
    add_statement(&mut objects, MASTER, &ToState::RevokeSub(SUB));
    bench.import(objects);
    assert_eq!(state(&bench), "removing");
}

/// A Lock that admitted a Key by a Backup's statement stops when it gets the Backup's revocation: the re-issued grant
/// has to reach it.
#[test]
fn reissued_right_is_pending_until_confirmed() {
    let (mut bench, mut objects) = (Bench::start(), nothing_stated());
    let by_backup = add_statement(&mut objects, BACKUP, &rights(5, Allow));
    bench.import(objects.clone());
    bench.confirm(confirm(GATE, by_backup, Allow, 5));
    assert_eq!(state(&bench), "active");
    add_statement(&mut objects, MASTER, &ToState::RevokeCa(BACKUP, 10));
    bench.import(objects.clone());
    assert_eq!(state(&bench), "pending");
    let regranted = add_statement(&mut objects, MASTER, &rights(12, Allow));
    bench.import(objects);
    assert_eq!(state(&bench), "pending");
    bench.confirm(confirm(GATE, regranted, Allow, 12));
    assert_eq!(state(&bench), "active");
}

/// While the revocation of a Master is delayed, a Lock that was added since gets first the Master's right, and then the
/// revocation.
#[test]
fn new_lock_gets_the_masters_right_before_its_revocation() {
    use family::{EVERYWHERE, MASTERS_KEY, MOMENT, lock};
    use keywright_proto::{Grant, Id, statement::digest};
    let (mut bench, mut objects) = (Bench::start(), nothing_stated());
    let allow = add_statement(&mut objects, MASTER, &EVERYWHERE);
    let theft = add_statement(&mut objects, BACKUP, &ToState::RevokeCa(MASTER, 10));
    bench.import(objects);
    let (key, gate) = (family::Key::new(MASTERS_KEY).public().id(), Id::of_hash(&lock(GATE)));
    let given = |bench: &Bench| {
        let grant = keywrightd::queries::grant(&bench.registry, key, gate, MOMENT).unwrap();
        digest(&Grant::decode(&grant).unwrap().statement).unwrap()
    };
    let needs_delayed_revocation = |bench: &Bench| {
        keywrightd::queries::needs_delayed_revocation(&bench.registry, key, gate, MOMENT).unwrap()
    };
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (allow, false));
    bench.confirm(confirm(GATE, allow, Allow, 1));
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (theft, true));
    // It still admits the Master.
    bench.confirm(confirm(GATE, theft, Allow, 1));
    assert_eq!((given(&bench), needs_delayed_revocation(&bench)), (theft, false));
}

/// A Lock that confirms without end costs no write for each confirmation.
#[test]
fn endless_confirmations_of_a_lock_are_not_written() {
    let (mut bench, mut objects) = (Bench::start(), nothing_stated());
    let granted = add_statement(&mut objects, MASTER, &rights(5, Allow));
    bench.import(objects);
    let writes = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&writes);
    bench.registry.watch_signed_objects(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    for _ in 0..20 {
        bench.confirm(confirm(GATE, granted, Allow, 5));
    }
    assert_eq!(writes.swap(0, Ordering::Relaxed), 1, "it says the same");
    // Another newest version each time.
    for version in 6..206 {
        bench.confirm(confirm(GATE, granted, Allow, version));
    }
    let reports = writes.swap(0, Ordering::Relaxed);
    assert!((1..=60).contains(&reports), "{reports}");
    // Another Lock is heard, and so is this one when it confirms another statement.
    let mut more = nothing_stated();
    let words = vec![(GATE, Deny), (101, Allow)];
    let next = add_statement(&mut more, MASTER, &ToState::Rights(SUB, 7, words));
    bench.import(more);
    writes.store(0, Ordering::Relaxed);
    bench.confirm(confirm(101, next, Allow, 7));
    bench.confirm(confirm(GATE, next, Deny, 7));
    assert_eq!(writes.load(Ordering::Relaxed), 2);
    assert_eq!(bench.rights(SUB), [(101, "active".to_owned())]);
}
