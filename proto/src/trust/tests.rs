//! Stolen keys, mutual revocations and delays, on facts alone. With real signatures: `proto/tests/integration/family.rs`.

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::rights::newest;

const NOW: u64 = 10_000_000;
const ROOT: u8 = 0;
/// Issuing keys are below this; the access key of number n is n + 100.
const PEOPLE: u8 = 10;

const fn key(number: u8) -> Hash {
    [number; 32]
}

const fn access(number: u8) -> Hash {
    key(number + 100)
}

/// A CA certificate. Bounds are not looked at here.
const fn certified(issuer: u8, ca: u8) -> (Hash, Hash, Hash) {
    (key(ca), key(issuer), key(ca))
}

/// Master 0; Backups 1, 2, 3 by it; 4 by 1, 5 by 4; Sub Keys have access keys only.
fn family() -> Facts {
    let issued = [(0, 1), (0, 2), (0, 3), (1, 4), (4, 5)];
    Facts {
        root: key(ROOT),
        issued: issued.iter().map(|(issuer, ca)| certified(*issuer, *ca)).collect(),
        below: BTreeMap::new(),
        access: (0..=5).map(|n| (access(n), key(n))).collect(),
        revocations: BTreeMap::new(),
    }
}

fn revocation(signer: u8, subject: u8, denials_until: u64) -> Revocation {
    let issuer = RevokedIssuer { issuing_key: key(subject), denials_until };
    Revocation { signer: key(signer), subject: access(subject), issuer: Some(issuer) }
}

/// The keys that do not stand after these revocations (signer, subject), all first seen so many seconds ago.
fn out(revocations: &[(u8, u8)], ago: u64) -> Vec<(u8, Standing)> {
    let mut facts = family();
    for (signer, subject) in revocations {
        facts.learn_revocation(revocation(*signer, *subject, 50), NOW - ago);
    }
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    let standing = (0..=5).map(|n| (n, judgement.standing(&key(n)).unwrap()));
    standing.filter(|(_, standing)| *standing != Standing::Stands).collect()
}

#[test]
fn revocations_decide_who_stands() {
    use Standing::{Deposed, Orphaned, Revoked};
    let late = REVOKE_DELAY;
    let early = REVOKE_DELAY - 1;
    for (what, revocations, ago, expected) in [
        ("nobody said anything", &[][..], late, &[][..]),
        ("the Master revokes a Backup", &[(0, 2)], 0, &[(2, Revoked)]),
        ("an equal does", &[(1, 2)], 0, &[(2, Revoked)]),
        (
            "what a revoked Backup certified",
            &[(0, 1)],
            0,
            &[(1, Revoked), (4, Orphaned), (5, Orphaned)],
        ),
        ("a grandmother", &[(1, 5)], 0, &[(5, Revoked)]),
        ("an aunt", &[(2, 4)], 0, &[(4, Revoked), (5, Orphaned)]),
        ("two of equal depth, each other", &[(2, 3), (3, 2)], 0, &[(2, Revoked), (3, Revoked)]),
        ("the word of somebody revoked is void", &[(1, 2), (2, 3)], 0, &[(2, Revoked)]),
        (
            "three in a circle",
            &[(1, 2), (2, 3), (3, 1)],
            0,
            &[(1, Revoked), (2, Revoked), (3, Revoked), (4, Orphaned), (5, Orphaned)],
        ),
        (
            "whom a quarrel touches",
            &[(2, 3), (3, 2), (3, 1)],
            0,
            &[(1, Revoked), (2, Revoked), (3, Revoked), (4, Orphaned), (5, Orphaned)],
        ),
        ("a quarrel ended by an equal", &[(2, 3), (3, 2), (1, 3)], 0, &[(3, Revoked)]),
        ("a quarrel ended from above", &[(2, 3), (3, 2), (0, 3)], 0, &[(3, Revoked)]),
        ("oneself", &[(2, 2)], 0, &[(2, Revoked)]),
        ("a senior, too early", &[(1, 0), (5, 1), (4, 2)], early, &[]),
        ("a senior, after the delay", &[(1, 0)], late, &[(0, Deposed)]),
        (
            "the senior objects",
            &[(1, 0), (0, 1)],
            late,
            &[(1, Revoked), (4, Orphaned), (5, Orphaned)],
        ),
        ("an equal of the revoker objects", &[(2, 0), (3, 2)], late, &[(2, Revoked)]),
        ("an aunt deposed", &[(4, 3)], late, &[(3, Deposed)]),
        ("the revoker of the Master deposed", &[(1, 0), (4, 1)], late, &[(1, Deposed)]),
        (
            "whom a deposed Master had revoked stays so",
            &[(0, 3), (1, 0)],
            late,
            &[(0, Deposed), (3, Revoked)],
        ),
        (
            "a revoked one from beyond",
            &[(0, 1), (1, 0), (4, 0), (5, 2)],
            late,
            &[(1, Revoked), (4, Orphaned), (5, Orphaned)],
        ),
        ("an orphan revoked", &[(0, 1), (0, 5)], 0, &[(1, Revoked), (4, Orphaned), (5, Revoked)]),
    ] {
        assert_eq!(out(revocations, ago), expected, "{what}");
    }
}

