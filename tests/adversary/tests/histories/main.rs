//! Random families, a thief who holds one Backup's issuing key and signs anything, a broker that drops, repeats and reorders:
//! whatever a Lock or a station has heard, it decides like the reference, and the thief gets nothing.
//!
//! `make test-faults` plays 100,000 histories instead of 2,000.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../../../proto/tests/common/mod.rs"]
mod common;
mod play;
mod real;

use keywright_adversary::{Heard, Known, Said, Worth};
use proptest::prelude::*;

use play::{DAY, DELAY, Play, SUBS, play};

/// What a Lock or a station decides about every Key, from the code that both run.
fn decided(heard: &[Heard], now: u64) -> Vec<bool> {
    let facts = real::facts(heard);
    let judgement = facts.judge(DELAY, now);
    play::keys().map(|key| real::admits(&judgement, heard, key)).collect()
}

fn expected(heard: &[Heard], now: u64) -> Vec<bool> {
    let known = Known::new(heard, DELAY, now);
    play::keys().map(|key| known.admits(key)).collect()
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = cases.unwrap_or(2_000);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_global_rejects: 1 << 20,
        ..ProptestConfig::default()
    }
}

/// What was signed by the thief, by its own CAs, or by whom it certified.
fn by_thief(heard: &Heard, thief: u8) -> bool {
    match heard {
        Heard::Chain(chain) => chain[1..].contains(&thief),
        Heard::Own(chain, _) | Heard::Said(Said { signer: chain, .. }) => chain.contains(&thief),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lock_and_station_decide_like_the_reference(
        heard in proptest::collection::vec(play::anything(), 0..24), days in 0..20u64,
    ) {
        let now = days * DAY;
        let judgement = real::facts(&heard).judge(DELAY, now);
        let known = Known::new(&heard, DELAY, now);
        for ca in play::issuers() {
            let worth = judgement.standing(&real::issuing_key(ca)).map(real::worth);
            prop_assert_eq!(worth, known.worth(ca), "issuing key {}", ca);
        }
        prop_assert_eq!(decided(&heard, now), expected(&heard, now));
    }

    #[test]
    fn verdict_is_a_function_of_the_set_of_what_was_heard(
        (heard, mixed) in play().prop_flat_map(|play| {
            let twice = [&play.heard[..], &play.heard[..play.heard.len() / 2]].concat();
            (Just(play.heard), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(decided(&heard, 30 * DAY), decided(&mixed, 30 * DAY));
    }

    #[test]
    fn nobody_is_admitted_by_the_word_of_a_revoked_thief(Play { heard, thief, .. } in play()) {
        let now = 30 * DAY;
        let out = Known::new(&heard, DELAY, now).worth(thief) == Some(Worth::Revoked);
        let without: Vec<_> = heard.iter().filter(|heard| !by_thief(heard, thief)).cloned().collect();
        for (with, without) in decided(&heard, now).into_iter().zip(decided(&without, now)) {
            prop_assert!(!out || !with || without);
        }
    }

    #[test]
    fn denial_by_an_honest_issuer_ends_only_by_a_newer_word_of_a_standing_issuer(
        Play { heard, honest, thief, .. } in play(),
    ) {
        let now = 30 * DAY;
        let judgement = real::facts(&heard).judge(DELAY, now);
        let worth = |ca: u8| judgement.standing(&real::issuing_key(ca)).map(real::worth);
        let stands = |ca: u8| worth(ca) == Some(Worth::Stands);
        // While the thief is trusted, or a CA that the thief made, every word of the thief is one of a standing issuer.
        prop_assume!(matches!(worth(thief), Some(Worth::Revoked | Worth::Orphaned)));
        let words = |key: u8| heard.iter().filter_map(move |heard| match heard {
            Heard::Said(said) if said.key == key => Some(said),
            _ => None,
        });
        for key in SUBS {
            // Whom a revocation named here before it signed is no standing issuer here, even if others know better.
            let fell_before = |denial: &Said| heard.iter().any(|heard| match heard {
                Heard::Said(Said { names: Some((ca, bound)), .. }) => {
                    denial.signer.contains(ca) && Some(*bound) < denial.version
                }
                _ => false,
            });
            let counts = |said: &&Said| stands(said.signer[0]) || !fell_before(said);
            let denied = words(key).filter(|said| honest.contains(said) && !said.allow);
            let denied = denied.filter(counts);
            for denial in denied {
                let newer = words(key).any(|said| {
                    said.allow && said.version > denial.version && stands(said.signer[0])
                });
                // A revocation by an issuer that fell counts as its denial: newer words came after the fall.
                let ended = newer && (denial.version.is_some() || !stands(denial.signer[0]));
                prop_assert!(ended || !real::admits(&judgement, &heard, key), "{:?}", denial);
            }
        }
    }
}
