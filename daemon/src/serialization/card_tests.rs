//! Which Locks a card is offered in a family that is too large to be looked through.

use keywright_proto::{
    Card, PublicKey, Role, Unsigned,
    card::{MAX_CARD, locks_on},
    profile::{self, Validity},
};
use p256::ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner};

use super::*;
use crate::registry::{
    Batch,
    records::{Family, Lock},
};

const MADE: u64 = 1_700_000_000;

struct Signer(SigningKey);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_sec1_point(false);
        PublicKey::from_sec1_point(point.as_bytes()).unwrap()
    }

    fn sign(&self, unsigned: Unsigned) -> Certificate {
        let signature: DerSignature = self.0.sign_prehash(&unsigned.digest()).unwrap();
        Certificate::parse(&unsigned.assemble(signature.as_bytes()).unwrap()).unwrap()
    }
}

/// A family with as many Locks as are looked at, all of them before the Locks that are added by a test.
struct Large {
    master: Signer,
    root: Certificate,
    registry: Registry,
    _dir: tempfile::TempDir,
}

impl Large {
    fn new() -> Self {
        let master = Signer::new(1);
        let validity = Validity { not_before: MADE, not_after: MADE + 1_000 };
        let root = master.sign(profile::master_ca(&master.public(), &[1], validity).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&dir.path().join("registry")).unwrap();
        let large = Self { master, root, registry, _dir: dir };
        let mut batch = Batch::new();
        let family = Family { root: large.root.der().to_vec(), pinned: 1, locks: 1 };
        batch.put_family(large.family(), family);
        for number in 0..u16::try_from(AMONG).unwrap() {
            let mut id = [0; 16];
            id[2..4].copy_from_slice(&number.to_be_bytes());
            // None of them has a certificate that would go on a card.
            batch.put_lock(Id::from_bytes(id), large.lock(b"key", b"none", MADE));
        }
        large.registry.commit(batch).unwrap();
        large
    }

    fn family(&self) -> Id {
        self.root.family()
    }

    fn lock(&self, identity_key: &[u8], certificate: &[u8], last_seen: u64) -> Lock {
        Lock {
            identity_key: identity_key.into(),
            name: "gate".into(),
            family: self.family(),
            certificate: certificate.into(),
            issuer: self.family(),
            online: false,
            last_seen,
        }
    }

    /// A Lock's certificate.
    fn certify(&self, seed: u8) -> Certificate {
        let made = MADE + u64::from(seed);
        let validity = Validity { not_before: made, not_after: made + 1_000 };
        let key = Signer::new(seed).public();
        assert!(key.id().as_bytes()[..2] != [0, 0], "it comes after all others");
        let unsigned = profile::end_entity(&key, Role::Lock, &self.root, &[seed], validity);
        self.master.sign(unsigned.unwrap())
    }

    fn add(&self, lock: &Certificate) {
        let key = lock.public_key();
        let mut batch = Batch::new();
        batch.put_lock(key.id(), self.lock(key.spki_der(), lock.der(), MADE + 999));
        self.registry.commit(batch).unwrap();
    }

    fn order(&self) -> CardOrder {
        CardOrder {
            family: self.family(),
            chain: vec![self.root.clone()],
            statement: None,
            registry: self.registry.clone(),
            added: None,
            removed: None,
        }
    }

    fn next_card(&self, order: &CardOrder, old: Option<&[u8]>) -> Vec<u8> {
        let locks = order.locks(&carried(old)).unwrap();
        order.contents().card(&locks, MAX_CARD).unwrap()
    }
}

/// The ids of the Locks that a card names.
fn carried(card: Option<&[u8]>) -> Vec<Id> {
    let locks = card.map(locks_on).unwrap_or_default();
    locks.iter().map(|lock| lock.public_key().id()).collect()
}

#[test]
fn a_card_follows_what_its_key_adds_however_large_the_family_is() {
    let large = Large::new();
    let mut card = large.next_card(&large.order(), None);
    assert!(locks_on(&card).is_empty());
    let mut added = Vec::new();
    for seed in 10..16 {
        let lock = large.certify(seed);
        let order = CardOrder { added: Some(lock.der().to_vec()), ..large.order() };
        card = large.next_card(&order, Some(&card));
        large.add(&lock);
        added.insert(0, lock);
        let carried = locks_on(&card);
        assert_eq!(carried, added[..carried.len()], "the newest first");
        assert!(carried.len() >= added.len().min(4), "as many as fit");
    }
    // Nobody looked further for the others than among so many.
    assert!(large.order().locks(&[]).unwrap().is_empty());

    let order = CardOrder { removed: Some(added[0].public_key().hash()), ..large.order() };
    let carried = locks_on(&large.next_card(&order, Some(&card)));
    assert!(!carried.is_empty() && carried[..] == added[1..=carried.len()], "one is off");
}

/// A token's card is a claim: it names Locks, and the registry says which of them there are.
#[test]
fn a_card_keeps_nothing_that_the_station_does_not_know() {
    let large = Large::new();
    let [known, unknown] = [10, 11].map(|seed| large.certify(seed));
    large.add(&known);
    let both = [unknown, known.clone()];
    let card = Card::write(std::slice::from_ref(&large.root), None, both, MAX_CARD).unwrap();
    assert_eq!(locks_on(&card).len(), 2);
    assert_eq!(large.order().locks(&carried(Some(&card))).unwrap(), [known]);
    for length in 0..card.len() {
        assert!(carried(Some(&card[..length])).is_empty());
    }
}
