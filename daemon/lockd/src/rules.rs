//! Which statements about a Key a Lock keeps, and whether it admits the Key. Who is believed is judged in
//! `keywright_proto::trust`; here is what one Lock makes of it for one Key. No I/O, no clock.

use keywright_proto::{
    Effect, Judgement, PublicKey, Standing, is_parked,
    rights::{VersionedEffect, newest},
    tree::Hash,
};

/// How many different revocations of one Key by one signer are kept.
const MAX_REVOCATIONS: usize = 3;

/// What a kept statement says of a Key at this Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptStatement {
    /// SHA-256 of the issuing key that signed it.
    pub signer: Hash,
    /// What it says.
    pub content: VersionedEffect,
    /// Names the statement.
    pub digest: Hash,
}

/// What becomes of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It is kept already, here.
    Known(usize),
    /// Its signer has said something newer; the version.
    Older(u64),
    /// It is kept, and these are not any more.
    Kept(Vec<usize>),
}

/// Where a new statement belongs among those kept of the same Key. Of each signer the newest is kept, and where that is
/// an allow, its newest deny too: should the signer be revoked one day, its denials stay and its allows do not. A statement
/// that is parked displaces none that is not. `now` is in Unix milliseconds, none where the clock is not set.
pub fn place(kept: &[KeptStatement], new: &KeptStatement, now: Option<u64>) -> Placement {
    if let Some(at) = kept.iter().position(|statement| statement.digest == new.digest) {
        return Placement::Known(at);
    }
    let own = || kept.iter().enumerate().filter(|(_, statement)| statement.signer == new.signer);
    let Some(version) = new.content.version else {
        let revocations =
            own().filter(|(_, statement)| statement.content.version.is_none()).count();
        return if revocations < MAX_REVOCATIONS {
            Placement::Kept(vec![])
        } else {
            Placement::Older(0)
        };
    };
    let parked = is_parked(version, now);
    let alike = own().filter_map(|(at, statement)| {
        let known = statement.content.version.filter(|known| is_parked(*known, now) == parked)?;
        Some((at, known, statement.content.effect))
    });
    let alike: Vec<_> = alike.collect();
    if parked {
        return place_parked(&alike, version, new.content.effect);
    }
    // A tie is deny.
    let outdone = |known: u64, effect: Effect| (known, new.content.effect) >= (version, effect);
    if let Some((_, known, _)) = alike.iter().find(|(_, known, effect)| outdone(*known, *effect)) {
        return Placement::Older(*known);
    }
    let gone = |effect: Effect| effect == new.content.effect || new.content.effect == Effect::Deny;
    let displaced = alike.iter().filter(|(_, _, effect)| gone(*effect));
    Placement::Kept(displaced.map(|(at, ..)| *at).collect())
}

/// Of what one signer says and has to wait, three are kept. The first one due: else a clock that is always ahead would put
/// off everything for ever. The first denial due, which ends what lets in before it. And the newest denial, which is not to
/// be lost behind these: what is refused here nobody says again when its time has come.
fn place_parked(kept: &[(usize, u64, Effect)], version: u64, effect: Effect) -> Placement {
    let waiting = || {
        let kept = kept.iter().map(|(at, version, effect)| (Some(*at), *version, *effect));
        kept.chain([(None, version, effect)])
    };
    let denials = || waiting().filter(|(_, _, effect)| *effect == Effect::Deny);
    let first = waiting().min_by_key(|(at, version, effect)| {
        let is_allow = *effect == Effect::Allow;
        (*version, is_allow, at.is_none())
    });
    let first_denial = denials().min_by_key(|(at, version, _)| (*version, at.is_none()));
    let last_denial = denials().max_by_key(|(at, version, _)| (*version, at.is_some()));
    let stay: Vec<_> = first.into_iter().chain(first_denial).chain(last_denial).collect();
    if let Some((_, known, _)) = stay.first().filter(|_| stay.iter().all(|(at, ..)| at.is_some())) {
        return Placement::Older(*known);
    }
    let goes = |at: &usize| stay.iter().all(|(stays, ..)| *stays != Some(*at));
    Placement::Kept(kept.iter().map(|(at, ..)| *at).filter(goes).collect())
}