/// A thief certifies the Backup's access key as its own too; and a CA whose access key nobody knows is revoked by its own name.
#[test]
fn revocation_finds_every_issuing_key_of_an_access_key() {
    let mut facts = family();
    facts.issued.insert(certified(1, 9));
    facts.access.insert((access(2), key(9)));
    facts.learn_revocation(Revocation { issuer: None, ..revocation(0, 2, 0) }, NOW);
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    for (number, standing) in
        [(1, Standing::Stands), (2, Standing::Revoked), (9, Standing::Revoked)]
    {
        assert_eq!(judgement.standing(&key(number)), Some(standing), "{number}");
    }
    let mut facts = family();
    facts.issued.insert(certified(1, 9));
    let hidden = facts.issuers().into_iter().find(|(_, issuer)| issuer.access_keys.is_empty());
    let (hidden, issuer) = hidden.unwrap();
    assert_eq!((hidden, issuer.certified_by), (key(9), BTreeSet::from([key(1)])));
    let by_name = Revocation { subject: hidden, ..revocation(0, 9, 0) };
    facts.learn_revocation(by_name, NOW);
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    assert_eq!(judgement.standing(&hidden), Some(Standing::Revoked));
}

/// Denials of a circle stay: nobody who stands says how long.
#[test]
fn circle_undoes_no_denial() {
    let sub = key(200);
    let mut facts = family();
    for (signer, subject) in [(2, 3), (3, 2)] {
        facts.learn_revocation(revocation(signer, subject, 0), NOW);
    }
    let weigh = |facts: &Facts, said| facts.judge(REVOKE_DELAY, NOW).weigh(&key(2), &sub, said);
    for (said, left) in [(allow(9), None), (deny(9), Some(deny(9))), (REVOKED, Some(REVOKED))] {
        assert_eq!(weigh(&facts, said), left);
    }
    // The Master says how long.
    facts.learn_revocation(revocation(0, 2, 7), NOW);
    assert_eq!(weigh(&facts, deny(9)), Some(deny(7)));
    assert_eq!(weigh(&facts, REVOKED), Some(deny(7)));
}

/// A thief makes CAs without end below the Backup that was stolen, in two orders.
#[test]
fn cas_without_end_displace_only_those_below_the_stolen_one() {
    let ca = |number: u16| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        key[31] = 1;
        key
    };
    let learn = |numbers: &mut dyn Iterator<Item = u16>| {
        let mut facts = family();
        facts.learn_ca(key(2), key(2), key(77));
        for number in numbers {
            facts.learn_ca(key(1), key(1), ca(number));
            facts.learn_ca(key(1), ca(number), ca(number + 1));
        }
        facts
    };
    let facts = learn(&mut (1000..3000));
    assert_eq!(facts.below.get(&key(1)).map(BTreeSet::len), Some(MAX_CAS_BELOW));
    assert_eq!(facts.judge(0, 0).standing(&key(77)), Some(Standing::Stands));
    assert_eq!(facts, learn(&mut (1000..3000).rev()));
}

