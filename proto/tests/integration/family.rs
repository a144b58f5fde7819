//! Stations that exchange signed objects: stolen Backups, restored stations, wrong clocks, mutual revocations; and
//! hostile files.

use std::sync::LazyLock;

use crate::common::{Ca, Key, NOW, VALIDITY, leaf};
use keywright_proto::{
    Certificate, Confirmation, Crl, Effect, Facts, PublicKey, RevokedIssuer, Role, Standing,
    Target, Tree,
    crl::Revoked,
    family::{FileError, MAX_FILE_LEAVES, SignedObjectError, SignedObjects},
    profile, removal,
    rights::VersionedEffect,
    trust::REVOKE_DELAY,
    verify_removal, verify_statement,
};
use proptest::{prelude::*, sample::Index};

const SEED: [u8; 32] = [9; 32];
const YEAR_MS: u64 = 31_557_600_000;
const NOW_MS: u64 = NOW * 1000;

/// An object that a station can add.
#[derive(Debug, Clone)]
enum Object {
    Certificate(Certificate),
    Crl(Crl),
    Statement(Vec<u8>, Vec<(Target, Effect)>),
    Confirmation(Vec<u8>),
    Removal(Vec<u8>),
    OwnRoot(Certificate),
}

use Object::{Confirmation as Confirmed, Statement as Stated};

fn add(objects: &mut SignedObjects, object: &Object) -> Result<bool, SignedObjectError> {
    match object.clone() {
        Object::Certificate(certificate) => objects.add_certificate(certificate),
        Object::Crl(crl) => objects.add_crl(crl),
        Stated(cose, leaves) => objects.add_statement(cose, SEED, leaves),
        Confirmed(bytes) => objects.add_confirmation(bytes),
        Object::Removal(bytes) => objects.add_removal(bytes),
        Object::OwnRoot(root) => objects.add_own_root(root),
    }
}

/// A Master (1), Backups 2 and 3 by it, 4 by 2; their access keys are 10 more; Sub Keys 31 and 32;
/// Locks 100 to 102.
struct Family {
    cas: Vec<Ca>,
}

static FAMILY: LazyLock<Family> = LazyLock::new(|| {
    let master = Ca::master(Key::new(1));
    let (two, three) = (master.backup(Key::new(2), 2), master.backup(Key::new(3), 3));
    let four = two.backup(Key::new(4), 4);
    Family { cas: vec![master, two, three, four] }
});

fn lock(number: u8) -> [u8; 32] {
    Key::new(number).public().hash()
}

impl Family {
    fn objects(&self) -> SignedObjects {
        SignedObjects::new(self.cas[0].certificate().clone()).unwrap()
    }

    fn say(&self, by: usize, about: u8, version: u64, said: &[(u8, Effect)]) -> Object {
        let leaves: Vec<_> = said.iter().map(|(n, e)| (Target::Lock(lock(*n)), *e)).collect();
        self.sign(by, about, Some(version), leaves)
    }

    fn sign(
        &self,
        by: usize,
        about: u8,
        version: Option<u64>,
        leaves: Vec<(Target, Effect)>,
    ) -> Object {
        let tree = Tree::new(leaves.iter().map(|(to, effect)| leaf(*to, *effect))).unwrap();
        Stated(self.cas[by].statement(&Key::new(about), version, &tree), leaves)
    }

    /// The revocation of a CA (by its place in `cas`) or of a Sub Key (by its number).
    fn revoke_issuer(&self, by: usize, which: usize, denials_until: u64) -> Object {
        let number = which as u8 + 1;
        let issuing_key = Key::new(number).public().hash();
        let revokes = RevokedIssuer { issuing_key, denials_until };
        let grant = self.cas[by].revocation(&Key::new(number + 10), Some(revokes));
        Stated(grant.statement, vec![(Target::All, Effect::Deny)])
    }

