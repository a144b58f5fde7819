//! Stations that signed apart take each other's statements in: whatever the order, and however often, all end with what
//! counts of everything that was ever signed, Lock by Lock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../../proto/tests/common/mod.rs"]
mod common;

use std::{collections::BTreeSet, sync::LazyLock};

use common::{Ca, Key, NOW, leaf};
use keywright_proto::{
    Certificate, Effect, Id, Papers, RevokedIssuer, Role, Target, Tree, rights::Said,
};
use keywrightd::{
    config::Config,
    judging::Moment,
    queries,
    registry::{
        Batch, Registry,
        records::{Family, Issuer},
    },
    station::{Handle, Station, view::Output},
};
use proptest::{prelude::*, sample::Index};
use tokio::sync::mpsc::UnboundedReceiver;

const SEED: [u8; 32] = [9; 32];
/// Sub Keys, and Locks.
const SUBS: [u8; 2] = [31, 32];
const LOCKS: std::ops::Range<u8> = 100..104;
/// When is judged. No delay is over, so that it does not matter who heard when.
const MOMENT: Moment = Moment { now: 0, delay: u64::MAX };

/// What is said of Locks, by number.
type Words = Vec<(u8, Effect)>;

/// What a CA says.
#[derive(Debug, Clone)]
enum Saying {
    /// About a Sub Key: a version, and Locks.
    Rights(u8, u64, Words),
    /// A Sub Key is revoked.
    RevokeSub(u8),
    /// Another CA is revoked, its denials stay up to this version.
    RevokeCa(usize, u64),
}

/// A Master (1), Backups 2 and 3 by it, 4 by 2.
static CAS: LazyLock<Vec<Ca>> = LazyLock::new(|| {
    let master = Ca::master(Key::new(1));
    let (two, three) = (master.backup(Key::new(2), 2), master.backup(Key::new(3), 3));
    let four = two.backup(Key::new(4), 4);
    vec![master, two, three, four]
});

fn root() -> &'static Certificate {
    CAS[0].certificate()
}

fn lock(number: u8) -> [u8; 32] {
    Key::new(number).public().hash()
}

/// Certificates of everybody.
fn nothing_said() -> Papers {
    let mut papers = Papers::new(root().clone()).unwrap();
    let mut add = |certificate: &Certificate| drop(papers.add_certificate(certificate.clone()));
    for (ca, number) in CAS.iter().zip(11..) {
        let role = if number == 11 { Role::Master } else { Role::Backup };
        add(ca.certificate());
        add(&ca.issue(&Key::new(number), role, &[number])[0]);
    }
    for (number, role) in
        SUBS.map(|n| (n, Role::Sub)).into_iter().chain(LOCKS.map(|n| (n, Role::Lock)))
    {
        add(&CAS[0].issue(&Key::new(number), role, &[number])[0]);
    }
    papers
}

fn say(papers: &mut Papers, by: usize, saying: &Saying) {
    let everywhere = vec![(Target::All, Effect::Deny)];
    let (cose, leaves) = match saying {
        Saying::Rights(about, version, words) => {
            let mut words: Vec<_> = words.iter().map(|(n, e)| (lock(*n), *e)).collect();
            // In the order of a station.
            words.sort_by_key(|(hash, _)| Id::of_hash(hash));
            let leaves: Vec<_> =
                words.into_iter().map(|(hash, effect)| (Target::Lock(hash), effect)).collect();
            let tree = Tree::new(leaves.iter().map(|(to, effect)| leaf(*to, *effect))).unwrap();
            (CAS[by].statement(&Key::new(*about), Some(*version), &tree), leaves)
        }
        Saying::RevokeSub(about) => {
            (CAS[by].revocation(&Key::new(*about), None).statement, everywhere)
        }
        Saying::RevokeCa(which, denials_until) => {
            let issuing_key = CAS[*which].key.public().hash();
            let revokes = RevokedIssuer { issuing_key, denials_until: *denials_until };
            let access = Key::new(*which as u8 + 11);
            (CAS[by].revocation(&access, Some(revokes)).statement, everywhere)
        }
    };
    papers.add_statement(cose, SEED, leaves).unwrap();
}

/// A station that has pinned the family and knows nothing else.
struct Bench {
    registry: Registry,
    station: Handle,
    _outputs: UnboundedReceiver<Output>,
    _state: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::open(&state.path().join("registry")).unwrap();
        let (family, root) = (root().family(), root().der().to_vec());
        let chain = vec![root.clone()];
        let mut batch = Batch::new();
        batch.put_family(family, Family { root, pinned: NOW, locks: 0 });
        let issuer = Issuer { family, chain, crl: Vec::new(), to_revoke: Vec::new() };
        batch.put_issuer(family, issuer);
        registry.commit(batch).unwrap();
        let (station, outputs) = Station::start(registry.clone(), Config::default()).unwrap();
        Self { registry, station, _outputs: outputs, _state: state }
    }

    /// Takes papers in; answers how many were new.
    fn import(&mut self, papers: Papers) -> u32 {
        let family = root().family();
        let (send, answer) = std::sync::mpsc::channel();
        let station = self.station.clone();
        let ask = async move {
            let done =
                station.ask(move |station, reply| station.import_family(family, papers, reply));
            send.send(done.await.unwrap()).unwrap();
        };
        // Answers come with what the station puts out.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outputs = &mut self._outputs;
        runtime.block_on(async {
            let mut ask = std::pin::pin!(ask);
            loop {
                tokio::select! {
                    () = &mut ask => return,
                    Some(output) = outputs.recv() => {
                        if let Output::Reply(reply) = output {
                            reply();
                        }
                    }
                }
            }
        });
        answer.recv().unwrap()
    }

    fn papers(&self) -> Papers {
        let file = queries::export(&self.registry, root().family()).unwrap();
        let (papers, left_out) = Papers::decode(&file, root().der()).unwrap();
        assert_eq!(left_out, 0);
        papers
    }

    fn said(&self, key: u8, number: u8) -> Option<Said> {
        let key = Key::new(key).public().id();
        let words = MOMENT.words(&self.registry, key, root().family()).unwrap();
        words.on(Id::of_hash(&lock(number))).map(|(said, _)| said)
    }
}