/// What can go where there is no more room, if anything can. However much a thief says of a Key with CAs of its own, it can
/// be shut out, and whoever stands above the thief can let in.
///
/// First goes what counts for nothing because its signer, or whoever had certified it, was revoked. Then, for what shuts out, the oldest of what lets in,
/// and else of denials, but nothing from nearer to the root unless it is outdone: what waits for a delay displaces nobody's
/// statement meanwhile. For what lets in: what is older, if its signer does not stand or is farther from the root. Last, for a
/// revocation: those by signers that do not stand, or are farther from the root; it says the same with more weight.
pub fn evictable(
    kept: &[KeptStatement],
    new: &KeptStatement,
    subject: &Hash,
    judgement: &Judgement,
) -> Option<usize> {
    let weigh =
        |statement: &KeptStatement| judgement.weigh(&statement.signer, subject, statement.content);
    let (own, acts) = (judgement.depth(&new.signer), weigh(new).is_some());
    let gone = kept.iter().enumerate().filter_map(|(at, statement)| {
        let (said, denies, left) =
            (statement.content, statement.content.effect == Effect::Deny, weigh(statement));
        let standing = judgement.standing(&statement.signer);
        let is_out = standing.is_some_and(|standing| standing >= Standing::Orphaned);
        let depth = judgement.depth(&statement.signer).filter(|_| !is_out);
        let below = own.is_some_and(|own| depth.is_none_or(|depth| own < depth));
        let beside = below || (own.is_some() && own == depth);
        // A revocation by somebody revoked is no more than a denial.
        let version = left.map_or(said.version, |left| left.version);
        let class = match (new.content.effect, new.content.version) {
            _ if left.is_none() && (standing == Some(Standing::Revoked) || is_out && !denies) => 0,
            (Effect::Deny, newer) if said.version.is_some() => {
                let outdone = acts && newer.is_none_or(|newer| said.version < Some(newer));
                (beside || outdone).then_some(1)?
            }
            // One that was certified by somebody revoked may be certified anew, and its statement counts then.
            (Effect::Allow, _) if left.is_none() && is_out && below => 1,
            (Effect::Allow, newer) if version.is_some() && version < newer && below => 1,
            (Effect::Deny, None) if below => 2,
            _ => return None,
        };
        Some((class, denies, version, at))
    });
    gone.min().map(|(.., at)| at)
}

/// Whether the Key is admitted.
pub fn effect(
    kept: &[KeptStatement],
    subject: &PublicKey,
    judgement: &Judgement,
    now: Option<u64>,
) -> Effect {
    let subject = subject.hash();
    let counting = kept.iter().filter(|statement| !waits(statement, now));
    let heard = counting
        .filter_map(|statement| judgement.weigh(&statement.signer, &subject, statement.content));
    newest(heard).map_or(Effect::Deny, |said| said.effect)
}

/// The newest version that is known and not parked; 0 where there is none.
pub fn newest_version(kept: &[KeptStatement], now: Option<u64>) -> u64 {
    let counting = kept.iter().filter(|statement| !waits(statement, now));
    counting.filter_map(|statement| statement.content.version).max().unwrap_or(0)
}

/// Whether a statement is parked.
pub fn waits(statement: &KeptStatement, now: Option<u64>) -> bool {
    statement.content.version.is_some_and(|version| is_parked(version, now))
}

#[cfg(test)]
mod tests {
    use keywright_proto::{Facts, RevokedIssuer, trust::Revocation};
    use proptest::prelude::*;

    use super::*;
    use crate::family::{Ca, Key};

    const NOW: Option<u64> = Some(1_000_000_000_000);
    const FUTURE: u64 = 1_000_000_000_000 + 86_400_001;