    fn revoke_sub(&self, by: usize, sub: u8) -> Object {
        let grant = self.cas[by].revocation(&Key::new(sub), None);
        Stated(grant.statement, vec![(Target::All, Effect::Deny)])
    }

    fn remove(&self, by: usize, number: u8) -> Object {
        let ca = &self.cas[by];
        Object::Removal(ca.key.sign(removal(&lock(number), &ca.chain).unwrap()))
    }

    fn own_root(&self, of: usize, serial: u8) -> Object {
        let ca = &self.cas[of];
        let unsigned = profile::own_root(ca.certificate(), &[serial], VALIDITY).unwrap();
        Object::OwnRoot(Certificate::parse(&ca.key.sign(unsigned)).unwrap())
    }

    fn certificates(&self) -> Vec<Object> {
        let mut all = Vec::new();
        for (place, ca) in self.cas.iter().enumerate() {
            let role = if place == 0 { Role::Master } else { Role::Backup };
            let access = ca.issue(&Key::new(place as u8 + 11), role, &[20 + place as u8]);
            all.extend([ca.certificate().clone(), access[0].clone()]);
        }
        all.push(self.cas[0].issue(&Key::new(31), Role::Sub, &[31])[0].clone());
        all.push(self.cas[3].issue(&Key::new(32), Role::Sub, &[32])[0].clone());
        for number in 100..103 {
            let by = &self.cas[usize::from(number) % 4];
            all.push(by.issue(&Key::new(number), Role::Lock, &[number])[0].clone());
        }
        all.into_iter().map(Object::Certificate).collect()
    }
}

fn confirm(number: u8, statement: &Object, effect: Effect, newest_version: u64) -> Object {
    let Stated(cose, _) = statement else { panic!("a statement") };
    let statement = verify_statement(cose, FAMILY.cas[0].root()).unwrap().digest;
    let key = Key::new(number);
    let said = Confirmation { statement, effect, newest_version };
    Confirmed(key.sign(said.unsigned(&key.public()).unwrap()))
}

/// Every object that the family ever signed.
static HISTORY: LazyLock<Vec<Object>> = LazyLock::new(|| {
    use Effect::{Allow, Deny};
    let family = &*FAMILY;
    let mut all = family.certificates();
    for (place, ca) in family.cas.iter().enumerate() {
        let revoked = |serials: &[u8]| -> Vec<Revoked> {
            serials.iter().map(|s| Revoked { serial: vec![*s], since: NOW }).collect()
        };
        // Two stations that each know half, and one that made an empty one anew.
        for (number, serials) in [(1, &[][..]), (2, &[7]), (2, &[8]), (3, &[]), (4, &[7, 9])] {
            all.push(Object::Crl(ca.crl(number, &revoked(serials))));
        }
        let everywhere = vec![(Target::All, Allow)];
        all.push(family.sign(0, place as u8 + 11, Some(NOW_MS + place as u64), everywhere));
        for sub in [31, 32] {
            // Clocks of three stations: a year late, right, a year ahead.
            for (version, effects) in [
                (NOW_MS - YEAR_MS, [Allow, Allow]),
                (NOW_MS + u64::from(sub), [Deny, Allow]),
                (NOW_MS + YEAR_MS, [Allow, Deny]),
                (NOW_MS + YEAR_MS, [Deny, Allow]),
            ] {
                let said = family.say(place, sub, version, &[(100, effects[0]), (101, effects[1])]);
                for number in [100, 101] {
                    let effect = effects[usize::from(number - 100)];
                    all.push(confirm(number, &said, effect, version));
                }
                all.push(said);
            }
        }
        all.push(family.revoke_issuer(place, (place + 1) % 4, NOW_MS));
    }
    all.push(family.revoke_issuer(1, 2, NOW_MS + 5));
    all.push(family.revoke_issuer(2, 1, 0));
    all.push(family.revoke_sub(3, 31));
    all.extend([family.remove(1, 101), family.remove(2, 101), family.remove(0, 102)]);
    all.extend([family.own_root(1, 50), family.own_root(1, 51), family.own_root(3, 52)]);
    all
});