#[test]
fn orphan_with_a_new_ca_certificate_stands() {
    let mut facts = family();
    facts.learn_revocation(revocation(0, 1, 50), NOW);
    facts.issued.insert(certified(3, 4));
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    for (number, standing, depth) in [
        (1, Standing::Revoked, Some(1)),
        (3, Standing::Stands, Some(1)),
        (4, Standing::Stands, Some(2)),
        (5, Standing::Stands, Some(3)),
    ] {
        assert_eq!(judgement.standing(&key(number)), Some(standing), "{number}");
        assert_eq!(judgement.depth(&key(number)), depth, "{number}");
    }
    assert_eq!(judgement.standing(&key(77)), None);
}

fn allow(version: u64) -> VersionedEffect {
    VersionedEffect { version: Some(version), effect: Effect::Allow }
}

fn deny(version: u64) -> VersionedEffect {
    VersionedEffect { version: Some(version), effect: Effect::Deny }
}

const REVOKED: VersionedEffect = VersionedEffect { version: None, effect: Effect::Deny };

/// A stolen Backup is revoked: what it allowed is void, its denials stay up to the named version.
#[test]
fn denials_of_a_revoked_backup_stay_up_to_the_named_version() {
    let sub = key(200);
    let mut facts = family();
    let weigh = |facts: &Facts, signer: u8, subject: &Hash, said| {
        facts.judge(REVOKE_DELAY, NOW).weigh(&key(signer), subject, said)
    };
    for said in [allow(5), deny(5), REVOKED] {
        assert_eq!(weigh(&facts, 1, &sub, said), Some(said));
    }
    facts.learn_revocation(revocation(0, 1, 50), NOW);
    for signer in [1, 4, 5] {
        for (said, left) in [
            (allow(5), None),
            (allow(500), None),
            (deny(5), Some(deny(5))),
            (deny(50), Some(deny(50))),
            (deny(51), Some(deny(50))),
            (REVOKED, Some(deny(50))),
        ] {
            assert_eq!(weigh(&facts, signer, &sub, said), left, "{signer} {said:?}");
        }
        // Issuers that stand are not denied.
        assert_eq!(weigh(&facts, signer, &access(0), REVOKED), None);
        assert_eq!(weigh(&facts, signer, &access(2), deny(5)), None);
    }
    // Withholding re-issued statements does not undo the Backup's denials…
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    let newest_of = |said: &[(u8, VersionedEffect)]| {
        newest(said.iter().filter_map(|(signer, said)| judgement.weigh(&key(*signer), &sub, *said)))
    };
    assert_eq!(newest_of(&[(0, allow(5)), (1, deny(6))]), Some(deny(6)));
    assert_eq!(newest_of(&[(0, allow(5)), (1, REVOKED)]), Some(deny(50)));
    // …and the thief has no effect on what was signed since.
    assert_eq!(newest_of(&[(0, allow(51)), (1, deny(1 << 52)), (1, REVOKED)]), Some(allow(51)));
}

/// A thief who holds a Backup revokes the Master, or only its access key.
#[test]
fn revoking_a_seniors_access_key_waits_for_the_delay() {
    let only_access = Revocation { issuer: None, ..revocation(1, 0, 0) };
    let wrong_key = Revocation { issuer: revocation(1, 5, 0).issuer, ..only_access };
    for theft in [revocation(1, 0, 0), only_access, wrong_key] {
        let mut facts = family();
        facts.learn_revocation(theft, NOW);
        let at =
            |facts: &Facts, now| facts.judge(REVOKE_DELAY, now).weigh(&key(1), &access(0), REVOKED);
        let judgement = facts.judge(REVOKE_DELAY, NOW);
        assert_eq!(judgement.next_change(), Some(NOW + REVOKE_DELAY));
        assert_eq!(at(&facts, NOW + REVOKE_DELAY - 1), None);
        assert_eq!(at(&facts, NOW + REVOKE_DELAY), Some(REVOKED));
        facts.learn_revocation(revocation(0, 1, 0), NOW + 2 * REVOKE_DELAY);
        assert_eq!(at(&facts, NOW + 3 * REVOKE_DELAY), None, "the objection came late");
    }
}

