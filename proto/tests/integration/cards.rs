//! Family cards: what fits on one, and that wrong ones are refused.

use crate::common::{Ca, Key, VALIDITY, leaf};
use keywright_proto::{
    Card, Certificate, Effect, Role, Target, Tree,
    card::{CardError, MAX_CARD, is_card},
    profile::{self, Validity},
};
use proptest::{prelude::*, sample::Index};

const SEED: [u8; 32] = [9; 32];

/// A Key of this depth (1: the Master), with the statement that its issuer (or it) signed.
struct Carrier {
    ca: Ca,
    access: Certificate,
    statement: Vec<u8>,
}

impl Carrier {
    fn at_depth(depth: u8) -> Self {
        let ca = Ca::at_depth(depth);
        let role = if depth == 1 { Role::Master } else { Role::Backup };
        let own = Key::new(30);
        let access = ca.issue(&own, role, &[4])[0].clone();
        let by = if depth == 1 { ca.clone() } else { Ca::at_depth(depth - 1) };
        let everywhere = Tree::new([leaf(Target::All, Effect::Allow)]).unwrap();
        let statement = by.statement(&own, Some(7), &everywhere);
        Self { ca, access, statement }
    }

    fn write(&self, locks: Vec<Certificate>, room: usize) -> Option<Vec<u8>> {
        Card::write(&self.ca.chain, Some((&self.statement, SEED)), locks, room)
    }

    fn read(&self, card: &[u8]) -> Result<Card, CardError> {
        Card::read(card, &self.access, self.ca.certificate())
    }
}

/// A Lock's certificate that was made at this second.
fn lock(by: &Ca, number: u8, made: u64) -> Certificate {
    let validity = Validity { not_before: VALIDITY.not_before + made, ..VALIDITY };
    let key = Key::new(100 + number).public();
    let unsigned =
        profile::end_entity(&key, Role::Lock, by.certificate(), &[90], validity).unwrap();
    Certificate::parse(&by.key.sign(unsigned)).unwrap()
}

/// A certificate as an item of a card.
fn item(lock: &Certificate) -> Vec<u8> {
    let length = u16::try_from(lock.der().len()).unwrap().to_be_bytes();
    [&[0x59, length[0], length[1]], lock.der()].concat()
}

#[test]
fn card_reads_back_as_written() {
    for depth in 1..=4 {
        let carrier = Carrier::at_depth(depth);
        let root = Ca::at_depth(1);
        let locks: Vec<_> = (0..8).map(|n| lock(&root, n, u64::from(n))).collect();
        let card = carrier.write(locks.clone(), MAX_CARD).unwrap();
        assert!(card.len() <= MAX_CARD && is_card(&card));
        let read = carrier.read(&card).unwrap();
        assert_eq!(read.chain(), carrier.ca.chain);
        assert_eq!(read.root(), root.certificate());
        let newest: Vec<_> = locks.iter().rev().take(read.locks().len()).cloned().collect();
        assert_eq!(read.locks(), newest);
        assert_eq!(read.locks().len(), [4, 3, 2, 1][usize::from(depth) - 1], "depth {depth}");
        let said: Vec<_> = read.objects().statements().collect();
        assert_eq!((&said[0].cose, said[0].seed, said.len()), (&carrier.statement, SEED, 1));
    }
}

#[test]
fn locks_that_do_not_fit_on_a_card_are_left_out() {
    let carrier = Carrier::at_depth(2);
    let strange = lock(&Ca::at_depth(1).backup(Key::new(9), 9), 1, 9);
    let (own, by_master) = (lock(&carrier.ca, 2, 1), lock(&Ca::at_depth(1), 3, 2));
    let all = vec![strange, own.clone(), by_master.clone(), own.clone()];
    let card = carrier.write(all.clone(), MAX_CARD).unwrap();
    assert_eq!(carrier.read(&card).unwrap().locks(), [by_master.clone(), own]);
    let small = carrier.write(all.clone(), card.len() - 1).unwrap();
    assert_eq!(carrier.read(&small).unwrap().locks(), [by_master]);
    assert_eq!(carrier.write(all, 500), None);
    // A CA outside of the chain signed the newest statement on the Key.
    let other = Ca::at_depth(1).backup(Key::new(9), 9);
    let everywhere = Tree::new([leaf(Target::All, Effect::Allow)]).unwrap();
    let said = other.statement(&Key::new(30), Some(8), &everywhere);
    let card = Card::write(&carrier.ca.chain, Some((&said, SEED)), [], MAX_CARD).unwrap();
    assert_eq!(carrier.read(&card).unwrap().objects().statements().count(), 0);
}

