//! A Backup's revocation of the Master is delayed, and no wall clock ends the delay: neither one that starts in 1970,
//! nor one that is a year behind, nor one that is set while the Lock is off.

use std::fs;

use keywright_lockd::{
    clock::Now,
    gate::{Gate, Limits},
};
use keywright_proto::{Effect, RevokedIssuer, Role, Target};
use proptest::prelude::*;

use crate::common::{self, Ca, Key, Lock, leaf};

const DAY: u64 = 86_400_000;
const DELAY: u64 = 7 * DAY;
/// A correct clock, in milliseconds since 1970.
const NOW: u64 = common::NOW * 1_000;
const YEAR: u64 = 365 * DAY;

struct Delayed {
    lock: Lock,
    gate: Gate,
    master: Key,
}

const LIMITS: Limits = Limits { max_keys: 100, revoke_delay: DELAY / 1_000 };

impl Delayed {
    /// A Lock that admits the Master and has received its revocation by a Backup.
    fn with_revocation(now: Now) -> Self {
        let (ca, backup, master) = (Ca::at_depth(1), Ca::at_depth(2), Key::new(40));
        let lock = Lock::of(&ca);
        let mut gate = lock.gate(LIMITS, now);
        let access = ca.issue(&master, Role::Master, &[9]);
        let everywhere = [leaf(Target::All, Effect::Allow)];
        gate.take(&ca.grant(&master, Some(1), &everywhere, 0, &access).encode(), now).unwrap();
        let issuing_key = ca.key.public().hash();
        let revokes = RevokedIssuer { issuing_key, denials_until: 1 };
        gate.take(&common::revocation_of_issuer(&backup, &master, revokes), now).unwrap();
        Self { lock, gate, master }
    }

    fn admits(&mut self, now: Now) -> bool {
        self.gate.judge(now);
        self.gate.effect_on(&self.master.public().hash(), now.unix) == Effect::Allow
    }

    fn restart(self, now: Now) -> Self {
        let Self { lock, gate, master } = self;
        drop(gate);
        let gate = lock.gate(LIMITS, now);
        Self { lock, gate, master }
    }
}

#[test]
fn setting_the_clock_ends_no_delay() {
    for (what, first, then) in [
        ("no battery", 0, NOW),
        ("a year behind", NOW - YEAR, NOW),
        ("a year ahead, and behind again", NOW + YEAR, NOW),
        ("right", NOW, NOW),
        ("a thief who says what time it is", NOW, NOW + 99 * YEAR),
    ] {
        let at = |unix, uptime| Now { unix, uptime };
        let mut lock = Delayed::with_revocation(at(first, 5_000));
        assert!(lock.admits(at(first, 5_000)), "{what}");
        assert!(lock.admits(at(then, 6_000)), "{what}");
        // In wall-clock time, which the service waits by.
        assert_eq!(lock.gate.next_change(at(then, 6_000)), Some(then + DELAY - 1_000), "{what}");
        let mut lock = lock.restart(at(then, 7_000));
        assert!(lock.admits(at(then, 5_000 + DELAY - 1)), "{what}");
        assert!(!lock.admits(at(then, 5_000 + DELAY)), "{what}");
        assert!(!lock.restart(at(first, 5_000 + DELAY)).admits(at(first, 5_000 + DELAY)), "{what}");
    }
}

/// Installing a new certificate decides about trust again, by the same uptime.
#[test]
fn new_certificate_ends_no_delay() {
    let now = Now { unix: NOW, uptime: 5_000 };
    let mut lock = Delayed::with_revocation(now);
    let newer =
        common::certify_at(&Ca::at_depth(1), &lock.lock.key, common::VALIDITY.not_before + 1, 9);
    let text = common::pem_of(&newer);
    assert!(lock.gate.take_chain(&lock.lock.state(), text.as_bytes(), now).unwrap());
    assert_eq!(lock.gate.effect_on(&lock.master.public().hash(), now.unix), Effect::Allow);
    assert!(lock.gate.is_delayed());
}