/// What is in effect for each Key at each Lock.
fn rights(objects: &SignedObjects, facts: &Facts, now: u64) -> Vec<Option<VersionedEffect>> {
    let judgement = facts.judge(REVOKE_DELAY, now);
    let keys = (11..=14).chain([31, 32]).map(|n| Key::new(n).public().hash());
    keys.flat_map(|key| (100..103).map(move |n| (key, lock(n))))
        .map(|(key, lock)| objects.effect(&judgement, &key, &lock))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Stations add objects as they arrive, are restored from old copies, exchange in any order and more than once: in the
    /// end all have the same objects and the same judgement.
    #[test]
    fn stations_that_merge_in_any_order_end_equal(
        orders in proptest::collection::vec(
            Just((0..HISTORY.len()).collect::<Vec<_>>()).prop_shuffle(), 3),
        shares in proptest::collection::vec(any::<Index>(), 3),
        restored in any::<Index>(),
        meetings in proptest::collection::vec((0..3usize, 0..3usize), 0..8),
        last in Just(vec![0usize, 1, 2]).prop_shuffle(),
    ) {
        let mut stations: Vec<SignedObjects> = orders.iter().zip(&shares).map(|(order, share)| {
            let mut objects = FAMILY.objects();
            // An object that does not verify yet is left out, and arrives again with another exchange.
            for number in &order[..share.index(order.len())] {
                let _ = add(&mut objects, &HISTORY[*number]);
            }
            objects
        }).collect();
        let old_copies = stations.clone();
        for (from, to) in &meetings {
            let other = stations[*from].clone();
            stations[*to].merge(other);
        }
        let restored = restored.index(3);
        stations[restored] = old_copies[restored].clone();
        let mut union = stations[last[0]].clone();
        for number in &last[1..] {
            union.merge(stations[*number].clone());
        }
        // The other way round, through files, each thing twice.
        let mut other = FAMILY.objects();
        for number in [&last[..], &last].concat().into_iter().rev() {
            let file = stations[number].encode().unwrap();
            let (read, left_out) = SignedObjects::decode(&file, FAMILY.cas[0].root()).unwrap();
            prop_assert_eq!(left_out, 0);
            prop_assert!(read == stations[number]);
            other.merge(read);
        }
        prop_assert!(union == other);
        prop_assert_eq!(union.encode(), other.encode());
        prop_assert_eq!(other.merge(union.clone()), 0);
        // Each saw the objects at another time; once no delay runs, all judge the same.
        let (one, two) = (union.facts(|_| NOW), other.facts(|digest| NOW - u64::from(digest[0])));
        prop_assert_eq!(rights(&union, &one, NOW), rights(&other, &two, NOW));
        let later = NOW + REVOKE_DELAY;
        prop_assert_eq!(rights(&union, &one, later), rights(&other, &two, later));
        for number in 100..103 {
            prop_assert_eq!(
                union.is_removed(&one.judge(REVOKE_DELAY, later), &lock(number)),
                other.is_removed(&two.judge(REVOKE_DELAY, later), &lock(number))
            );
        }
    }

    /// A thief has Backup 2 (and with it makes 4). Once the Master has revoked it, the rights are as the Master says,
    /// whatever the thief signs and whenever it arrives.
    #[test]
    fn a_stolen_backup_changes_nothing_that_the_master_says_afterwards(
        thefts in proptest::collection::vec(
            (any::<bool>(), 0..4u8, -2_000_000_000_000i64..YEAR_MS as i64 * 100), 0..6),
        arrives_first in any::<bool>(),
    ) {
        let family = &*FAMILY;
        let mut objects = family.objects();
        for certificate in family.certificates() {
            add(&mut objects, &certificate).unwrap();
        }
        let stolen: Vec<_> = thefts.iter().map(|(by_four, what, ahead)| {
            let by = if *by_four { 3 } else { 1 };
            let version = NOW_MS.saturating_add_signed(*ahead);
            match what {
                0 => family.say(by, 31, version, &[(100, Effect::Allow), (102, Effect::Allow)]),
                1 => family.say(by, 31, version, &[(101, Effect::Deny)]),
                2 => family.revoke_sub(by, 31),
                _ => family.revoke_issuer(by, 0, version),
            }
        }).collect();
        let revoked = family.revoke_issuer(0, 1, NOW_MS);
        let anew = family.say(0, 31, NOW_MS + 1, &[(100, Effect::Deny), (101, Effect::Allow)]);
        let mut honest = vec![revoked, anew];
        honest.extend(family.certificates());
        let all = if arrives_first { [stolen, honest].concat() } else { [honest, stolen].concat() };
        for object in &all {
            add(&mut objects, object).unwrap();
        }
        let facts = objects.facts(|_| 0);
        let judgement = facts.judge(REVOKE_DELAY, NOW);
        let root = family.cas[0].key.public().hash();
        prop_assert_eq!(judgement.standing(&root), Some(Standing::Stands));
        let sub = Key::new(31).public().hash();
        let said = |number| objects.effect(&judgement, &sub, &lock(number)).map(|said| said.effect);
        prop_assert_eq!(said(100), Some(Effect::Deny));
        prop_assert_eq!(said(101), Some(Effect::Allow));
        prop_assert_ne!(said(102), Some(Effect::Allow));
    }
}