/// The same of papers that nothing was left out of.
fn said(papers: &Papers, key: u8, number: u8) -> Option<Said> {
    let judgement = papers.facts(|_| 0).judge(MOMENT.delay, MOMENT.now);
    papers.said(&judgement, &Key::new(key).public().hash(), &lock(number))
}

/// One Master at two stations apart: one takes the gate away, the other, which never listed it, gives the barn.
#[test]
fn a_newer_statement_takes_nothing_away_that_it_does_not_name() {
    use Effect::{Allow, Deny};
    let (gate, barn) = (100, 101);
    for effect in [Allow, Deny] {
        let (mut one, mut other) = (nothing_said(), nothing_said());
        say(&mut one, 0, &Saying::Rights(31, 10, vec![(gate, effect)]));
        say(&mut other, 0, &Saying::Rights(31, 11, vec![(barn, Allow)]));
        for files in [[&one, &other], [&other, &one]] {
            let mut bench = Bench::start();
            for file in files {
                assert!(bench.import(file.clone()) > 0);
            }
            assert_eq!(bench.said(31, gate), Some(Said { version: Some(10), effect }));
            assert_eq!(bench.said(31, barn), Some(Said { version: Some(11), effect: Allow }));
        }
    }
}

/// What a newer one repeats is left out, and is not new each time that it comes.
#[test]
fn what_was_left_out_is_not_new_again() {
    use Effect::{Allow, Deny};
    let (mut old, mut new) = (nothing_said(), nothing_said());
    say(&mut old, 0, &Saying::Rights(31, 10, vec![(100, Allow), (101, Allow)]));
    say(&mut new, 0, &Saying::Rights(31, 11, vec![(100, Deny), (101, Allow), (102, Allow)]));
    let mut bench = Bench::start();
    bench.import(new);
    assert_eq!(bench.import(old.clone()), 0, "nothing of it counts");
    assert_eq!(bench.import(old), 0);
    assert_eq!(bench.papers().statements().count(), 1);
    let log = bench.registry.audit_page(0, 100).unwrap();
    let imports = log.iter().filter(|event| event.event == "family-imported").count();
    assert_eq!(imports, 1, "{log:?}");
}

fn any_saying() -> impl Strategy<Value = (usize, Saying)> {
    let effect = any::<bool>().prop_map(|allow| if allow { Effect::Allow } else { Effect::Deny });
    let words = proptest::collection::btree_map(LOCKS, effect, 1..4)
        .prop_map(|words| words.into_iter().collect());
    let sub = || any::<bool>().prop_map(|first| SUBS[usize::from(first)]);
    let saying = prop_oneof![
        12 => (sub(), 1..9u64, words).prop_map(|(key, version, w)| Saying::Rights(key, version, w)),
        1 => sub().prop_map(Saying::RevokeSub),
        2 => (0..4usize, 0..9u64).prop_map(|(which, until)| Saying::RevokeCa(which, until)),
    ];
    (0..4usize, saying)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Random histories, in parts that come in any order, some twice, at three stations.
    #[test]
    fn stations_end_equal_and_with_all_that_counts(
        history in proptest::collection::vec(any_saying(), 1..14),
        parts in proptest::collection::vec((0..3usize, any::<Index>(), any::<Index>()), 1..8),
        last in Just(vec![0usize, 1, 2]).prop_shuffle(),
    ) {
        let mut union = nothing_said();
        history.iter().for_each(|(by, saying)| say(&mut union, *by, saying));
        let mut benches: Vec<Bench> = (0..3).map(|_| Bench::start()).collect();
        for (to, from, until) in &parts {
            let (from, until) = (from.index(history.len()), until.index(history.len()) + 1);
            let mut part = nothing_said();
            for (by, saying) in history.iter().take(until).skip(from) {
                say(&mut part, *by, saying);
            }
            benches[*to].import(part);
        }
        // Everything is somewhere, then they tell each other until nobody hears anything new.
        benches[last[0]].import(union.clone());
        for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0), (0, 2), (2, 0)] {
            let told = benches[last[from]].papers();
            benches[last[to]].import(told);
        }
        let files: BTreeSet<_> = benches.iter().map(|b| b.papers().encode().unwrap()).collect();
        prop_assert_eq!(files.len(), 1);
        let told = benches[0].papers();
        prop_assert_eq!(benches[1].import(told.clone()), 0);
        prop_assert_eq!(benches[1].import(union.clone()), 0);
        let all_stand = !history.iter().any(|(_, saying)| matches!(saying, Saying::RevokeCa(..)));
        for (key, number) in SUBS.into_iter().flat_map(|key| LOCKS.map(move |n| (key, n))) {
            let heard = benches[0].said(key, number);
            prop_assert_eq!(heard, said(&told, key, number));
            if all_stand {
                prop_assert_eq!(heard, said(&union, key, number), "Key {} at Lock {}", key, number);
            }
        }
    }
}
