//! Measures the grant that one of 100,000 Locks gets: its size, and the time to verify it. Signs with software keys.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keywright_proto::{
    Certificate, Effect, Grant, Leaf, PublicKey, Role, Statement, Target, Tree, Unsigned,
    profile::{self, Validity},
    verify_grant,
};
use p256::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};
use sha2::{Digest, Sha256};

use crate::table::{Goal, Row, Samples};

/// Number of Locks in the statement.
const LOCKS: u32 = 100_000;

/// Measures a grant of one Sub Key with rights on 100,000 Locks.
pub fn measure(repeats: usize) -> Vec<Row> {
    let (issuing, access) = (key(1), key(2));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let validity = Validity { not_before: now, not_after: now + 1_000_000 };
    let unsigned = profile::master_ca(&public(&issuing), &[1; 16], validity).unwrap();
    let root = Certificate::parse(&sign(&issuing, unsigned)).unwrap();
    let unsigned =
        profile::end_entity(&public(&access), Role::Sub, &root, &[2; 16], validity).unwrap();
    let own = Certificate::parse(&sign(&issuing, unsigned)).unwrap();

    let hash = |number: u32| Sha256::digest(number.to_be_bytes()).into();
    let leaf = |number| Leaf::new(&[9; 32], Target::Lock(hash(number)), Effect::Allow);
    let started = Instant::now();
    let tree = Tree::new((0..LOCKS).map(leaf)).unwrap();
    let subject = public(&access);
    let version = Some(1_800_000_000_000);
    let statement = Statement { subject: &subject, version, tree: tree.head(), revokes: None };
    let statement = sign(&issuing, statement.unsigned(std::slice::from_ref(&root)).unwrap());
    let built: Samples = [started.elapsed()].into_iter().collect();

    let index = u64::from(LOCKS / 2);
    let grant = Grant {
        statement,
        leaf: leaf(LOCKS / 2),
        index,
        path: tree.path(index).unwrap(),
        access_chain: vec![own.der().to_vec(), root.der().to_vec()],
    };
    let bytes = grant.encode();
    let chains = 2 * root.der().len() + own.der().len();
    let lock = hash(LOCKS / 2);
    let times: Samples = (0..repeats)
        .map(|_| {
            let started = Instant::now();
            verify_grant(&bytes, root.der(), &lock).unwrap();
            started.elapsed()
        })
        .collect();
    let without = Grant { access_chain: Vec::new(), ..grant }.encode();
    let alone: Samples = (0..repeats)
        .map(|_| {
            let started = Instant::now();
            verify_grant(&without, root.der(), &lock).unwrap();
            started.elapsed()
        })
        .collect::<Vec<Duration>>()
        .into_iter()
        .collect();
    let bytes = |length: usize| u64::try_from(length).unwrap();
    let rows = [
        Row::times("tree and statement built", Goal::at_most(1_000.0), &built),
        Row::count(
            "a Lock's share, bytes, beside x5chain and access_chain",
            Goal::at_most(1_200.0),
            bytes(without.len() - root.der().len()),
        ),
        Row::count(
            "the whole grant, bytes",
            Goal::NONE,
            bytes(without.len() + chains - root.der().len()),
        ),
        Row::times("verified by the Lock, without a certificate", Goal::p99(2.0), &alone),
        Row::times("verified by the Lock, with its certificate", Goal::p99(2.0), &times),
    ];
    rows.into_iter().map(|row| row.of("a Sub Key at 100,000 Locks")).collect()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 32]).unwrap()
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_sec1_point(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
}

fn sign(key: &SigningKey, unsigned: Unsigned) -> Vec<u8> {
    let signature: Signature = key.sign_prehash(&unsigned.digest()).unwrap();
    unsigned.assemble(signature.to_der().as_bytes()).unwrap()
}