#[test]
fn card_with_wrong_contents_is_refused() {
    let carrier = Carrier::at_depth(1);
    let good = carrier.write(vec![lock(&carrier.ca, 1, 1)], MAX_CARD).unwrap();
    let other = Ca::master(Key::new(77));
    // Of another Key, and of one that is no issuer.
    assert!(Card::read(&good, &carrier.access, other.certificate()).is_err());
    let sub = carrier.ca.issue(&Key::new(30), Role::Sub, &[4])[0].clone();
    assert!(Card::read(&good, &sub, carrier.ca.certificate()).is_err());
    let twin = carrier.ca.issue(&Key::new(31), Role::Master, &[4])[0].clone();
    assert!(Card::read(&good, &twin, carrier.ca.certificate()).is_err(), "another's statement");
    // Another family's Lock in its place.
    let (own, theirs) = (lock(&carrier.ca, 1, 1), lock(&other, 1, 1));
    let at = good.len() - own.der().len() - 3;
    let with = |lock: &Certificate| [&good[..at], &item(lock)].concat();
    assert_eq!(with(&own), good);
    let mixed = with(&theirs);
    assert!(carrier.read(&mixed).is_err());
    assert_eq!(
        carrier.read(&[&good[..], &vec![0; 100_000]].concat()).err(),
        Some(CardError::Malformed)
    );
    let mut newer = good.clone();
    newer[16] = 2;
    assert_eq!(carrier.read(&newer).err(), Some(CardError::NewerVersion));
    assert_eq!(carrier.read(&[]).err(), Some(CardError::Malformed));
    // Locks in another order.
    let (first, last) = (lock(&carrier.ca, 1, 2), lock(&carrier.ca, 2, 1));
    let both = carrier.write(vec![first.clone(), last.clone()], MAX_CARD).unwrap();
    let before = both.len() - first.der().len() - last.der().len() - 6;
    let in_order = |one, other| [&both[..before], &item(one), &item(other)].concat();
    assert_eq!(in_order(&first, &last), both);
    let swapped = in_order(&last, &first);
    assert!(carrier.read(&both).is_ok());
    assert!(carrier.read(&swapped).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn changed_card_is_refused(depth in 1..=4u8, at in any::<Index>(), bit in 0..8u8) {
        let carrier = Carrier::at_depth(depth);
        let card = carrier.write(vec![lock(&carrier.ca, 1, 1)], MAX_CARD).unwrap();
        let at = at.index(card.len());
        let mut flipped = card.clone();
        flipped[at] ^= 1 << bit;
        prop_assert!(carrier.read(&flipped).is_err(), "bit {bit} of byte {at}");
        prop_assert!(carrier.read(&card[..at]).is_err());
        prop_assert!(carrier.read(&[&card[..], &[0]].concat()).is_err());
    }

    /// A card fits into any given room, and no smaller one would hold as many Locks.
    #[test]
    fn card_never_exceeds_the_given_room(room in 0..4000usize, count in 0..6u8) {
        let carrier = Carrier::at_depth(2);
        let locks: Vec<_> = (0..count).map(|n| lock(&carrier.ca, n, u64::from(n))).collect();
        let Some(card) = carrier.write(locks.clone(), room) else {
            prop_assert!(room < 1000);
            return Ok(());
        };
        prop_assert!(card.len() <= room.min(MAX_CARD));
        let read = carrier.read(&card).unwrap();
        let longest = locks.iter().map(|lock| lock.der().len()).max().unwrap_or_default();
        prop_assert!(
            read.locks().len() == locks.len() || room.min(MAX_CARD) < card.len() + longest + 4
        );
    }
}
