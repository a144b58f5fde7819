//! Issuing keys and Keys with several certificates: what is kept does not depend on the order of arrival.

use std::{sync::LazyLock, time::Instant};

use crate::common::{Ca, Key, NOW, VALIDITY};
use keywright_proto::{
    Certificate, Role, SignedObjects, Standing,
    crl::Revoked,
    family::{Authorities, SignedObjectError},
    profile,
    trust::REVOKE_DELAY,
};
use proptest::{prelude::*, sample::Index};

/// A CA certificate for the key of `own`, by another issuer.
fn certified_by(issuer: &Ca, own: &Key, serial: u8) -> Ca {
    issuer.backup(own.clone(), serial)
}

/// A Master (1) and its Backups 2 and 3; Backup 2 is certified a second time by 3, with a smaller path length, and Backup 3
/// by 2. Backup 4 is by 2, with a path length that only the first certificate of 2 allows, and then by 3. Keys 31 and 12
/// have access certificates of several roles.
static CERTIFICATES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let master = Ca::master(Key::new(1));
    let (two, three) = (master.backup(Key::new(2), 2), master.backup(Key::new(3), 3));
    let (two_by_three, three_by_two) =
        (certified_by(&three, &two.key, 4), certified_by(&two, &three.key, 5));
    let (four, four_by_three) = (two.backup(Key::new(4), 6), three.backup(Key::new(4), 7));
    let five = four.backup(Key::new(5), 8);
    let cas = [&two, &three, &two_by_three, &three_by_two, &four, &four_by_three, &five];
    let mut all: Vec<_> = cas.into_iter().map(|ca| ca.certificate().clone()).collect();
    for (by, key, role, serial) in [
        (&two, 12, Role::Backup, 20),
        (&three, 12, Role::Sub, 21),
        (&master, 11, Role::Master, 22),
        (&master, 31, Role::Sub, 23),
        (&four, 31, Role::Sub, 24),
        (&five, 31, Role::Backup, 25),
        (&two, 100, Role::Lock, 26),
        (&three, 100, Role::Lock, 27),
    ] {
        all.push(by.issue(&Key::new(key), role, &[serial])[0].clone());
    }
    all
});

fn empty() -> SignedObjects {
    SignedObjects::new(Ca::master(Key::new(1)).certificate().clone()).unwrap()
}