/// A restored station does not know the newest version: its statements are older and have no effect.
#[test]
fn a_restored_station_does_not_bring_old_rights_back() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    for object in family.certificates() {
        add(&mut objects, &object).unwrap();
    }
    add(&mut objects, &family.say(0, 31, 50, &[(100, Effect::Deny)])).unwrap();
    add(&mut objects, &family.say(0, 31, 40, &[(100, Effect::Allow)])).unwrap();
    let judgement = objects.facts(|_| 0).judge(REVOKE_DELAY, NOW);
    let said = objects.effect(&judgement, &Key::new(31).public().hash(), &lock(100)).unwrap();
    assert_eq!(said, VersionedEffect { version: Some(50), effect: Effect::Deny });
}

/// Confirmations are left out first, because revocations have to get through.
#[test]
fn a_file_that_is_too_long_leaves_confirmations_out() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    for object in family.certificates() {
        add(&mut objects, &object).unwrap();
    }
    let revoked = family.revoke_sub(0, 31);
    add(&mut objects, &revoked).unwrap();
    let without = objects.encode().unwrap();
    add(&mut objects, &confirm(100, &revoked, Effect::Deny, 1)).unwrap();
    let whole = objects.encode().unwrap();
    assert!(whole.len() > without.len());
    assert_eq!(objects.encode_most(whole.len()).unwrap(), (whole.clone(), 0));
    // Confirmed denials are kept before confirmed rights.
    let granted = family.say(0, 31, 5, &[(100, Effect::Allow)]);
    add(&mut objects, &granted).unwrap();
    let without_both = objects.encode().unwrap().len() - (whole.len() - without.len());
    add(&mut objects, &confirm(100, &granted, Effect::Allow, 5)).unwrap();
    let all = objects.encode().unwrap();
    let (most, left_out) = objects.encode_most(all.len() - 1).unwrap();
    assert!(left_out == 1 && without_both < most.len() && most.len() < all.len());
    let (read, _) = SignedObjects::decode(&most, family.cas[0].root()).unwrap();
    assert_eq!(read.encode().unwrap(), most);
    let (least, left_out) = objects.encode_most(most.len() - 1).unwrap();
    assert_eq!((least.len(), left_out), (without_both, 1));
}

