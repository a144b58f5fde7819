//! Stations that signed apart merge each other's statements: in any order and any number of times, all end with the
//! statements that are in effect of everything ever signed, Lock by Lock.

use std::collections::BTreeSet;

use keywright_proto::{Effect, SignedObjects, crl::Revoked, rights::VersionedEffect};
use keywrightd::registry::{Batch, records::Issuer};
use proptest::{prelude::*, sample::Index};

use crate::family::{
    Bench, CAS, Key, LOCKS, MOMENT, NOW, SUBS, ToState, add_statement, lock, nothing_stated, root,
};

/// Like [`Bench::said`], from signed objects of which nothing was left out.
fn said(objects: &SignedObjects, key: u8, number: u8) -> Option<VersionedEffect> {
    let judgement = objects.facts(|_| 0).judge(MOMENT.delay, MOMENT.now);
    objects.effect(&judgement, &Key::new(key).public().hash(), &lock(number))
}

/// One Master at two disconnected stations: one changes the right at the gate, the other, whose statement does not name
/// the gate, grants the barn.
#[test]
fn newer_statement_keeps_rights_it_does_not_name() {
    use Effect::{Allow, Deny};
    let (gate, barn) = (100, 101);
    for effect in [Allow, Deny] {
        let (mut one, mut other) = (nothing_stated(), nothing_stated());
        add_statement(&mut one, 0, &ToState::Rights(31, 10, vec![(gate, effect)]));
        add_statement(&mut other, 0, &ToState::Rights(31, 11, vec![(barn, Allow)]));
        for files in [[&one, &other], [&other, &one]] {
            let mut bench = Bench::start();
            for file in files {
                assert!(bench.import(file.clone()) > 0);
            }
            assert_eq!(bench.said(31, gate), Some(VersionedEffect { version: Some(10), effect }));
            assert_eq!(
                bench.said(31, barn),
                Some(VersionedEffect { version: Some(11), effect: Allow })
            );
        }
    }
}

/// A statement that a newer one supersedes is left out, and does not count as new at each import.
#[test]
fn superseded_statement_is_not_merged_again() {
    use Effect::{Allow, Deny};
    let (mut old, mut new) = (nothing_stated(), nothing_stated());
    add_statement(&mut old, 0, &ToState::Rights(31, 10, vec![(100, Allow), (101, Allow)]));
    add_statement(
        &mut new,
        0,
        &ToState::Rights(31, 11, vec![(100, Deny), (101, Allow), (102, Allow)]),
    );
    let mut bench = Bench::start();
    bench.import(new);
    assert_eq!(bench.import(old.clone()), 0, "all of it is superseded");
    assert_eq!(bench.import(old), 0);
    assert_eq!(bench.objects().statements().count(), 1);
    let log = bench.registry.audit_page(0, 100).unwrap();
    let imports = log.iter().filter(|event| event.event == "family-imported").count();
    assert_eq!(imports, 1, "{log:?}");
}

/// A CA with more entries than a record can hold does not keep a revocation away.
#[test]
fn revocations_are_kept_where_the_rest_of_a_file_cannot_be() {
    let mut bench = Bench::start();
    let chain = CAS[1].chain.iter().map(|ca| ca.der().to_vec()).collect();
    let full = vec![vec![7; 4 * 1024 * 1024 - 8192]];
    let family = root().family();
    let issuer = Issuer { family, chain, crl: Vec::new(), to_revoke: full };
    let mut batch = Batch::new();
    batch.put_issuer(CAS[1].key.public().id(), issuer);
    bench.registry.commit(batch).unwrap();
    let mut objects = nothing_stated();
    let revoked: Vec<_> =
        (1..500u32).map(|n| Revoked { serial: n.to_be_bytes().to_vec(), since: NOW }).collect();
    objects.add_crl(CAS[1].crl(1, &revoked)).unwrap();
    add_statement(&mut objects, 0, &ToState::RevokeSub(31));
    assert!(bench.try_import(objects).is_err());
    assert_eq!(bench.registry.revocations(family).unwrap().len(), 1);
}

fn any_to_state() -> impl Strategy<Value = (usize, ToState)> {
    let effect = any::<bool>().prop_map(|allow| if allow { Effect::Allow } else { Effect::Deny });
    let words = proptest::collection::btree_map(LOCKS, effect, 1..4)
        .prop_map(|words| words.into_iter().collect());
    let sub = || any::<bool>().prop_map(|first| SUBS[usize::from(first)]);
    let saying = prop_oneof![
        12 => (sub(), 1..9u64, words).prop_map(|(key, version, w)| ToState::Rights(key, version, w)),
        2 => (sub(), 1..9u64).prop_map(|(key, version)| ToState::Suspend(key, version)),
        1 => sub().prop_map(ToState::RevokeSub),
        2 => (0..4usize, 0..9u64).prop_map(|(which, until)| ToState::RevokeCa(which, until)),
    ];
    (0..4usize, saying)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Random histories, in parts that come in any order, some twice, at three stations.
    #[test]
    fn stations_converge_on_all_effective_statements(
        history in proptest::collection::vec(any_to_state(), 1..14),
        parts in proptest::collection::vec((0..3usize, any::<Index>(), any::<Index>()), 1..8),
        last in Just(vec![0usize, 1, 2]).prop_shuffle(),
    ) {
        let mut union = nothing_stated();
        for (by, saying) in &history {
            add_statement(&mut union, *by, saying);
        }
        let mut benches: Vec<Bench> = (0..3).map(|_| Bench::start()).collect();
        for (to, from, until) in &parts {
            let (from, until) = (from.index(history.len()), until.index(history.len()) + 1);
            let mut part = nothing_stated();
            for (by, saying) in history.iter().take(until).skip(from) {
                add_statement(&mut part, *by, saying);
            }
            benches[*to].import(part);
        }
        // Every object is at some station; then they exchange until no import has new objects.
        benches[last[0]].import(union.clone());
        for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0), (0, 2), (2, 0)] {
            let objects = benches[last[from]].objects();
            benches[last[to]].import(objects);
        }
        let files: BTreeSet<_> = benches.iter().map(|b| b.objects().encode().unwrap()).collect();
        prop_assert_eq!(files.len(), 1);
        let objects = benches[0].objects();
        prop_assert_eq!(benches[1].import(objects.clone()), 0);
        prop_assert_eq!(benches[1].import(union.clone()), 0);
        for (key, number) in SUBS.into_iter().flat_map(|key| LOCKS.map(move |n| (key, n))) {
            let effect = benches[0].said(key, number);
            prop_assert_eq!(effect, said(&objects, key, number));
            // What was left out decides nothing, whoever falls.
            prop_assert_eq!(effect, said(&union, key, number), "Key {} at Lock {}", key, number);
        }
    }
}