/// Uptime lost at a power cut is waited for once more, but not at each start.
#[test]
fn lost_uptime_continues_from_the_last_statement_seen() {
    let at = |uptime| Now { unix: NOW, uptime };
    let lock = Delayed::with_revocation(at(3 * DAY));
    let mut lock = lock.restart(at(0));
    assert_eq!(lock.gate.uptime(), 3 * DAY);
    assert!(lock.admits(at(3 * DAY + DELAY - 1)));
    assert!(!lock.admits(at(3 * DAY + DELAY)));
}

/// A record of version 1 has a wall-clock time, which is not an uptime: the delay starts again, once.
#[test]
fn clock_time_in_an_old_record_restarts_the_delay() {
    use keywright_lockd::{
        record::Record,
        store::{self, Store},
    };
    let at = |uptime| Now { unix: NOW, uptime };
    let lock = Delayed::with_revocation(at(DAY));
    let store = Store::open(&lock.lock.state(), store::DIRECTORY).unwrap();
    let hash = lock.master.public().hash();
    let mut record = store.read(&hash).unwrap();
    for entry in &mut record.entries {
        entry.first_seen = keywright_lockd::record::UNKNOWN_TIME;
    }
    store.write(&hash, &record).unwrap();
    // That version kept revocations once.
    fs::remove_dir_all(lock.lock.state().join(store::REVOCATIONS)).unwrap();
    let mut lock = lock.restart(at(2 * DAY));
    assert!(lock.admits(at(2 * DAY + DELAY - 1)));
    let known: Record = store.read(&hash).unwrap();
    assert!(known.entries.iter().all(|entry| entry.first_seen == 2 * DAY));
    let mut lock = lock.restart(at(5 * DAY));
    assert!(!lock.admits(at(2 * DAY + DELAY)));
}

/// No grant arrives at the end of the delay; it is confirmed nevertheless.
#[test]
fn end_of_a_delay_is_confirmed() {
    let at = |uptime| Now { unix: NOW, uptime };
    let mut lock = Delayed::with_revocation(at(5_000));
    let hash = lock.master.public().hash();
    let unconfirmed =
        |gate: &Gate| gate.unconfirmed(NOW).into_iter().filter(|(key, _)| *key == hash).count();
    // The grant and the delayed revocation.
    let all = lock.gate.unconfirmed(NOW);
    for (key, statement) in all {
        lock.gate.set_confirmed(&key, &statement).unwrap();
    }
    lock.gate.judge(at(5_000 + DELAY - 1));
    assert_eq!(unconfirmed(&lock.gate), 0);
    lock.gate.judge(at(5_000 + DELAY));
    assert_eq!(unconfirmed(&lock.gate), 2);
    let all = lock.gate.unconfirmed(NOW);
    for (key, statement) in all {
        let confirmed = lock.gate.confirm(&key, statement, NOW).unwrap();
        let confirmation =
            keywright_proto::Confirmation::verify(&confirmed, &lock.lock.key).unwrap();
        assert_eq!(confirmation.effect, Effect::Deny);
        lock.gate.set_confirmed(&key, &statement).unwrap();
    }
    lock.gate.judge(at(5_000 + DELAY + 1));
    assert_eq!(unconfirmed(&lock.gate), 0, "once");
    // After a restart it is confirmed again, because the delay may have ended while the service was down.
    let lock = lock.restart(at(5_000 + DELAY + 2));
    assert_eq!(unconfirmed(&lock.gate), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever the clock says and however often the Lock restarts, the Master is admitted exactly until the uptime
    /// exceeds the delay.
    #[test]
    fn only_uptime_ends_a_delay(
        first in 0..2 * NOW,
        steps in proptest::collection::vec((0..2 * NOW, 0..3 * DAY, any::<bool>()), 1..8),
    ) {
        let mut uptime = DAY;
        let mut lock = Delayed::with_revocation(Now { unix: first, uptime });
        for (unix, passes, restarts) in steps {
            uptime += passes;
            let now = Now { unix, uptime };
            if restarts {
                lock = lock.restart(now);
            }
            prop_assert_eq!(lock.admits(now), uptime / 1_000 < (DAY + DELAY) / 1_000);
        }
    }
}