/// What the thief of a Backup signs, until its own share is full: rights, revocations, and certificates of more CAs.
fn stolen(thief: &Ca, count: u64) -> Vec<Object> {
    let mut all = Vec::new();
    for version in 1..count {
        let leaves = vec![(Target::Lock(lock(100)), Effect::Allow)];
        let tree = Tree::new([leaf(Target::Lock(lock(100)), Effect::Allow)]).unwrap();
        all.push(Stated(thief.statement(&Key::new(31), Some(version), &tree), leaves));
        let issuing_key = Key::new(200).public().hash();
        let revokes = RevokedIssuer { issuing_key, denials_until: version };
        let grant = thief.revocation(&Key::new(201), Some(revokes));
        all.push(Stated(grant.statement, vec![(Target::All, Effect::Deny)]));
    }
    all
}

/// Two valid files of the largest size must not end the exchange of a family.
#[test]
fn a_thief_who_signs_too_much_crowds_out_nobody_else() {
    use Effect::{Allow, Deny};
    let family = &*FAMILY;
    let (mut honest, mut theirs) = (family.objects(), family.objects());
    for object in family.certificates() {
        add(&mut honest, &object).unwrap();
        let Object::Certificate(certificate) = &object else { continue };
        let chain = honest.chain(certificate).unwrap_or_default();
        // What the thief's Key had certified before is in the thief's share.
        if !chain.iter().any(|ca| ca == family.cas[1].certificate()) {
            add(&mut theirs, &object).unwrap();
        }
    }
    // A right and a denial by another Backup, and the Master's revocation of the thief.
    let said = family.say(2, 31, 50, &[(100, Allow), (101, Deny)]);
    for object in [said, family.revoke_issuer(0, 1, 7), family.remove(2, 102)] {
        add(&mut honest, &object).unwrap();
        add(&mut theirs, &object).unwrap();
    }
    let limit = 3 * honest.encode().unwrap().len();
    let mut all = honest.clone();
    for object in stolen(&family.cas[1], 200) {
        add(&mut all, &object).unwrap();
    }
    assert!(all.encode().unwrap().len() > 3 * limit);
    let (file, left_out) = all.clone().encode_most(limit).unwrap();
    assert!(file.len() <= limit && left_out > 0, "{} of {limit} bytes", file.len());
    let (read, broken) = SignedObjects::decode(&file, family.cas[0].root()).unwrap();
    assert_eq!((broken, read.encode().unwrap() == file), (0, true));
    assert_eq!(read.clone().merge(theirs.clone()), 0, "nothing of the others is missing");
    // A station takes what fits beside its own. What the next file displaces stays there, so it grows a little.
    let mut station = theirs.clone();
    let mut lengths = Vec::new();
    for count in [50, 100, 200] {
        let mut received = theirs.clone();
        for object in stolen(&family.cas[1], count) {
            add(&mut received, &object).unwrap();
        }
        let fitting = station.clone().fitting(&received, limit).unwrap();
        station.merge(fitting);
        lengths.push(station.encode().unwrap().len());
    }
    assert!(lengths.iter().all(|length| *length < 2 * limit), "{lengths:?} of {limit} bytes");
    // The choice depends on the set alone.
    let mut again = SignedObjects::decode(&file, family.cas[0].root()).unwrap().0;
    again.merge(all.clone());
    assert_eq!(again.encode_most(limit).unwrap().0, file);
    // The file of revocations, too, has those of everybody.
    let mut revocations = all.revocations().unwrap();
    let (file, left_out) = revocations.encode_most(limit / 2).unwrap();
    assert!(file.len() <= limit / 2 && left_out > 0);
    let (read, broken) = SignedObjects::decode(&file, family.cas[0].root()).unwrap();
    assert_eq!(broken, 0);
    assert_eq!(read.clone().merge(theirs.revocations().unwrap()), 0);
    let judged = read.facts(|_| 0).judge(0, NOW);
    assert_eq!(judged.standing(&Key::new(2).public().hash()), Some(Standing::Revoked));
}

