//! Three stations, with clocks up to a year wrong and restored from old backups, sign statements about one Key. A
//! Lock with a correct clock receives some of them, in any order.

use keywright_lockd::{
    clock::Now,
    error::Refusal,
    gate::{Gate, Limits},
};
use keywright_proto::{
    Effect::{self, Allow, Deny},
    next_version,
    statement::PARK_AHEAD_MS,
};
use proptest::prelude::*;

use crate::common::{self, Ca, Key, Lock};

/// A correct clock, in milliseconds since 1970.
const NOW: u64 = common::NOW * 1_000;
const YEAR: u64 = 365 * 86_400_000;

/// An event at one of three stations.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Its clock is set to NOW minus a year plus this.
    Clock(u64),
    /// It signs a statement with this effect.
    Sign(Effect),
    /// It is restored from a backup and forgets all statements.
    Restore,
    /// It learns all statements that were signed.
    Merge,
    /// The Lock receives this one of all statements, and its confirmation reaches this station.
    Tell(prop::sample::Index),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let effect = || prop_oneof![Just(Allow), Just(Deny)];
    let step = prop_oneof![
        1 => (0..2 * YEAR).prop_map(Step::Clock),
        4 => effect().prop_map(Step::Sign),
        1 => Just(Step::Restore),
        1 => Just(Step::Merge),
        4 => any::<prop::sample::Index>().prop_map(Step::Tell),
    ];
    (0..3_usize, step)
}

struct TestLock {
    lock: Lock,
    gate: Gate,
    received: Vec<(u64, Effect)>,
}

impl TestLock {
    fn new(ca: &Ca) -> Self {
        let lock = Lock::of(ca);
        let gate = lock.gate(Limits { max_keys: 10, revoke_delay: 0 }, at(NOW));
        Self { lock, gate, received: Vec::new() }
    }

    fn receive(&mut self, ca: &Ca, key: &Key, signed_one: (u64, Effect), now: u64) {
        let grant = self.lock.grant(ca, key, signed_one.0, signed_one.1);
        match self.gate.take(&grant, at(now)) {
            Ok(_) | Err(Refusal::Older { .. }) => self.received.push(signed_one),
            Err(refusal) => panic!("{signed_one:?}: {refusal}"),
        }
    }

    /// The effect of the newest statement received that is not parked; a denial wins a tie.
    fn expected(&self, now: u64) -> Effect {
        let due = self.received.iter().filter(|(version, _)| *version <= now + PARK_AHEAD_MS);
        due.max_by_key(|(version, effect)| (*version, *effect == Deny))
            .map_or(Deny, |signed_one| signed_one.1)
    }

    fn newest(&self, now: u64) -> u64 {
        let due = self.received.iter().map(|signed_one| signed_one.0);
        due.filter(|version| *version <= now + PARK_AHEAD_MS).max().unwrap_or(0)
    }
}

const fn at(unix: u64) -> Now {
    Now { unix, uptime: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The newest statement that is due decides, and no parked denial is missed. A denial by a station that knows all
    /// statements is final: at once if no clock was ahead, otherwise as soon as its version is due.
    #[test]
    fn older_statements_never_return_and_denials_stay(steps in prop::collection::vec(step(), 1..30)) {
        let (ca, key) = (Ca::at_depth(1), Key::new(30));
        let hash = key.public().hash();
        let mut lock = TestLock::new(&ca);
        let (mut clocks, mut known) = ([NOW; 3], [None::<u64>; 3]);
        let mut signed: Vec<(u64, Effect)> = Vec::new();
        for (station, step) in steps {
            match step {
                Step::Clock(ahead) => clocks[station] = NOW - YEAR + ahead,
                Step::Sign(effect) => {
                    let version = next_version(known[station], clocks[station]).unwrap();
                    known[station] = Some(version);
                    signed.push((version, effect));
                }
                Step::Restore => known[station] = None,
                Step::Merge => known[station] = signed.iter().map(|signed_one| signed_one.0).max(),
                Step::Tell(which) if !signed.is_empty() => {
                    lock.receive(&ca, &key, *which.get(&signed), NOW);
                    known[station] = known[station].max(Some(lock.newest(NOW)));
                }
                Step::Tell(_) => {}
            }
            prop_assert_eq!(lock.gate.effect_on(&hash, NOW), lock.expected(NOW));
        }
        let all = signed.iter().map(|signed_one| signed_one.0).max();
        let last = next_version(all, NOW).unwrap();
        lock.receive(&ca, &key, (last, Deny), NOW);
        let due_at = |version: u64| version.saturating_sub(PARK_AHEAD_MS).max(NOW);
        let due = due_at(last);
        if all.is_none_or(|newest| newest < NOW + PARK_AHEAD_MS) {
            prop_assert_eq!(due, NOW);
        }
        // Until then the Key is never admitted against the newest statement that is due.
        for now in lock.received.iter().map(|(version, _)| due_at(*version)) {
            if lock.expected(now) == Deny {
                prop_assert_eq!(lock.gate.effect_on(&hash, now), Deny, "{} of {:?}", now, lock.received);
            }
        }
        // The other statements arrive late, in another order.
        for signed_one in signed.iter().rev() {
            lock.receive(&ca, &key, *signed_one, NOW);
        }
        for now in [due, due + 1, due + YEAR, due + 3 * YEAR] {
            prop_assert_eq!(lock.gate.effect_on(&hash, now), Deny, "{} of {:?}", last, signed);
        }
    }
}
