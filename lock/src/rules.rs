//! Which statements about a Key a Lock keeps, and whether it admits the Key. Who is believed is judged in
//! `keywright_proto::judgement`; here is what one Lock makes of it for one Key. No I/O, no clock.

use keywright_proto::{
    Effect, Judgement, PublicKey, is_parked,
    rights::{Said, newest},
    tree::Hash,
};

/// How many different revocations of one Key by one signer are kept.
const MAX_REVOCATIONS: usize = 3;

/// What a kept statement says of a Key at this Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// SHA-256 of the issuing key that signed it.
    pub signer: Hash,
    /// What it says.
    pub said: Said,
    /// Names the statement.
    pub digest: Hash,
}

/// What becomes of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is kept already, here.
    Known(usize),
    /// Its signer has said something newer; the version.
    Older(u64),
    /// It is kept, and these are not any more.
    Kept(Vec<usize>),
}

/// Where a new statement belongs among those kept of the same Key. Of each signer the newest is kept, and where that is
/// an allow, its newest deny too: should the signer be revoked one day, its denials stay and its allows do not. A statement that is parked
/// displaces none that is not. `now` is in Unix milliseconds, none where the clock is not set.
pub fn place(kept: &[Word], new: &Word, now: Option<u64>) -> Place {
    if let Some(at) = kept.iter().position(|word| word.digest == new.digest) {
        return Place::Known(at);
    }
    let own = || kept.iter().enumerate().filter(|(_, word)| word.signer == new.signer);
    let Some(version) = new.said.version else {
        let revocations = own().filter(|(_, word)| word.said.version.is_none()).count();
        return if revocations < MAX_REVOCATIONS { Place::Kept(vec![]) } else { Place::Older(0) };
    };
    let parked = is_parked(version, now);
    let alike = own().filter_map(|(at, word)| {
        let known = word.said.version.filter(|known| is_parked(*known, now) == parked)?;
        Some((at, known, word.said.effect))
    });
    let alike: Vec<_> = alike.collect();
    // Of those that wait, the first one due; of those that count, the newest. A tie is deny.
    let outdone = |known: u64, effect: Effect| {
        if parked { known <= version } else { (known, new.said.effect) >= (version, effect) }
    };
    if let Some((_, known, _)) = alike.iter().find(|(_, known, effect)| outdone(*known, *effect)) {
        return Place::Older(*known);
    }
    let gone = |effect: Effect| effect == new.said.effect || new.said.effect == Effect::Deny;
    let displaced = alike.iter().filter(|(_, _, effect)| parked || gone(*effect));
    Place::Kept(displaced.map(|(at, ..)| *at).collect())
}

/// What can go where there is no more room: nothing for what lets in; for what shuts out, the oldest of what lets in, and
/// else of denials. However much a thief says of a Key, it can be shut out.
pub fn dispensable(kept: &[Word], new: &Word) -> Option<usize> {
    if new.said.effect == Effect::Allow {
        return None;
    }
    let versioned = kept.iter().enumerate().filter_map(|(at, word)| {
        let version = word.said.version?;
        Some((word.said.effect == Effect::Deny, version, at))
    });
    versioned.min().map(|(.., at)| at)
}

/// Whether the Key is admitted.
pub fn effect(
    kept: &[Word],
    subject: &PublicKey,
    judgement: &Judgement,
    now: Option<u64>,
) -> Effect {
    let subject = subject.hash();
    let counting = kept.iter().filter(|word| !waits(word, now));
    let heard = counting.filter_map(|word| judgement.weigh(&word.signer, &subject, word.said));
    newest(heard).map_or(Effect::Deny, |said| said.effect)
}

/// The newest version that is known and not parked; 0 where there is none.
pub fn newest_version(kept: &[Word], now: Option<u64>) -> u64 {
    let counting = kept.iter().filter(|word| !waits(word, now));
    counting.filter_map(|word| word.said.version).max().unwrap_or(0)
}