#[test]
fn the_revocations_of_a_family_are_a_file_of_their_own() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    for object in family.certificates() {
        add(&mut objects, &object).unwrap();
    }
    add(&mut objects, &family.say(0, 31, 50, &[(100, Effect::Allow)])).unwrap();
    assert!(!objects.has_revocations());
    add(&mut objects, &family.revoke_issuer(0, 1, 7)).unwrap();
    add(&mut objects, &family.revoke_sub(2, 31)).unwrap();
    add(&mut objects, &family.remove(3, 102)).unwrap();
    assert!(objects.has_revocations());
    let file = objects.revocations().unwrap().encode().unwrap();
    assert!(file.len() < objects.encode().unwrap().len() * 3 / 4);
    let (read, broken) = SignedObjects::decode(&file, family.cas[0].root()).unwrap();
    assert_eq!((broken, read.statements().count(), read.removals().count()), (0, 2, 1));
    // Whose access key the revoked one is, and by whom its CA was certified.
    for number in [2, 12] {
        let key = Key::new(number).public();
        assert!(read.certificates().any(|known| *known.public_key() == key), "{number}");
    }
    let (mine, theirs) = (objects.facts(|_| 0).judge(0, NOW), read.facts(|_| 0).judge(0, NOW));
    for number in [1, 2, 4] {
        let key = Key::new(number).public().hash();
        assert_eq!(mine.standing(&key), theirs.standing(&key), "{number}");
    }
}

/// A file with more rights than are read still brings its revocations.
#[test]
fn revocations_are_read_from_a_file_with_too_many_rights() {
    let family = &*FAMILY;
    let Stated(revocation, _) = family.revoke_sub(0, 31) else { panic!("a statement") };
    let mut e = minicbor::Encoder::new(Vec::new());
    e.array(8).unwrap().str("keywright-family").unwrap().u64(1).unwrap();
    e.bytes(family.cas[0].root()).unwrap();
    e.array(0).unwrap().array(0).unwrap().array(0).unwrap();
    e.array(2).unwrap();
    e.array(3).unwrap().bytes(b"of any text").unwrap().bytes(&SEED).unwrap();
    e.array(MAX_FILE_LEAVES as u64 + 1).unwrap();
    for _ in 0..=MAX_FILE_LEAVES {
        e.bool(false).unwrap();
    }
    e.array(3).unwrap().bytes(&revocation).unwrap().bytes(&SEED).unwrap();
    e.array(1).unwrap().bool(false).unwrap();
    e.array(0).unwrap();
    let (read, left_out) = SignedObjects::decode(&e.into_writer(), family.cas[0].root()).unwrap();
    assert_eq!((left_out, read.statements().count()), (1, 1));
}

#[test]
fn object_without_a_chain_to_the_root_is_refused() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    let by_four = family.cas[3].issue(&Key::new(40), Role::Sub, &[40])[0].clone();
    assert_eq!(objects.add_certificate(by_four.clone()), Err(SignedObjectError::NoIssuer));
    assert!(objects.add_crl(family.cas[1].crl(1, &[])).is_err(), "of a CA that is not known");
    for number in [1, 3] {
        let ca = family.cas[number].certificate().clone();
        assert_eq!(objects.add_certificate(ca.clone()), Ok(true));
        assert_eq!(objects.add_certificate(ca), Ok(false));
    }
    assert_eq!(objects.add_certificate(by_four.clone()), Ok(true));
    assert_eq!(objects.chain(&by_four).unwrap().len(), 4);
    assert_eq!(objects.add_crl(family.cas[1].crl(1, &[])), Ok(true));
    let other = Ca::master(Key::new(77));
    for stranger in [
        Object::Certificate(other.certificate().clone()),
        Object::Certificate(other.issue(&Key::new(31), Role::Sub, &[1])[0].clone()),
        Object::Crl(other.crl(1, &[])),
        // A Master's access certificate is the root's to issue, a Backup's is not.
        Object::Certificate(family.cas[1].issue(&Key::new(31), Role::Master, &[1])[0].clone()),
        Object::Certificate(family.cas[0].issue(&Key::new(31), Role::Backup, &[1])[0].clone()),
        // Every Lock, for a Sub Key; not the leaves that were signed.
        family.sign(0, 31, Some(1), vec![(Target::All, Effect::Allow)]),
        family.sign(0, 31, None, vec![(Target::Lock(lock(100)), Effect::Deny)]),
        confirm(100, &family.say(0, 31, 1, &[(100, Effect::Allow)]), Effect::Allow, 1),
    ] {
        let before = objects.clone();
        assert!(add(&mut objects, &stranger).is_err(), "{stranger:?}");
        assert!(objects == before);
    }
    let Stated(cose, _) = family.say(0, 31, 1, &[(100, Effect::Allow)]) else { panic!() };
    let others = vec![(Target::Lock(lock(101)), Effect::Allow)];
    assert_eq!(objects.add_statement(cose, SEED, others), Err(SignedObjectError::Leaves));
    let strangers = SignedObjects::new(other.certificate().clone()).unwrap();
    assert_eq!(objects.merge(strangers), 0);
    assert!(SignedObjects::new(by_four).is_err());
}

