//! Which statements about a Key a Lock keeps, and whether it admits the Key. `keywright_proto::trust` judges which
//! signers are trusted; this module applies that to one Key at one Lock. No I/O, no clock.

use keywright_proto::{
    Effect, Judgement, PublicKey, Standing, is_parked,
    rights::{VersionedEffect, newest},
    tree::Hash,
};

/// How many revocations of one Key by one signer are kept.
const MAX_REVOCATIONS: usize = 3;

/// A statement about a Key, as a Lock keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptStatement {
    /// SHA-256 of the issuing key that signed it.
    pub signer: Hash,
    /// The version and the effect at this Lock.
    pub content: VersionedEffect,
    /// The statement's digest.
    pub digest: Hash,
}

impl KeptStatement {
    /// Whether the statement is parked: its version is too far in the future. `now` is in Unix milliseconds, `None` if the
    /// clock is not set.
    pub fn is_parked(&self, now: Option<u64>) -> bool {
        self.content.version.is_some_and(|version| is_parked(version, now))
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

/// Decides whether to keep a new statement, and which older ones it replaces. Of each signer the newest statement is
/// kept. If that one allows, the newest denial is kept too, because a signer's denials outlive its revocation and its
/// allows do not. A parked statement replaces only parked ones. `now` is in Unix milliseconds, `None` if the clock is
/// not set.
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
    // Of an allow and a denial of the same version, the denial wins.
    let outweighed = |known: u64, effect: Effect| (known, new.content.effect) >= (version, effect);
    if let Some((_, known, _)) = alike.iter().find(|(_, known, effect)| outweighed(*known, *effect))
    {
        return Placement::Older(*known);
    }
    let gone = |effect: Effect| effect == new.content.effect || new.content.effect == Effect::Deny;
    let displaced = alike.iter().filter(|(_, _, effect)| gone(*effect));
    Placement::Kept(displaced.map(|(at, ..)| *at).collect())
}

/// Of the parked statements of one signer, three are kept: the first one due, because otherwise a station whose clock
/// is always ahead would put off everything for ever; the first denial due, which ends an allow before it; and the
/// newest denial, because no station repeats a denial that was refused here.
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

/// Whether the Lock admits the Key.
pub fn effect(
    kept: &[KeptStatement],
    subject: &PublicKey,
    judgement: &Judgement,
    now: Option<u64>,
) -> Effect {
    let subject = subject.hash();
    let due = kept.iter().filter(|statement| !statement.is_parked(now));
    let weighed =
        due.filter_map(|statement| judgement.weigh(&statement.signer, &subject, statement.content));
    newest(weighed).map_or(Effect::Deny, |newest| newest.effect)
}

/// The newest version that is known and not parked; 0 if there is none.
pub fn newest_version(kept: &[KeptStatement], now: Option<u64>) -> u64 {
    let due = kept.iter().filter(|statement| !statement.is_parked(now));
    due.filter_map(|statement| statement.content.version).max().unwrap_or(0)
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
            // The denial stays beside a later allow.
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
        /// Whatever arrives, few statements of each signer are kept, and an older one never takes the place of a
        /// newer one.
        #[test]
        fn few_statements_are_kept_and_old_ones_never_return(statements in proptest::collection::vec(any_statement(), 0..40)) {
            let mut kept: Vec<KeptStatement> = Vec::new();
            for new in statements {
                let newest_of = |kept: &[KeptStatement], signer| newest(
                    kept.iter().filter(|w| w.signer == signer && !w.is_parked(NOW)).map(|w| w.content),
                );
                let before = newest_of(&kept, new.signer);
                if let Placement::Kept(displaced) = place(&kept, &new, NOW) {
                    let mut at = 0;
                    kept.retain(|_| { at += 1; !displaced.contains(&(at - 1)) });
                    kept.push(new);
                }
                let after = newest_of(&kept, new.signer);
                prop_assert_eq!(newest(before.into_iter().chain(after)), after);
                for signer in 0..3 {
                    prop_assert!(kept.iter().filter(|w| w.signer == [signer; 32]).count() <= 8);
                }
            }
        }
    }
}
