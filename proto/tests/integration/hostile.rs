//! Hostile input: no reader panics, and nothing that was changed verifies.

use std::sync::LazyLock;

use crate::common::{Ca, Key, leaf};
use keywright_proto::{
    Card, Certificate, Claim, Confirmation, Crl, Effect, Grant, PublicKey, Role, Target, Uri,
    check_name, claimed_removal,
    crl::Revoked,
    pem::{Label, from_pem, to_pem},
    read_csr, verify_chain, verify_grant, verify_removal, verify_statement,
};
use proptest::prelude::*;

/// A family's root and a Lock.
static TRUSTED: LazyLock<(Ca, PublicKey)> =
    LazyLock::new(|| (Ca::at_depth(1), Key::new(100).public()));

/// A valid sample of each format.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(samples);

/// Calls every reader.
fn read_all(bytes: &[u8]) {
    let (root, lock) = &*TRUSTED;
    let _ = PublicKey::from_spki_der(bytes);
    let _ = PublicKey::from_sec1_point(bytes);
    let _ = Certificate::parse(bytes);
    let _ = Claim::read(bytes);
    let _ = Crl::parse(bytes);
    let _ = Grant::decode(bytes);
    let _ = verify_statement(bytes, root.root());
    let _ = verify_grant(bytes, root.root(), &lock.hash());
    let _ = Confirmation::claimed_lock(bytes);
    let _ = (verify_removal(bytes, root.root()), claimed_removal(bytes));
    let _ = Card::read(bytes, root.certificate(), root.certificate());
    let _ = Confirmation::verify(bytes, lock);
    let _ = lock.verify_prehash(&[0; 32], bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = read_csr(&text);
    let _ = from_pem(Label::Certificate, &text);
    let _ = check_name(&text);
    let _ = text.parse::<Uri>();
    for label in ["CERTIFICATE REQUEST", "CERTIFICATE"] {
        let pem = to_pem(Label::Certificate, [bytes]).unwrap().replace("CERTIFICATE", label);
        let _ = read_csr(&pem);
    }
}

fn samples() -> Vec<Vec<u8>> {
    let ca = Ca::at_depth(2);
    let key = Key::new(30);
    let chain = ca.issue(&key, Role::Backup, &[4]);
    let leaves = [leaf(Target::All, Effect::Allow), leaf(Target::Lock([1; 32]), Effect::Deny)];
    let grant = ca.grant(&key, Some(7), &leaves, 0, &chain);
    let said = Confirmation { statement: [1; 32], effect: Effect::Deny, newest_version: 9 };
    let lock = Key::new(100);
    vec![
        chain[0].der().to_vec(),
        chain[1].der().to_vec(),
        ca.crl(1, &[Revoked { serial: vec![5], since: 1_000_000_000 }]).der().to_vec(),
        grant.statement.clone(),
        grant.encode(),
        lock.sign(said.unsigned(&lock.public()).unwrap()),
        key.public().spki_der().to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_samples_never_panic(
        which in 0..SAMPLES.len(),
        at in any::<proptest::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..6),
        cut in any::<bool>(),
    ) {
        let mut bytes = SAMPLES[which].clone();
        let at = at.index(bytes.len());
        let end = if cut { bytes.len() } else { (at + with.len()).min(bytes.len()) };
        bytes.splice(at..end, with);
        read_all(&bytes);
    }
}

/// A flipped bit in any byte of `bytes` has to make `verifies` fail.
fn no_flipped_bit_verifies(bytes: &[u8], verifies: impl Fn(&[u8]) -> bool) {
    assert!(verifies(bytes));
    let mut flipped = bytes.to_vec();
    for at in 0..bytes.len() {
        let bit = 1 << (at % 8);
        flipped[at] ^= bit;
        assert!(!verifies(&flipped), "bit {bit:#x} of byte {at}");
        flipped[at] ^= bit;
    }
    for length in 0..bytes.len() {
        assert!(!verifies(&bytes[..length]), "cut to {length} bytes");
    }
    assert!(!verifies(&[bytes, &[0]].concat()), "a byte too many");
}

#[test]
fn no_flipped_bit_of_a_certificate_verifies() {
    let ca = Ca::at_depth(2);
    let good = ca.issue(&Key::new(30), Role::Sub, &[0x90, 4]);
    for (position, certificate) in good.iter().enumerate() {
        no_flipped_bit_verifies(certificate.der(), |der| {
            let Ok(changed) = Certificate::parse(der) else { return false };
            let mut chain = good.clone();
            chain[position] = changed;
            verify_chain(&chain, ca.root(), None).is_ok()
        });
    }
}

#[test]
fn no_flipped_bit_of_a_crl_verifies() {
    let ca = Ca::at_depth(1);
    let crl = ca.crl(1, &[Revoked { serial: vec![5], since: 1_000_000_000 }]);
    no_flipped_bit_verifies(crl.der(), |der| {
        Crl::parse(der).is_ok_and(|crl| crl.verify(ca.certificate()).is_ok())
    });
}

#[test]
fn no_flipped_bit_of_a_grant_verifies() {
    let ca = Ca::at_depth(2);
    let key = Key::new(30);
    let leaves = [leaf(Target::All, Effect::Allow), leaf(Target::Lock([1; 32]), Effect::Deny)];
    let chain = ca.issue(&key, Role::Backup, &[4]);
    let grant = ca.grant(&key, Some(7), &leaves, 0, &chain);
    no_flipped_bit_verifies(&grant.statement, |bytes| verify_statement(bytes, ca.root()).is_ok());
    no_flipped_bit_verifies(&grant.encode(), |bytes| {
        verify_grant(bytes, ca.root(), &[1; 32]).is_ok()
    });
}

#[test]
fn no_flipped_bit_of_a_confirmation_verifies() {
    let lock = Key::new(100);
    let said = Confirmation { statement: [1; 32], effect: Effect::Deny, newest_version: 9 };
    let bytes = lock.sign(said.unsigned(&lock.public()).unwrap());
    no_flipped_bit_verifies(&bytes, |bytes| Confirmation::verify(bytes, &lock.public()).is_ok());
}
