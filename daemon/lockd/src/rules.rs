//! Which statements about a Key a Lock keeps, and whether it admits the Key. `keywright_proto::trust` judges which
//! signers are trusted; this module applies that to one Key at one Lock. No I/O, no clock.

use std::{cmp::Reverse, collections::BTreeSet};

use keywright_proto::{
    Effect, Judgement, PublicKey, Standing, is_parked,
    rights::{VersionedEffect, newest},
    tree::Hash,
};

/// How many revocations of one Key by one signer are kept: those with the smallest digests.
const MAX_REVOCATIONS: usize = 3;

/// By what a Lock tells which statements are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The wall clock in Unix milliseconds; `None` if it is not set.
    pub wall: Option<u64>,
    /// The newest version that was ever due here. What is not newer is due, so a clock that is set back changes nothing.
    pub floor: u64,
}

impl Clock {
    /// Whether a statement of this version has to wait, because it is too far in the future.
    pub fn parks(self, version: u64) -> bool {
        version > self.floor && is_parked(version, self.wall)
    }
}

/// A statement about a Key, as a Lock keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptStatement {
    /// SHA-256 of the issuing key that signed it.
    pub signer: Hash,
    /// The version and the effect at this Lock.
    pub content: VersionedEffect,
    /// The statement's digest.
    pub digest: Hash,
    /// The first-level CA of its signer ([`keywright_proto::trust::first_level`]).
    pub group: Hash,
    /// How many certificates the chain of its signer has: 1 for the root.
    pub distance: usize,
    /// In a revocation: the issuing key that it names.
    pub names: Option<Hash>,
    /// Whether it was once due. It stays so.
    pub due: bool,
}

impl KeptStatement {
    /// Whether the statement is parked: its version is too far in the future, and always was.
    pub fn is_parked(&self, clock: Clock) -> bool {
        !self.due && self.content.version.is_some_and(|version| clock.parks(version))
    }
}

/// What happens to a new statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It is kept already, at this index.
    Known(usize),
    /// It is refused: the same signer has signed this newer version.
    Older(u64),
    /// It is to be kept, and the statements at these indices are to be removed.
    Kept(Vec<usize>),
}

/// Decides whether to keep a new statement, and which older ones of its signer it replaces. What is kept does not depend on
/// the order of arrival:
///
/// - the newest statement, and the newest denial, because a signer's denials outlive its revocation and its allows do not;
/// - of the parked ones the first that will be due, because otherwise a station whose clock is always ahead would put off
///   everything for ever; the first denial due, which ends an allow before it; and the newest denial, because no station
///   repeats a denial that was refused here;
/// - a few revocations: they say the same, but may name different issuing keys.
pub fn place(kept: &[KeptStatement], new: &KeptStatement, clock: Clock) -> Placement {
    if let Some(at) = kept.iter().position(|statement| statement.digest == new.digest) {
        return Placement::Known(at);
    }
    let own = kept.iter().enumerate().filter(|(_, statement)| statement.signer == new.signer);
    let all: Vec<_> =
        own.map(|(at, statement)| (Some(at), statement)).chain([(None, new)]).collect();
    let stay = staying(&all, clock);
    if !stay.contains(&None) {
        let newer = stay.iter().flatten().filter_map(|at| kept.get(*at)?.content.version);
        return Placement::Older(newer.max().unwrap_or_default());
    }
    let goes = |at: &Option<usize>| !stay.contains(at);
    Placement::Kept(all.iter().map(|(at, _)| *at).filter(goes).flatten().collect())
}

/// A statement, and its place among those that are kept; a new one has none.
type Placed<'a> = (Option<usize>, &'a KeptStatement);