/// Two thieves: one revokes the other and names a version that would keep its denials for ever.
#[test]
fn the_masters_revocation_decides_how_long_denials_stay() {
    let mut facts = family();
    facts.learn_revocation(revocation(1, 2, 1 << 52), NOW);
    facts.learn_revocation(revocation(0, 1, 60), NOW);
    facts.learn_revocation(revocation(0, 2, 60), NOW);
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    assert_eq!(judgement.weigh(&key(2), &key(200), REVOKED), Some(deny(60)));
}

#[test]
fn earliest_first_seen_time_decides_the_delay() {
    let mut facts = family();
    // First seen by a clock that is a year ahead, and then set right.
    facts.learn_revocation(revocation(1, 0, 0), NOW + 31_557_600);
    assert_eq!(facts.judge(REVOKE_DELAY, NOW).standing(&key(0)), Some(Standing::Stands));
    facts.learn_revocation(revocation(1, 0, 0), NOW);
    let after = facts.judge(REVOKE_DELAY, NOW + REVOKE_DELAY);
    assert_eq!(after.standing(&key(0)), Some(Standing::Deposed));
    assert_eq!(after.next_change(), None);
    // The earliest time counts, also at the ends of the range.
    facts.learn_revocation(revocation(1, 0, 0), u64::MAX);
    assert_eq!(facts.judge(u64::MAX, u64::MAX).next_change(), None);
    facts.learn_revocation(revocation(1, 0, 0), 3);
    assert_eq!(facts.judge(5, 7).next_change(), Some(8));
}

/// A family of at most PEOPLE issuing keys, with certificates and revocations as they come:
/// issuer and CA; revocations, and when each was first seen.
type AnyFamily = (Vec<(u8, u8)>, Vec<(Revocation, u64)>);

fn any_family() -> impl Strategy<Value = AnyFamily> {
    let issued = proptest::collection::vec((0..PEOPLE, 1..PEOPLE), 0..20);
    let revocation = (0..PEOPLE, 0..PEOPLE, any::<bool>(), 0..4u64, 0..3u64).prop_map(
        |(signer, subject, names_issuer, until, seen)| {
            let full = revocation(signer, subject, until);
            let issuer = full.issuer.filter(|_| names_issuer);
            (Revocation { issuer, ..full }, seen * REVOKE_DELAY)
        },
    );
    (issued, proptest::collection::vec(revocation, 0..20))
}