    fn stated(signer: u8, version: Option<u64>, effect: Effect) -> KeptStatement {
        let digest = [signer, effect as u8].into_iter().chain(version.unwrap_or(9).to_be_bytes());
        let mut filled = [0; 32];
        filled.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        KeptStatement {
            signer: [signer; 32],
            content: VersionedEffect { version, effect },
            digest: filled,
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
            (vec![allow(1, 5)], deny(1, 4), Placement::Older(5)),
            (vec![allow(1, 5)], allow(1, 6), Placement::Kept(vec![0])),
            // Its denial stays beside what it allows later.
            (vec![deny(1, 5)], allow(1, 6), Placement::Kept(vec![])),
            (vec![deny(1, 5), allow(1, 6)], deny(1, 7), Placement::Kept(vec![0, 1])),
            // A tie is deny, whichever came first.
            (vec![allow(1, 5)], deny(1, 5), Placement::Kept(vec![0])),
            (vec![deny(1, 5)], allow(1, 5), Placement::Older(5)),
            // Another signer may be revoked one day.
            (vec![allow(1, 5)], allow(2, 4), Placement::Kept(vec![])),
            // The future waits, and takes nobody's place.
            (vec![allow(1, 5)], deny(1, FUTURE), Placement::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, 5), Placement::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, FUTURE + 1), Placement::Older(FUTURE)),
            (vec![deny(1, FUTURE + 1)], allow(1, FUTURE), Placement::Kept(vec![])),
            (vec![allow(1, FUTURE + 1)], allow(1, FUTURE), Placement::Kept(vec![0])),
            (vec![allow(1, FUTURE)], allow(1, FUTURE + 1), Placement::Older(FUTURE)),
            // A denial is not lost behind what is due before it, nor put off by its own repetition.
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
                Placement::Older(FUTURE),
            ),
            (
                vec![allow(1, FUTURE), deny(1, FUTURE + 1)],
                allow(1, FUTURE + 2),
                Placement::Older(FUTURE),
            ),
            (vec![allow(1, FUTURE)], deny(1, FUTURE), Placement::Kept(vec![0])),
            (vec![deny(1, FUTURE)], allow(1, FUTURE), Placement::Older(FUTURE)),
            (vec![allow(1, 5)], stated(1, None, Effect::Deny), Placement::Kept(vec![])),
        ] {
            assert_eq!(place(&kept, &new, NOW), expected, "{kept:?} {new:?}");
        }
        assert_eq!(place(&[allow(1, 5)], &deny(1, FUTURE), None), Placement::Kept(vec![0]));
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], NOW), 5);
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], None), FUTURE);
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

    /// What goes of these, on the statement of 0, the Master. 1 is a Backup by it, and 2 and 3 are by 1.
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
        // The Master's own Key, revoked from below.
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
            ("but what is outdone", false, &[allow(0, 7)], deny(1, 8), Some(0)),
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
            ("their future does not", true, &[deny(2, 99)], allow(0, 9), Some(0)),
            ("as far as they go", true, &[revocation(1)], allow(0, 50), None),
            ("and those it had certified", true, &[deny(2, 9), allow(3, 8)], allow(0, 10), Some(1)),
        ] {
            assert_eq!(goes(revoked, kept, new), expected, "{what}");
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
        /// Whatever arrives, little is kept of each signer, and nothing that counted is outdone by something older.
        #[test]
        fn few_statements_are_kept_and_old_ones_never_return(statements in proptest::collection::vec(any_statement(), 0..40)) {
            let mut kept: Vec<KeptStatement> = Vec::new();
            for new in statements {
                let counting = |kept: &[KeptStatement], signer| newest(
                    kept.iter().filter(|w| w.signer == signer && !waits(w, NOW)).map(|w| w.content),
                );
                let before = counting(&kept, new.signer);
                if let Placement::Kept(displaced) = place(&kept, &new, NOW) {
                    let mut at = 0;
                    kept.retain(|_| { at += 1; !displaced.contains(&(at - 1)) });
                    kept.push(new);
                }
                let after = counting(&kept, new.signer);
                prop_assert_eq!(newest(before.into_iter().chain(after)), after);
                for signer in 0..3 {
                    prop_assert!(kept.iter().filter(|w| w.signer == [signer; 32]).count() <= 8);
                }
            }
        }
    }
}