/// Which of the statements of one signer stay, by their places.
fn staying(all: &[Placed<'_>], clock: Clock) -> BTreeSet<Option<usize>> {
    let (mut revocations, mut due, mut parked) = (vec![], vec![], vec![]);
    for placed in all {
        match placed.1 {
            statement if statement.content.version.is_none() => revocations.push(*placed),
            statement if statement.is_parked(clock) => parked.push(*placed),
            _ => due.push(*placed),
        }
    }
    revocations.sort_unstable_by_key(|(_, statement)| statement.digest);
    revocations.truncate(MAX_REVOCATIONS);
    let newest = due.iter().copied().max_by_key(age);
    let newest_denial = due.iter().copied().filter(denies).max_by_key(age);
    let first_parked = parked.iter().copied().min_by_key(turn);
    let first_denial = parked.iter().copied().filter(denies).min_by_key(turn);
    let last_denial = parked.iter().copied().filter(denies).max_by_key(age);
    let others = [newest, newest_denial, first_parked, first_denial, last_denial];
    revocations.into_iter().chain(others.into_iter().flatten()).map(|(at, _)| at).collect()
}

fn denies((_, statement): &Placed<'_>) -> bool {
    statement.content.effect == Effect::Deny
}

/// Of two with the same version the denial is the newer one; of two alike the one with the smaller digest.
fn age(placed: &Placed<'_>) -> (Option<u64>, bool, Reverse<Hash>) {
    (placed.1.content.version, denies(placed), Reverse(placed.1.digest))
}

/// Of two with the same version the denial is due first.
fn turn(placed: &Placed<'_>) -> (Option<u64>, bool, Hash) {
    (placed.1.content.version, !denies(placed), placed.1.digest)
}

/// Which statement to evict when a Key's record is full: its index, or `None`. However many statements a thief signs
/// with CAs of its own, a Key can still be denied, and the issuers above the thief can still allow it.
///
/// The candidates, in this order:
///
/// 1. Statements without effect, because their signer or its issuer was revoked.
/// 2. For a denial: the oldest allow, else the oldest denial, but none of a signer nearer to the root unless the new
///    one outweighs it now; a revocation that waits for its delay evicts nothing from above.
/// 3. For an allow: an older statement whose signer is not in effect or is farther from the root.
/// 4. For a revocation: a revocation whose signer is not in effect or is farther from the root, since the new one
///    says the same with more weight.
pub fn evictable(
    kept: &[KeptStatement],
    new: &KeptStatement,
    subject: &Hash,
    judgement: &Judgement,
) -> Option<usize> {
    let weigh =
        |statement: &KeptStatement| judgement.weigh(&statement.signer, subject, statement.content);
    let (own, has_effect) = (judgement.depth(&new.signer), weigh(new).is_some());
    let candidates = kept.iter().enumerate().filter_map(|(at, statement)| {
        let (content, denies, remaining) =
            (statement.content, statement.content.effect == Effect::Deny, weigh(statement));
        let standing = judgement.standing(&statement.signer);
        let is_void = standing.is_some_and(|standing| standing >= Standing::Orphaned);
        let depth = judgement.depth(&statement.signer).filter(|_| !is_void);
        let below = own.is_some_and(|own| depth.is_none_or(|depth| own < depth));
        let level = below || (own.is_some() && own == depth);
        // A revocation by a revoked signer counts as a denial only.
        let version = remaining.map_or(content.version, |remaining| remaining.version);
        let class = match (new.content.effect, new.content.version) {
            _ if remaining.is_none()
                && (standing == Some(Standing::Revoked) || is_void && !denies) =>
            {
                0
            }
            (Effect::Deny, newer) if content.version.is_some() => {
                let outweighed =
                    has_effect && newer.is_none_or(|newer| content.version < Some(newer));
                (level || outweighed).then_some(1)?
            }
            // A signer whose issuer was revoked may be certified again, and its statements then count again.
            (Effect::Allow, _) if remaining.is_none() && is_void && below => 1,
            (Effect::Allow, newer) if version.is_some() && version < newer && below => 1,
            (Effect::Deny, None) if below => 2,
            _ => return None,
        };
        Some((class, denies, version, at))
    });
    candidates.min().map(|(.., at)| at)
}

/// Whether a Key may be forgotten to make room for a new statement by a signer that stands. All statements about it are of
/// the new one's first-level CA, and:
///
/// - they allow, and their signers do not stand any more; or
/// - they deny, and a signer nearer to the root needs the room: for a denial, or because their signers do not stand.
///
/// `names_issuer` says whether a revocation takes part in the judgement of issuing keys. Such a one is never forgotten.
pub fn is_expendable(
    kept: &[KeptStatement],
    new: &KeptStatement,
    judgement: &Judgement,
    names_issuer: impl Fn(&KeptStatement) -> bool,
) -> bool {
    kept.iter().all(|one| {
        let fallen = judgement.standing(&one.signer) >= Some(Standing::Orphaned);
        let nearer = new.distance < one.distance;
        let goes = match one.content.effect {
            Effect::Allow => fallen,
            Effect::Deny => nearer && (fallen || new.content.effect == Effect::Deny),
        };
        one.group == new.group && goes && !names_issuer(one)
    })
}

/// Whether the Lock admits the Key.
pub fn effect(
    kept: &[KeptStatement],
    subject: &PublicKey,
    judgement: &Judgement,
    clock: Clock,
) -> Effect {
    let subject = subject.hash();
    let due = kept.iter().filter(|statement| !statement.is_parked(clock));
    let weighed =
        due.filter_map(|statement| judgement.weigh(&statement.signer, &subject, statement.content));
    newest(weighed).map_or(Effect::Deny, |newest| newest.effect)
}

/// The newest version that is known and not parked; 0 if there is none.
pub fn newest_version(kept: &[KeptStatement], clock: Clock) -> u64 {
    let due = kept.iter().filter(|statement| !statement.is_parked(clock));
    due.filter_map(|statement| statement.content.version).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use keywright_proto::{Facts, RevokedIssuer, trust::Revocation};
    use proptest::prelude::*;

    use super::*;
    use crate::family::{Ca, Key};

    const NOW: Clock = Clock { wall: Some(1_000_000_000_000), floor: 0 };
    const UNSET: Clock = Clock { wall: None, floor: 0 };
    const FUTURE: u64 = 1_000_000_000_000 + 86_400_001;

    fn stated(signer: u8, version: Option<u64>, effect: Effect) -> KeptStatement {
        let digest = [signer, effect as u8].into_iter().chain(version.unwrap_or(9).to_be_bytes());
        let mut filled = [0; 32];
        filled.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        KeptStatement {
            signer: [signer; 32],
            content: VersionedEffect { version, effect },
            digest: filled,
            group: [signer; 32],
            distance: 2,
            names: None,
            due: false,
        }
    }
    fn allow(signer: u8, version: u64) -> KeptStatement {
        stated(signer, Some(version), Effect::Allow)
    }
    fn deny(signer: u8, version: u64) -> KeptStatement {
        stated(signer, Some(version), Effect::Deny)
    }

    #[test]
    fn newer_statements_replace_older_ones_of_their_signer() {
        for (kept, new, expected) in [
            (vec![], allow(1, 1), Placement::Kept(vec![])),
            (vec![allow(1, 1)], allow(1, 1), Placement::Known(0)),
            (vec![allow(1, 5)], allow(1, 4), Placement::Older(5)),
            // The denial stays beside a later allow, whichever came first.
            (vec![allow(1, 5)], deny(1, 4), Placement::Kept(vec![])),
            (vec![deny(1, 3), allow(1, 5)], deny(1, 4), Placement::Kept(vec![0])),
            (vec![deny(1, 4), allow(1, 5)], deny(1, 3), Placement::Older(5)),
            (vec![allow(1, 5)], allow(1, 6), Placement::Kept(vec![0])),
            (vec![deny(1, 5)], allow(1, 6), Placement::Kept(vec![])),
            (vec![deny(1, 5), allow(1, 6)], deny(1, 7), Placement::Kept(vec![0, 1])),
            // The denial wins a tie, whichever came first.
            (vec![allow(1, 5)], deny(1, 5), Placement::Kept(vec![0])),
            (vec![deny(1, 5)], allow(1, 5), Placement::Older(5)),
            // The other signer may be revoked one day.
            (vec![allow(1, 5)], allow(2, 4), Placement::Kept(vec![])),
            // A parked statement replaces none that is in effect.
            (vec![allow(1, 5)], deny(1, FUTURE), Placement::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, 5), Placement::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, FUTURE + 1), Placement::Older(FUTURE)),
            (vec![deny(1, FUTURE + 1)], allow(1, FUTURE), Placement::Kept(vec![])),
            (vec![allow(1, FUTURE + 1)], allow(1, FUTURE), Placement::Kept(vec![0])),
            (vec![allow(1, FUTURE)], allow(1, FUTURE + 1), Placement::Older(FUTURE)),
            // A denial is neither lost behind statements due before it nor put off by its repetition.
            (vec![allow(1, FUTURE)], deny(1, FUTURE + 1), Placement::Kept(vec![])),
            (
                vec![allow(1, FUTURE), deny(1, FUTURE + 1)],
                deny(1, FUTURE + 3),
                Placement::Kept(vec![]),
            ),
            (
                vec![deny(1, FUTURE), deny(1, FUTURE + 1)],
                deny(1, FUTURE + 2),
                Placement::Kept(vec![1]),
            ),
            (
                vec![deny(1, FUTURE), deny(1, FUTURE + 2)],
                deny(1, FUTURE + 1),
                Placement::Older(FUTURE + 2),
            ),
            (
                vec![allow(1, FUTURE), deny(1, FUTURE + 1)],
                allow(1, FUTURE + 2),
                Placement::Older(FUTURE + 1),
            ),
            (vec![allow(1, FUTURE)], deny(1, FUTURE), Placement::Kept(vec![0])),
            (vec![deny(1, FUTURE)], allow(1, FUTURE), Placement::Older(FUTURE)),
            (vec![allow(1, 5)], stated(1, None, Effect::Deny), Placement::Kept(vec![])),
        ] {
            assert_eq!(place(&kept, &new, NOW), expected, "{kept:?} {new:?}");
        }
        assert_eq!(place(&[allow(1, 5)], &deny(1, FUTURE), UNSET), Placement::Kept(vec![0]));
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], NOW), 5);
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], UNSET), FUTURE);
    }

    fn signer(number: u8) -> Hash {
        Key::new(number + 1).public().hash()
    }

    fn judgement(revoked: bool) -> Judgement {
        let master = Ca::master(Key::new(1));
        let backup = master.backup(Key::new(2), 2);
        let mut facts = Facts::new(&master.key.public());
        facts.learn_chain(&backup.backup(Key::new(3), 3).chain);
        facts.learn_chain(&backup.backup(Key::new(4), 4).chain);
        facts.learn_chain(&master.issue(&Key::new(9), keywright_proto::Role::Master, &[9]));
        if revoked {
            let revokes = RevokedIssuer { issuing_key: signer(1), denials_until: 50 };
            let issuer = Some(revokes);
            let revocation = Revocation { signer: signer(0), subject: [88; 32], issuer };
            facts.learn_revocation(revocation, 0);
        }
        facts.judge(1, 0)
    }

    /// What a new statement evicts. Signer 0 is the Master, 1 a Backup certified by it, 2 and 3 are Backups certified
    /// by 1.
    fn goes(revoked: bool, kept: &[KeptStatement], new: KeptStatement) -> Option<usize> {
        let judgement = judgement(revoked);
        let hashed = |statement: &KeptStatement| KeptStatement {
            signer: signer(statement.signer[0]),
            ..*statement
        };
        let kept: Vec<_> = kept.iter().map(hashed).collect();
        evictable(&kept, &hashed(&new), &[77; 32], &judgement)
    }

    #[test]
    fn eviction_follows_standing_depth_and_age() {
        let revocation = |signer| stated(signer, None, Effect::Deny);
        // A Backup revokes the Master's own Key.
        let judgement = judgement(false);
        let (own, theft) = (allow(0, 1), revocation(1));
        let hashed = |statement: KeptStatement| KeptStatement {
            signer: signer(statement.signer[0]),
            ..statement
        };
        let kept = [hashed(own)];
        let access = Key::new(9).public().hash();
        assert_eq!(evictable(&kept, &hashed(theft), &access, &judgement), None);
        assert_eq!(evictable(&kept, &hashed(theft), &[77; 32], &judgement), Some(0));
        let kept = [revocation(1), deny(1, 3), allow(2, 7), allow(3, 5), deny(3, 1)];
        for (what, revoked, kept, new, expected) in [
            ("shuts out: what lets in goes first", false, &kept[..], deny(1, 9), Some(3)),
            ("then denials", false, &kept[..2], revocation(1), Some(1)),
            ("nothing newer from above", false, &[allow(0, 9)], deny(1, 8), None),
            ("but what is outweighed", false, &[allow(0, 7)], deny(1, 8), Some(0)),
            ("a revocation is final", false, &kept[..1], deny(1, 9), None),
            ("but for the same from above", false, &kept[..1], revocation(0), Some(0)),
            ("not from an equal", false, &kept[..1], revocation(1), None),
            ("lets in: the older from below", false, &kept[1..], allow(0, 9), Some(2)),
            ("what is newer stays", false, &[deny(1, 9)], allow(0, 9), None),
            ("and what is by an equal", false, &[allow(1, 3)], allow(1, 9), None),
            ("a revocation that counts stays", false, &kept[..1], allow(0, 9), None),
            ("what is void goes", true, &[deny(1, 3), allow(1, 99)], allow(0, 9), Some(1)),
            ("and what it had denied", true, &[deny(1, 3)], allow(0, 9), Some(0)),
            ("its revocations too", true, &[revocation(1), revocation(2)], allow(0, 51), Some(0)),
            ("their future is no newer", true, &[deny(2, 99)], allow(0, 51), Some(0)),
            ("and no older", true, &[deny(2, 99)], allow(0, 50), None),
            ("as far as they go", true, &[revocation(1)], allow(0, 50), None),
            ("and those it had certified", true, &[deny(2, 9), allow(3, 8)], allow(0, 10), Some(1)),
        ] {
            assert_eq!(goes(revoked, kept, new), expected, "{what}");
        }
    }

    /// A statement by this signer, which is this far from the root.
    fn at(distance: usize, statement: KeptStatement) -> KeptStatement {
        KeptStatement { distance, group: [1; 32], ..statement }
    }

    #[test]
    fn only_what_has_no_weight_makes_room() {
        let (master, thief) = (Ca::master(Key::new(1)), Key::new(2));
        let backup = master.backup(thief.clone(), 2);
        let below = backup.backup(Key::new(3), 3);
        let hash = |key: &Key| key.public().hash();
        let mut facts = Facts::new(&master.key.public());
        facts.learn_chain(&below.backup(Key::new(4), 4).chain);
        let judge = |facts: &Facts| facts.judge(0, 0);
        let standing = judge(&facts);
        facts.learn_revocation(
            Revocation {
                signer: hash(&thief),
                subject: [88; 32],
                issuer: Some(RevokedIssuer { issuing_key: hash(&below.key), denials_until: 0 }),
            },
            0,
        );
        let fallen = judge(&facts);
        let by = |key: &Key, distance, statement| KeptStatement {
            signer: hash(key),
            ..at(distance, statement)
        };
        let of_below = |statement| by(&below.key, 3, statement);
        let of_backup = |statement| by(&thief, 2, statement);
        for (what, kept, new, while_standing, once_fallen) in [
            ("an allow", of_below(allow(0, 5)), of_backup(allow(0, 6)), false, true),
            (
                "for a sibling too",
                of_below(allow(0, 5)),
                by(&Key::new(4), 3, allow(0, 6)),
                false,
                true,
            ),
            ("a denial, for an allow", of_below(deny(0, 5)), of_backup(allow(0, 6)), false, true),
            ("a denial, for a denial", of_below(deny(0, 5)), of_backup(deny(0, 6)), true, true),
            (
                "not for a sibling's",
                of_below(deny(0, 5)),
                by(&Key::new(4), 3, deny(0, 6)),
                false,
                false,
            ),
            ("of another group", allow(0, 5), of_backup(deny(0, 6)), false, false),
        ] {
            let expendable = |judgement| is_expendable(&[kept], &new, judgement, |_| false);
            assert_eq!(expendable(&standing), while_standing, "{what}");
            assert_eq!(expendable(&fallen), once_fallen, "{what}");
            assert!(!is_expendable(&[kept], &new, &fallen, |_| true));
            let with_another = [kept, of_backup(allow(0, 1))];
            assert!(!is_expendable(&with_another, &new, &fallen, |_| false));
        }
    }

    fn any_statement() -> impl Strategy<Value = KeptStatement> {
        (0..3u8, proptest::option::of(prop_oneof![0..6u64, FUTURE..FUTURE + 3]), any::<bool>())
            .prop_map(|(signer, version, allows)| match version {
                Some(version) if allows => allow(signer, version),
                version => stated(signer, version, Effect::Deny),
            })
    }

    proptest! {
        /// Whatever arrives, few statements of each signer are kept, and always the same.
        #[test]
        fn same_few_statements_are_kept_in_any_order(
            (statements, mixed) in proptest::collection::vec(any_statement(), 0..40).prop_flat_map(
                |statements| (Just(statements.clone()), Just(statements).prop_shuffle()),
            ),
        ) {
            let kept = kept_of(&statements);
            prop_assert_eq!(&kept, &kept_of(&mixed));
            prop_assert_eq!(&kept, &kept_of(&[&mixed[..], &statements].concat()));
            for signer in 0..3 {
                let own = |all: &[KeptStatement]| newest(
                    all.iter().filter(|w| w.signer == [signer; 32] && !w.is_parked(NOW)).map(|w| w.content),
                );
                prop_assert_eq!(own(&kept), own(&statements));
                prop_assert!(kept.iter().filter(|w| w.signer == [signer; 32]).count() <= 8);
            }
        }

        /// Set back, or years ahead: what was due stays due.
        #[test]
        fn clock_that_is_set_back_parks_nothing_that_was_due(
            statements in proptest::collection::vec(any_statement(), 0..12), wall in 0..FUTURE * 2,
        ) {
            let late = Clock { wall: Some(FUTURE), floor: 0 };
            let mut kept = kept_of(&statements);
            kept.iter_mut().for_each(|kept| kept.due = !kept.is_parked(late));
            let floor = newest_version(&kept, late);
            let back = Clock { wall: Some(wall), floor };
            for kept in kept.iter().filter(|kept| !kept.is_parked(late)) {
                prop_assert!(!kept.is_parked(back));
            }
            prop_assert!(!back.parks(floor));
        }
    }

    /// What is kept of these, by digest.
    fn kept_of(statements: &[KeptStatement]) -> Vec<KeptStatement> {
        let mut kept: Vec<KeptStatement> = Vec::new();
        for new in statements {
            if let Placement::Kept(displaced) = place(&kept, new, NOW) {
                let mut at = 0;
                kept.retain(|_| {
                    at += 1;
                    !displaced.contains(&(at - 1))
                });
                kept.push(*new);
            }
        }
        kept.sort_unstable_by_key(|kept| kept.digest);
        kept
    }
}