#[test]
fn a_crl_never_loses_an_entry() {
    let family = &*FAMILY;
    let ca = &family.cas[0];
    let crl = |number, serials: &[u8]| {
        let entries = serials.iter().map(|s| Revoked { serial: vec![*s], since: NOW });
        ca.crl(number, &entries.collect::<Vec<_>>())
    };
    let mut objects = family.objects();
    assert!(objects.crl(ca.certificate()).is_none());
    assert_eq!(objects.add_crl(crl(5, &[1])), Ok(true));
    assert_eq!(objects.add_crl(crl(9, &[])), Ok(false), "it lacks an entry");
    assert_eq!(objects.add_crl(crl(6, &[2, 3])), Ok(true));
    let (best, lacking) = objects.crl(ca.certificate()).unwrap();
    assert_eq!((best.number(), lacking), (6, [vec![1]].into()));
    assert_eq!(objects.add_crl(crl(7, &[1, 2, 3])), Ok(true));
    assert_eq!(objects.add_crl(crl(8, &[1, 2, 3])), Ok(true), "newer");
    assert_eq!(objects.add_crl(crl(7, &[1, 2, 3])), Ok(false));
    let (best, lacking) = objects.crl(ca.certificate()).unwrap();
    assert_eq!((best.number(), lacking.len()), (8, 0));
}

#[test]
fn hostile_files_are_read_without_harm() {
    let root = FAMILY.cas[0].root();
    let mut objects = FAMILY.objects();
    for _ in 0..2 {
        for object in HISTORY.iter() {
            let _ = add(&mut objects, object);
        }
    }
    let good = objects.encode().unwrap();
    assert_eq!(SignedObjects::claimed_root(&good), Ok(root));
    let other = Ca::master(Key::new(77));
    assert_eq!(SignedObjects::decode(&good, other.root()).unwrap_err(), FileError::OtherFamily);
    for length in (0..good.len()).step_by(97) {
        assert_eq!(SignedObjects::decode(&good[..length], root).unwrap_err(), FileError::Malformed);
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(SignedObjects::decode(&longer, root).unwrap_err(), FileError::Malformed);
    // The version is the byte after the name and its head, and the array's head.
    let mut newer = good.clone();
    newer[18] = 3;
    assert_eq!(SignedObjects::decode(&newer, root).unwrap_err(), FileError::NewerVersion);
    newer[18] = 1;
    assert_eq!(SignedObjects::decode(&newer, root).unwrap_err(), FileError::Malformed);
    // A billion items, of which none is there.
    let mut huge = good[..19 + 3 + root.len()].to_vec();
    huge.extend([0x9a, 0x3b, 0x9a, 0xca, 0]);
    assert_eq!(SignedObjects::decode(&huge, root).unwrap_err(), FileError::Malformed);
    // Whatever else is flipped: nothing comes in that was not there.
    for at in (0..good.len()).step_by(211) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok((read, _)) = SignedObjects::decode(&flipped, root) {
            assert_eq!(objects.clone().merge(read), 0, "bit in byte {at}");
        }
    }
}

