//! Stations whose clocks are a year off, and that were restored from an old copy, sign for one Key; a Lock whose clock is
//! right hears of it in any order, and not of everything.

use keywright_lockd::{
    clock::Now,
    error::Refusal,
    gate::{Gate, Limits},
    identity::Identity,
    membership::Membership,
};
use keywright_proto::{
    Effect::{self, Allow, Deny},
    next_version,
    statement::PARK_AHEAD_MS,
};
use proptest::prelude::*;

use crate::common::{self, Ca, Key, Lock};

/// Milliseconds since 1970, by a clock that is right.
const NOW: u64 = common::NOW * 1_000;
const YEAR: u64 = 365 * 86_400_000;

/// What happens, of one of three stations.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Its clock is set: ahead of NOW minus a year by so much.
    Clock(u64),
    /// It signs this.
    Sign(Effect),
    /// It forgets all that it knows.
    Restore,
    /// It hears of all that was signed.
    Merge,
    /// The Lock hears of the statement with this number, of all, and confirms what it knows to this station.
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

struct Told {
    lock: Lock,
    gate: Gate,
    heard: Vec<(u64, Effect)>,
}

impl Told {
    fn new(ca: &Ca) -> Self {
        let lock = Lock::of(ca);
        let identity = Identity::load_or_create(&lock.state()).unwrap();
        let membership = Membership::load(&lock.state(), identity.public()).unwrap().unwrap();
        let limits = Limits { max_keys: 10, revoke_delay: 0 };
        let gate = Gate::open(&lock.state(), identity, membership, limits, at(NOW)).unwrap();
        Self { lock, gate, heard: Vec::new() }
    }

    fn hear(&mut self, ca: &Ca, key: &Key, said: (u64, Effect), now: u64) {
        let grant = self.lock.grant(ca, key, said.0, said.1);
        match self.gate.take(&grant, at(now)) {
            Ok(_) | Err(Refusal::Older { .. }) => self.heard.push(said),
            Err(refusal) => panic!("{said:?}: {refusal}"),
        }
    }

    /// The newest of what it heard and is not in the future; a tie is deny.
    fn expected(&self, now: u64) -> Effect {
        let due = self.heard.iter().filter(|(version, _)| *version <= now + PARK_AHEAD_MS);
        due.max_by_key(|(version, effect)| (*version, *effect == Deny)).map_or(Deny, |said| said.1)
    }

    fn newest(&self, now: u64) -> u64 {
        let due = self.heard.iter().map(|said| said.0);
        due.filter(|version| *version <= now + PARK_AHEAD_MS).max().unwrap_or(0)
    }
}

const fn at(unix: u64) -> Now {
    Now { unix, uptime: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The newest word counts whose time has come; of those whose time will come, no denial is missed. And a denial by
    /// whoever knows all that was signed is the last word: at once where no clock was ahead, at the latest when that time
    /// has come, and for good.
    #[test]
    fn older_statements_never_return_and_denials_stay(steps in prop::collection::vec(step(), 1..30)) {
        let (ca, key) = (Ca::at_depth(1), Key::new(30));
        let hash = key.public().hash();
        let mut lock = Told::new(&ca);
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
                Step::Merge => known[station] = signed.iter().map(|said| said.0).max(),
                Step::Tell(which) if !signed.is_empty() => {
                    lock.hear(&ca, &key, *which.get(&signed), NOW);
                    known[station] = known[station].max(Some(lock.newest(NOW)));
                }
                Step::Tell(_) => {}
            }
            prop_assert_eq!(lock.gate.effect_on(&hash, NOW), lock.expected(NOW));
        }
        let all = signed.iter().map(|said| said.0).max();
        let last = next_version(all, NOW).unwrap();
        lock.hear(&ca, &key, (last, Deny), NOW);
        let due_at = |version: u64| version.saturating_sub(PARK_AHEAD_MS).max(NOW);
        let due = due_at(last);
        if all.is_none_or(|newest| newest < NOW + PARK_AHEAD_MS) {
            prop_assert_eq!(due, NOW);
        }
        // Until then nobody is let in whom the newest word whose time has come keeps out.
        for now in lock.heard.iter().map(|(version, _)| due_at(*version)) {
            if lock.expected(now) == Deny {
                prop_assert_eq!(lock.gate.effect_on(&hash, now), Deny, "{} of {:?}", now, lock.heard);
            }
        }
        // Whatever else arrives late, and in whatever order.
        for said in signed.iter().rev() {
            lock.hear(&ca, &key, *said, NOW);
        }
        for now in [due, due + 1, due + YEAR, due + 3 * YEAR] {
            prop_assert_eq!(lock.gate.effect_on(&hash, now), Deny, "{} of {:?}", last, signed);
        }
    }
}