fn facts_of(issued: &[(u8, u8)], revocations: &[(Revocation, u64)]) -> Facts {
    let mut facts = Facts::new(&crate::test_keys::TestKey::new(1).public());
    facts.root = key(ROOT);
    facts.issued = issued.iter().map(|(issuer, ca)| certified(*issuer, *ca)).collect();
    facts.access = (0..PEOPLE).map(|n| (access(n), key(n))).collect();
    for (revocation, seen) in revocations {
        facts.learn_revocation(*revocation, *seen);
    }
    facts
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_matter(
        ((issued, revocations), shuffled) in any_family().prop_flat_map(|(issued, revocations)| {
            (Just((issued, revocations.clone())), Just(revocations).prop_shuffle())
        }),
    ) {
        let judge = |facts: Facts| facts.judge(REVOKE_DELAY, 2 * REVOKE_DELAY);
        let expected = judge(facts_of(&issued, &revocations));
        prop_assert_eq!(&expected, &judge(facts_of(&issued, &shuffled)));
        let twice = [&shuffled[..], &revocations].concat();
        prop_assert_eq!(&expected, &judge(facts_of(&issued, &twice)));
    }

    /// Every key that does not stand has an effective revocation or lacks a standing issuer, and every effective
    /// revocation acts.
    #[test]
    fn no_key_is_revoked_without_an_effective_revocation((issued, revocations) in any_family()) {
        let judgement = facts_of(&issued, &revocations).judge(REVOKE_DELAY, 2 * REVOKE_DELAY);
        let position = |n: u8| judgement.positions.get(&key(n)).copied();
        for (revocation, seen) in &revocations {
            let Some(issuer) = revocation.issuer else { continue };
            let (Some(by), Some(on)) = (
                judgement.positions.get(&revocation.signer),
                judgement.positions.get(&issuer.issuing_key),
            ) else { continue };
            let downwards = on.depth >= by.depth && on.depth.is_some();
            if by.standing == Standing::Stands && downwards {
                prop_assert_eq!(on.standing, Standing::Revoked);
            }
            if by.standing == Standing::Stands && *seen <= REVOKE_DELAY {
                prop_assert_ne!(on.standing, Standing::Stands);
            }
        }
        for n in 0..PEOPLE {
            let Some(found) = position(n) else { continue };
            let by = |n| revocations.iter().filter(move |(revocation, _)| {
                revocation.subject == access(n)
                    || revocation.issuer.is_some_and(|issuer| issuer.issuing_key == key(n))
            });
            let reason = match found.standing {
                Standing::Stands => n == ROOT || issued.iter().any(|(issuer, ca)| {
                    *ca == n && position(*issuer).is_some_and(|s| s.standing <= Standing::Deposed)
                }),
                Standing::Orphaned => found.depth.is_none(),
                // Revoked by a senior, or by equals, some of which may be revoked with it.
                Standing::Revoked => by(n).any(|(revocation, _)| {
                    let by = judgement.positions.get(&revocation.signer);
                    by.is_some_and(|by| by.depth.is_some()
                        && (found.depth.is_none() || by.depth <= found.depth))
                }),
                Standing::Deposed => by(n).any(|(revocation, seen)| {
                    let by = judgement.positions.get(&revocation.signer);
                    *seen <= REVOKE_DELAY && by.is_some_and(|by| by.depth > found.depth)
                }),
            };
            prop_assert!(reason, "{} {:?}", n, found);
        }
    }

    /// Whatever stolen Backups sign, the Master stands once it has revoked them all, and its later statements are in
    /// effect.
    #[test]
    fn a_master_that_objects_prevails(
        (issued, revocations) in any_family(),
        thieves in subsequence((1..PEOPLE).collect::<Vec<_>>(), 0..9),
        said in proptest::collection::vec((any::<bool>(), 0..200u64), 0..6),
    ) {
        let mut facts = facts_of(&issued, &[]);
        let by_thieves = revocations.iter().filter(|(revocation, _)| {
            thieves.iter().any(|thief| key(*thief) == revocation.signer)
        });
        for (revocation, seen) in by_thieves {
            facts.learn_revocation(*revocation, *seen);
        }
        for thief in &thieves {
            facts.learn_revocation(revocation(ROOT, *thief, 100), u64::MAX / 2);
        }
        let judgement = facts.judge(REVOKE_DELAY, u64::MAX);
        prop_assert_eq!(judgement.standing(&key(ROOT)), Some(Standing::Stands));
        let sub = key(200);
        for thief in &thieves {
            prop_assert_ne!(judgement.standing(&key(*thief)), Some(Standing::Stands));
            let words = said.iter().map(|(allows, v)| if *allows { allow(*v) } else { deny(*v) });
            let words: Vec<_> = words
                .chain([REVOKED])
                .filter_map(|said| judgement.weigh(&key(*thief), &sub, said))
                .collect();
            prop_assert!(words.iter().all(|said| said.effect == Effect::Deny));
            let candidates = words.into_iter().chain([allow(101)]);
            prop_assert_eq!(newest(candidates), Some(allow(101)));
        }
    }
}
