//! Histories: honest people with stations of their own, and a thief.

use keywright_adversary::{Heard, Known, Said, Worth};
use proptest::{
    prelude::*,
    sample::{Index, select},
};

pub const DAY: u64 = 86_400;
/// How long the revocation of a senior waits.
pub const DELAY: u64 = 7 * DAY;
/// Honest Backups; one of them is stolen.
pub const THIEVES: std::ops::RangeInclusive<u8> = 1..=5;
/// Issuing keys that the thief makes in software.
pub const SOFT: std::ops::RangeInclusive<u8> = 6..=9;
/// Sub Keys.
pub const SUBS: std::ops::RangeInclusive<u8> = 200..=202;

/// The chains of the honest family: Backups 1, 2, 3 by the Master, 4 by 1, 5 by 4.
const CHAINS: [&[u8]; 6] = [&[0], &[1, 0], &[2, 0], &[3, 0], &[4, 1, 0], &[5, 4, 1, 0]];

pub fn issuers() -> impl Iterator<Item = u8> {
    0..=9
}

/// Access keys of issuers, and Sub Keys.
pub fn keys() -> impl Iterator<Item = u8> {
    (100..=109).chain(SUBS)
}

fn access(ca: u8) -> u8 {
    100 + ca
}

/// Anything at all that verifies.
pub fn anything() -> impl Strategy<Value = Heard> {
    prop_oneof![
        2 => chain().prop_map(Heard::Chain),
        2 => (chain(), any_key()).prop_map(|(chain, key)| Heard::Own(chain, key)),
        6 => said().prop_map(Heard::Said),
    ]
}

/// Up to four different issuing keys, the Master's last.
fn chain() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::subsequence((1..=9u8).collect::<Vec<_>>(), 0..=3)
        .prop_shuffle()
        .prop_map(|above| above.into_iter().chain([0]).collect())
}

fn any_key() -> impl Strategy<Value = u8> {
    select(keys().collect::<Vec<_>>())
}

fn said() -> impl Strategy<Value = Said> {
    let names = proptest::option::weighted(0.7, (0..=9u8, 0..6u64));
    let revocation = (chain(), any_key(), names, 0..12u64).prop_map(|(signer, key, names, day)| {
        Said { signer, key, version: None, allow: false, names, seen: day * DAY }
    });
    let statement =
        (chain(), any_key(), 0..8u64, any::<bool>()).prop_map(|(signer, key, version, allow)| {
            Said { signer, key, version: Some(version), allow, names: None, seen: 0 }
        });
    prop_oneof![revocation, statement]
}

/// A history, and how much of it has arrived at the one who decides.
#[derive(Debug, Clone)]
pub struct Play {
    pub heard: Vec<Heard>,
    /// What was signed by the honest, and by the thief's Backup while it was not stolen.
    pub honest: Vec<Said>,
    pub thief: u8,
}

#[derive(Debug, Clone)]
enum Step {
    /// An issuer that its own station trusts says something about a Sub Key.
    Say { issuer: Index, key: u8, allow: bool },
    /// It revokes a Sub Key, or another issuer.
    Revoke { issuer: Index, key: u8 },
    /// From now on the Backup is in other hands, which sign.
    Steal(Vec<Said>, Vec<(Vec<u8>, Option<u8>)>),
}

pub fn play() -> impl Strategy<Value = Play> {
    let key = prop_oneof![3 => SUBS, 1 => 100..=105u8];
    let step = prop_oneof![
        4 => (any::<Index>(), SUBS, any::<bool>())
            .prop_map(|(issuer, key, allow)| Step::Say { issuer, key, allow }),
        2 => (any::<Index>(), key).prop_map(|(issuer, key)| Step::Revoke { issuer, key }),
    ];
    let theft = (
        THIEVES,
        proptest::collection::vec(said(), 0..8),
        proptest::collection::vec((chain(), proptest::option::of(any_key())), 0..3),
    );
    let steps = (
        proptest::collection::vec(step.clone(), 0..10),
        theft,
        proptest::collection::vec(step, 0..10),
    );
    let arrives = proptest::collection::vec(proptest::bool::weighted(0.8), 64);
    (steps, arrives).prop_map(|((before, (thief, said, chains), after), arrives)| {
        let theft = Step::Steal(said, chains);
        let steps = before.into_iter().chain([theft]).chain(after);
        let (all, honest) = signed(steps, thief);
        let heard = all.into_iter().zip(arrives.iter().cycle()).filter(|(_, arrives)| **arrives);
        Play { heard: heard.map(|(heard, _)| heard).collect(), honest, thief }
    })
}

/// Everything that is signed in a history, and what of it the honest said.
fn signed(steps: impl Iterator<Item = Step>, thief: u8) -> (Vec<Heard>, Vec<Said>) {
    let own = CHAINS.iter().map(|chain| Heard::Own(chain.to_vec(), access(chain[0])));
    let mut all: Vec<Heard> = own.collect();
    let (mut honest, mut stolen, mut time) = (vec![], false, 0);
    for step in steps {
        time += 10;
        // Honest stations know everything, and nobody signs with a Key that will be revoked when a delay is over.
        let known = Known::new(&all, DELAY, 30 * DAY);
        let is_trusted = |chain: &&&[u8]| known.worth(chain[0]) == Some(Worth::Stands);
        let is_honest = |chain: &&&[u8]| !stolen || chain[0] != thief;
        let issuers: Vec<_> = CHAINS.iter().filter(is_trusted).filter(is_honest).collect();
        let pick =
            |index: Index| issuers.get(index.index(issuers.len().max(1))).map(|c| c.to_vec());
        let mut said = vec![];
        match step {
            Step::Say { issuer, key, allow } => said.extend(pick(issuer).map(|signer| Said {
                signer,
                key,
                version: Some(time),
                allow,
                names: None,
                seen: 0,
            })),
            Step::Revoke { issuer, key } => said.extend(pick(issuer).map(|signer| Said {
                signer,
                key,
                version: None,
                allow: false,
                names: (100..=105).contains(&key).then(|| (key - 100, time)),
                seen: 0,
            })),
            Step::Steal(said, chains) => {
                stolen = true;
                let own = CHAINS[usize::from(thief)];
                let below = |chain: Vec<u8>| {
                    let soft =
                        chain.into_iter().map(|ca| 6 + ca % 4).filter(|ca| SOFT.contains(ca));
                    let mut below: Vec<u8> = soft.collect();
                    below.dedup();
                    below.truncate(4 - own.len());
                    let mut seen = vec![];
                    below.retain(|ca| {
                        !seen.contains(ca) && {
                            seen.push(*ca);
                            true
                        }
                    });
                    [&below[..], own].concat()
                };
                all.extend(chains.into_iter().map(|(chain, key)| match key {
                    None => Heard::Chain(below(chain)),
                    Some(key) => Heard::Own(below(chain), key),
                }));
                all.extend(said.into_iter().map(|said| {
                    // Versions as the thief likes them: some far ahead of everybody.
                    let version = said.version.map(|version| version * version * 10);
                    Heard::Said(Said { signer: below(said.signer), version, ..said })
                }));
                continue;
            }
        }
        honest.extend(said.iter().cloned());
        all.extend(said.into_iter().map(Heard::Said));
    }
    (all, honest)
}