/// Whether a statement is parked.
pub fn waits(word: &Word, now: Option<u64>) -> bool {
    word.said.version.is_some_and(|version| is_parked(version, now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Option<u64> = Some(1_000_000_000_000);
    const FUTURE: u64 = 1_000_000_000_000 + 86_400_001;

    fn word(signer: u8, version: Option<u64>, effect: Effect) -> Word {
        let digest = [signer, effect as u8].into_iter().chain(version.unwrap_or(9).to_be_bytes());
        let mut filled = [0; 32];
        filled.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Word { signer: [signer; 32], said: Said { version, effect }, digest: filled }
    }
    fn allow(signer: u8, version: u64) -> Word {
        word(signer, Some(version), Effect::Allow)
    }
    fn deny(signer: u8, version: u64) -> Word {
        word(signer, Some(version), Effect::Deny)
    }

    #[test]
    fn places() {
        for (kept, new, expected) in [
            (vec![], allow(1, 1), Place::Kept(vec![])),
            (vec![allow(1, 1)], allow(1, 1), Place::Known(0)),
            (vec![allow(1, 5)], allow(1, 4), Place::Older(5)),
            (vec![allow(1, 5)], deny(1, 4), Place::Older(5)),
            (vec![allow(1, 5)], allow(1, 6), Place::Kept(vec![0])),
            // Its denial stays beside what it allows later.
            (vec![deny(1, 5)], allow(1, 6), Place::Kept(vec![])),
            (vec![deny(1, 5), allow(1, 6)], deny(1, 7), Place::Kept(vec![0, 1])),
            // A tie is deny, whichever came first.
            (vec![allow(1, 5)], deny(1, 5), Place::Kept(vec![0])),
            (vec![deny(1, 5)], allow(1, 5), Place::Older(5)),
            // Another signer may be revoked one day.
            (vec![allow(1, 5)], allow(2, 4), Place::Kept(vec![])),
            // The future waits, and takes nobody's place.
            (vec![allow(1, 5)], deny(1, FUTURE), Place::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, 5), Place::Kept(vec![])),
            (vec![deny(1, FUTURE)], allow(1, FUTURE + 1), Place::Older(FUTURE)),
            (vec![deny(1, FUTURE + 1)], allow(1, FUTURE), Place::Kept(vec![0])),
            (vec![allow(1, 5)], word(1, None, Effect::Deny), Place::Kept(vec![])),
        ] {
            assert_eq!(place(&kept, &new, NOW), expected, "{kept:?} {new:?}");
        }
        assert_eq!(place(&[allow(1, 5)], &deny(1, FUTURE), None), Place::Kept(vec![0]));
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], NOW), 5);
        assert_eq!(newest_version(&[allow(1, 5), deny(1, FUTURE)], None), FUTURE);
    }

    #[test]
    fn room_is_made_for_what_shuts_out() {
        let revoked = word(9, None, Effect::Deny);
        let kept = [revoked, deny(1, 3), allow(2, 7), allow(3, 5), deny(4, 1)];
        assert_eq!(dispensable(&kept, &allow(5, 9)), None);
        assert_eq!(dispensable(&kept, &deny(5, 9)), Some(3));
        assert_eq!(dispensable(&kept[..2], &revoked), Some(1));
        assert_eq!(dispensable(&kept[..1], &deny(5, 9)), None);
    }

    fn any_word() -> impl Strategy<Value = Word> {
        (0..3u8, proptest::option::of(prop_oneof![0..6u64, FUTURE..FUTURE + 3]), any::<bool>())
            .prop_map(|(signer, version, allows)| match version {
                Some(version) if allows => allow(signer, version),
                version => word(signer, version, Effect::Deny),
            })
    }

    proptest! {
        /// Whatever arrives, little is kept of each signer, and nothing that counted is outdone by something older.
        #[test]
        fn little_is_kept_and_nothing_comes_back(words in proptest::collection::vec(any_word(), 0..40)) {
            let mut kept: Vec<Word> = Vec::new();
            for new in words {
                let counting = |kept: &[Word], signer| newest(
                    kept.iter().filter(|w| w.signer == signer && !waits(w, NOW)).map(|w| w.said),
                );
                let before = counting(&kept, new.signer);
                if let Place::Kept(displaced) = place(&kept, &new, NOW) {
                    let mut at = 0;
                    kept.retain(|_| { at += 1; !displaced.contains(&(at - 1)) });
                    kept.push(new);
                }
                let after = counting(&kept, new.signer);
                prop_assert_eq!(newest(before.into_iter().chain(after)), after);
                for signer in 0..3 {
                    prop_assert!(kept.iter().filter(|w| w.signer == [signer; 32]).count() <= 6);
                }
            }
        }
    }
}
