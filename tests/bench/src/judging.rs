//! Measures the judgement over what thieves who hold every Backup of a family have signed: rings of revocations among the CAs
//! that they made, below eight stolen Backups.

use std::time::Instant;

use keywright_proto::{
    Certificate, Facts, PublicKey, RevokedIssuer,
    profile::{self, Validity},
    tree::Hash,
    trust::{REVOKE_DELAY, Revocation},
};
use p256::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};
use sha2::{Digest, Sha256};

use crate::{
    process,
    table::{Goal, Row, Samples},
};

/// Backups below the Master, and CAs below each.
const BACKUPS: u32 = 8;
const BELOW: u32 = 250;
/// Revocations signed, in the larger and the smaller measurement.
const OBJECTS: [u32; 2] = [20_000, 5_000];

/// Measures the time and the memory of a judgement, and how both grow.
pub fn measure(repeats: usize) -> Vec<Row> {
    let own = rustix::process::getpid();
    let (certified, cas) = certified();
    let before = process::memory(own).resident;
    let [all, quarter] = OBJECTS.map(|objects| {
        let facts = revoked(&certified, &cas, objects);
        let times: Samples = (0..repeats)
            .map(|_| {
                let started = Instant::now();
                let judgement = facts.judge(REVOKE_DELAY, 0);
                let passed = started.elapsed();
                assert!(cas.iter().all(|ca| judgement.standing(ca).is_some()));
                passed
            })
            .collect();
        (times, process::memory(own).resident.saturating_sub(before))
    });
    let rows = [
        Row::times("20,000 revocations judged", Goal::at_most(1_000.0), &all.0),
        Row::ratio(
            "the time for 20,000 against that for 5,000",
            Goal::at_most(8.0),
            all.0.median(),
            quarter.0.median(),
        ),
        Row::memory("memory for 20,000 (RSS, beside the program)", Goal::at_most(64.0), all.1),
    ];
    rows.into_iter().map(|row| row.of("a family of 2,000 stolen CAs")).collect()
}

/// The facts of the certificates, and the CAs.
fn certified() -> (Facts, Vec<Hash>) {
    let validity = Validity { not_before: 0, not_after: 1_000_000 };
    let master = key(0);
    let unsigned = profile::master_ca(&public(&master), &[1; 16], validity).unwrap();
    let root = certificate(&master, unsigned);
    let mut facts = Facts::new(root.public_key());
    let mut cas = Vec::new();
    for backup in 0..BACKUPS {
        let own = key(1 + backup);
        let unsigned = profile::backup_ca(&public(&own), &root, &[2; 16], validity).unwrap();
        let first_level = certificate(&master, unsigned);
        for number in 0..BELOW {
            let below = public(&key(1_000 + backup * BELOW + number));
            let unsigned = profile::backup_ca(&below, &first_level, &[3; 16], validity).unwrap();
            let soft = certificate(&own, unsigned);
            facts.learn_chain(&[soft, first_level.clone(), root.clone()]);
            cas.push(below.hash());
        }
    }
    (facts, cas)
}

/// Each CA revokes those after it, round in a ring.
fn revoked(facts: &Facts, cas: &[Hash], objects: u32) -> Facts {
    let mut facts = facts.clone();
    for number in 0..objects as usize {
        let at = number % cas.len();
        let target = cas[(at + 1 + number / cas.len()) % cas.len()];
        let issuer = Some(RevokedIssuer { issuing_key: target, denials_until: 1 });
        facts.learn_revocation(Revocation { signer: cas[at], subject: target, issuer }, 0);
    }
    facts
}

fn key(number: u32) -> SigningKey {
    SigningKey::from_slice(&Sha256::digest(number.to_be_bytes())).unwrap()
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_sec1_point(key.verifying_key().to_sec1_point(false).as_bytes()).unwrap()
}

fn certificate(key: &SigningKey, unsigned: keywright_proto::Unsigned) -> Certificate {
    let signature: Signature = key.sign_prehash(&unsigned.digest()).unwrap();
    Certificate::parse(&unsigned.assemble(signature.to_der().as_bytes()).unwrap()).unwrap()
}