/// Adds certificates as they arrive; those whose issuer comes later arrive again.
fn arrive(order: &[usize]) -> SignedObjects {
    let mut objects = empty();
    for _ in 0..4 {
        for number in order {
            let _ = objects.add_certificate(CERTIFICATES[*number].clone());
        }
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn certificates_are_a_set_in_any_order_and_with_duplicates(
        order in Just((0..CERTIFICATES.len()).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(any::<Index>(), 0..8),
        cut in any::<Index>(),
    ) {
        let order = [&order[..], &again.iter().map(|n| n.index(order.len())).collect::<Vec<_>>()]
            .concat();
        let sorted: Vec<_> = (0..CERTIFICATES.len()).collect();
        let expected = arrive(&sorted);
        let mut together = empty();
        let all = order.iter().map(|number| CERTIFICATES[*number].clone());
        prop_assert_eq!(together.add_certificates(all), 0);
        // Two stations that know parts, and exchange them.
        let (one, other) = order.split_at(cut.index(order.len()));
        let mut merged = arrive(one);
        merged.merge(arrive(other));
        merged.merge(arrive(&order));
        for objects in [arrive(&order), together, merged] {
            prop_assert!(objects == expected);
            prop_assert_eq!(objects.encode(), expected.encode());
            prop_assert_eq!(objects.facts(|_| NOW), expected.facts(|_| NOW));
            for certificate in CERTIFICATES.iter() {
                prop_assert_eq!(objects.chain(certificate), expected.chain(certificate));
            }
        }
        prop_assert_eq!(expected.certificates().count(), CERTIFICATES.len());
    }
}

/// The certificate that allows more arrives after a child that needs it.
#[test]
fn chain_exists_through_a_later_certificate_of_the_issuer() {
    let [two, three, two_by_three, _, four, ..] = &CERTIFICATES[..] else { panic!() };
    let mut objects = empty();
    for ca in [three, two_by_three] {
        assert_eq!(objects.add_certificate(ca.clone()), Ok(true));
    }
    let refused = objects.add_certificate(four.clone());
    assert!(matches!(refused, Err(SignedObjectError::Chain(_))), "{refused:?}");
    assert_eq!(objects.add_certificate(two.clone()), Ok(true));
    assert_eq!(objects.add_certificate(four.clone()), Ok(true));
    assert_eq!(objects.chain(four).unwrap().len(), 3);
}

/// A Backup that a second issuer certified stands while one of the two does, whichever certificate came first.
#[test]
fn issuing_key_stands_by_any_of_its_certificates() {
    let [_, three, two_by_three, ..] = &CERTIFICATES[..] else { panic!() };
    let objects = arrive(&(0..CERTIFICATES.len()).collect::<Vec<_>>());
    let judgement = objects.facts(|_| NOW).judge(REVOKE_DELAY, NOW);
    for ca in [three, two_by_three] {
        let standing = judgement.standing(&ca.public_key().hash());
        assert_eq!(standing, Some(Standing::Stands));
    }
    let shortest = objects.authorities().chain_of(two_by_three.public_key(), |_| true).unwrap();
    assert_eq!(shortest.len(), 2);
    for by in [&Key::new(2), &Key::new(3)] {
        let preferred = |ca: &Certificate| {
            [by.public(), Key::new(1).public(), Key::new(4).public()].contains(ca.public_key())
        };
        let chain = objects.authorities().chain_of(&Key::new(4).public(), preferred).unwrap();
        assert_eq!(chain[1].public_key(), &by.public());
    }
}

/// One key that certifies many, and one that is certified by many, take time in proportion to their number.
#[test]
fn many_certificates_are_read_in_linear_time() {
    let master = Ca::master(Key::new(1));
    let two = master.backup(Key::new(2), 2);
    let certificate = |serial: u32| {
        let serial = [&[1][..], &serial.to_be_bytes()].concat();
        let unsigned =
            profile::backup_ca(&Key::new(3).public(), two.certificate(), &serial, VALIDITY);
        Certificate::parse(&two.key.sign(unsigned.unwrap())).unwrap()
    };
    let all: Vec<_> = (0..1600).map(certificate).collect();
    // They were verified: only the graph is measured.
    let measure = |number: usize| {
        let mut authorities = Authorities::new(master.certificate().clone());
        authorities.insert(two.certificate().clone());
        all[..number].iter().for_each(|ca| authorities.insert(ca.clone()));
        let routes = authorities.routes();
        let chains: usize = all[..number].iter().map(|ca| routes.of(ca).len()).sum();
        assert_eq!(chains, number);
    };
    assert_linear(100, 1600, measure);
}

/// Compares the least times for few and for many, where many take at most four times their share. Other tests run beside
/// this one and may stretch any single run, so it measures until that holds, or fifty times.
fn assert_linear(few: usize, many: usize, run: impl Fn(usize)) {
    let time = |number| {
        let began = Instant::now();
        run(number);
        began.elapsed()
    };
    let mut of_few = (0..5).map(|_| time(few)).min().unwrap();
    let mut of_many = time(many);
    let share = u32::try_from(4 * many / few).unwrap();
    for _ in 0..50 {
        if of_many < of_few * share {
            return;
        }
        of_few = of_few.min(time(few));
        of_many = of_many.min(time(many));
    }
    panic!("{of_few:?} for {few}, {of_many:?} for {many}");
}

/// A thief's CA signs many CRLs, each with an entry that no other has.
#[test]
fn many_crls_of_one_ca_are_merged_in_linear_time() {
    let master = Ca::master(Key::new(1));
    let crl = |number: u32| {
        let serial = [&[1][..], &number.to_be_bytes()].concat();
        master.crl(u64::from(number), &[Revoked { serial, since: NOW }])
    };
    let crls: Vec<_> = (0..800).map(crl).collect();
    let sets: Vec<_> = [50, 800]
        .map(|number| {
            let mut objects = empty();
            for crl in &crls[..number] {
                objects.add_crl(crl.clone()).unwrap();
            }
            objects
        })
        .into();
    assert_linear(50, 800, |number| {
        let mut objects = empty();
        assert_eq!(objects.merge_crls(&sets[usize::from(number > 50)]), number);
    });
}

/// A CA that signs CRLs of one entry each: all entries stay known.
#[test]
fn entries_of_every_crl_stay_known_in_any_order() {
    let master = Ca::master(Key::new(1));
    let crls: Vec<_> = (0..60u8)
        .map(|n| {
            let entries = [n, n / 2, 200].map(|s| Revoked { serial: vec![s + 1], since: NOW });
            master.crl(u64::from(n), &entries)
        })
        .collect();
    let mut one = empty();
    let mut other = empty();
    for crl in &crls {
        one.add_crl(crl.clone()).unwrap();
    }
    let mut part = empty();
    for crl in crls.iter().rev().step_by(2) {
        part.add_crl(crl.clone()).unwrap();
    }
    for crl in crls.iter().rev().skip(1).step_by(2) {
        other.add_crl(crl.clone()).unwrap();
    }
    other.merge_crls(&part);
    assert_eq!(one.encode(), other.encode());
    let (best, lacking) = one.crl(master.certificate()).unwrap();
    assert_eq!(best.revoked().len() + lacking.len(), 61);
}