/// A removal is in effect while its signer stands, in any order of arrival: a Lock that a Backup removed is back when that
/// Backup is revoked. Files without removals keep the first format.
#[test]
fn removal_is_in_effect_while_its_signer_stands() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    for object in family.certificates() {
        add(&mut objects, &object).unwrap();
    }
    assert_eq!(objects.encode().unwrap()[18], 1);
    let removed = |objects: &SignedObjects, number| {
        objects.is_removed(&objects.facts(|_| 0).judge(REVOKE_DELAY, NOW), &lock(number))
    };
    assert!(add(&mut objects, &family.remove(1, 100)).unwrap());
    assert!(!add(&mut objects, &family.remove(1, 100)).unwrap());
    assert!(removed(&objects, 100) && !removed(&objects, 101));
    let file = objects.encode().unwrap();
    assert_eq!(file[18], 2);
    assert!(SignedObjects::decode(&file, family.cas[0].root()).unwrap().0 == objects);
    add(&mut objects, &family.revoke_issuer(0, 1, NOW_MS)).unwrap();
    assert!(!removed(&objects, 100), "its signer was revoked");
    add(&mut objects, &family.remove(0, 100)).unwrap();
    assert!(removed(&objects, 100));

    let other = Ca::master(Key::new(77));
    let by_other = other.key.sign(removal(&lock(100), &other.chain).unwrap());
    let Object::Removal(good) = family.remove(1, 100) else { panic!() };
    assert!(objects.add_removal(by_other.clone()).is_err());
    for place in 0..good.len() {
        let mut flipped = good.clone();
        flipped[place] ^= 1;
        assert!(verify_removal(&flipped, family.cas[0].root()).is_err(), "byte {place}");
        assert!(verify_removal(&good[..place], family.cas[0].root()).is_err());
    }
    let end = other.issue(&Key::new(5), Role::Sub, &[5]);
    assert!(removal(&lock(100), &end).is_err() && removal(&lock(100), &[]).is_err());
}

/// One self-signed root is kept of each CA, the same one everywhere, and none of an unknown CA.
#[test]
fn own_root_is_added_for_a_known_ca_only() {
    let family = &*FAMILY;
    let mut objects = family.objects();
    let (one, two) = (family.own_root(1, 50), family.own_root(1, 51));
    assert_eq!(add(&mut objects, &one), Err(SignedObjectError::NoIssuer));
    for object in family.certificates() {
        add(&mut objects, &object).unwrap();
    }
    assert_eq!(add(&mut objects, &one), Ok(true));
    assert_eq!(add(&mut objects, &two), Ok(false));
    let mut other = family.objects();
    for object in family.certificates().into_iter().chain([two, one]) {
        add(&mut other, &object).unwrap();
    }
    assert!(objects == other);
    let stranger = Ca::master(Key::new(2)).certificate().clone();
    assert!(objects.add_own_root(stranger).is_err(), "the key of a CA, under another family");
    let signed_by_another = family.cas[0].backup(Key::new(2), 9).certificate().clone();
    assert!(objects.add_own_root(signed_by_another).is_err());
    assert!(objects.add_own_root(family.cas[0].certificate().clone()).is_err());
}

#[test]
fn facts_name_issuing_keys_by_their_hash() {
    let facts = FAMILY.objects().facts(|_| 0);
    let master: PublicKey = FAMILY.cas[0].key.public();
    let judgement = facts.judge(REVOKE_DELAY, NOW);
    assert_eq!(judgement.standing(&master.hash()), Some(Standing::Stands));
    assert_eq!(judgement.depth(&master.hash()), Some(0));
    assert_eq!(judgement.standing(&lock(2)), None);
}
