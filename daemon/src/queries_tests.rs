//! Lists and grants over a small registry: a Master, a Sub Key and five Locks.

use keywright_proto::{
    ErrorName, Role,
    grant::Grant,
    tree::{Effect, Leaf, Target, Tree},
};

use super::*;
use crate::registry::{
    Batch,
    records::{Confirmation, Family, Issuer, Key, Lock, LockEntry, Membership, Scope, Statement},
};

const NOW: Moment = Moment { now: CONFIRMED, delay: 0 };

const FAMILY: Id = Id::from_bytes([0xfa; 16]);
const MASTER: Id = Id::from_bytes([0xaa; 16]);
const SUB: Id = Id::from_bytes([0x5b; 16]);
const ISSUED: u64 = 1_000;
const CONFIRMED: u64 = 2_000;

fn lock_id(number: u8) -> Id {
    Id::from_bytes([number; 16])
}

fn key(name: &str) -> Key {
    Key {
        access_key: name.into(),
        label: name.into(),
        name: name.into(),
        family: FAMILY,
        guid: None,
        serial: String::new(),
        model: String::new(),
        last_seen: 7,
        puk_tried: false,
    }
}

fn entry(number: u8, allow: bool) -> LockEntry {
    LockEntry { lock: lock_id(number), key_hash: [number; 32], allow }
}

/// A statement that lists this many Locks, or allows every Lock.
fn statement(scope: Scope) -> Statement {
    let everywhere = (scope == Scope::All).then_some(true);
    let new = Statement::new(Some(5), b"cose".into(), [3; 32], everywhere, &[], ISSUED);
    match scope {
        Scope::All => new,
        Scope::Listed(listed) => Statement { listed, ..new },
    }
}

/// The Sub Key may access Lock 1 (confirmed) and 2, and may no more access Lock 3.
fn registry() -> (Registry, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(&dir.path().join("registry")).unwrap();
    let mut batch = Batch::new();
    let root = b"root".to_vec();
    batch.put_family(FAMILY, Family { root: root.clone(), pinned: 1, locks: 5 });
    let chain = vec![root];
    let crl = b"crl".to_vec();
    batch.put_issuer(FAMILY, Issuer { family: FAMILY, chain, crl, to_revoke: Vec::new() });
    for (id, name, role) in [(MASTER, "Mia", Role::Master), (SUB, "Sam", Role::Sub)] {
        let certificate = name.into();
        batch.put_key(id, key(name));
        let membership = Membership {
            role,
            certificate,
            issuer: FAMILY,
            container: 0x5f_c105,
            issuing_key: None,
            revoked: false,
        };
        batch.put_membership(id, FAMILY, membership);
    }
    for number in 1..=5 {
        batch.put_lock(
            lock_id(number),
            Lock {
                identity_key: vec![number],
                name: format!("gate {number}"),
                family: FAMILY,
                certificate: Vec::new(),
                issuer: FAMILY,
                online: false,
                last_seen: 9,
            },
        );
    }
    let entries = vec![entry(1, true), entry(2, true), entry(3, false)];
    batch.put_statement(MASTER, FAMILY, statement(Scope::All), Vec::new());
    let listed = Statement { allowed: 2, ..statement(Scope::Listed(3)) };
    batch.put_statement(SUB, FAMILY, listed, entries);
    let confirmation = Confirmation { version: Some(5), allow: true, time: CONFIRMED };
    batch.put_confirmation(SUB, lock_id(1), confirmation);
    registry.commit(batch).unwrap();
    (registry, dir)
}

fn first(limit: u32) -> Page {
    Page { after: None, limit }
}

fn after(cursor: &str, limit: u32) -> Page {
    Page { after: Some(cursor.parse().unwrap()), limit }
}

#[test]
fn keys_and_locks_come_in_pages() {
    let (registry, _dir) = registry();
    let (rows, next) = keys(&registry, &Filter::default(), first(1)).unwrap();
    let expected = (SUB.to_string(), "Sam".into(), "sub".into(), FAMILY.to_string(), 7);
    assert_eq!((rows, &next), (vec![expected], &SUB.to_string()));
    let (rows, next) = keys(&registry, &Filter::default(), after(&next, 1)).unwrap();
    assert_eq!((rows[0].1.as_str(), next.as_str()), ("Mia", ""));

    let (rows, next) = locks(&registry, &Filter::default(), first(3)).unwrap();
    assert_eq!((rows.len(), next), (3, lock_id(3).to_string()));
    let wanted = Filter { family: None, query: Some("GATE 4".into()) };
    let (rows, next) = locks(&registry, &wanted, first(3)).unwrap();
    assert_eq!((rows[0].1.as_str(), rows.len(), next.as_str()), ("gate 4", 1, ""));
    let ids = [lock_id(2), lock_id(4), lock_id(9)];
    assert_eq!(locks_among(&registry, &ids, &Filter::default()).unwrap().len(), 2);
    assert_eq!(locks_among(&registry, &ids, &wanted).unwrap().len(), 1);
}

#[test]
fn rights_have_a_state_and_an_age() {
    let (registry, _dir) = registry();
    let right = |number: u8, state: &str, since| {
        (lock_id(number).to_string(), format!("gate {number}"), state.to_owned(), since)
    };
    let (rows, next) = rights(&registry, SUB, first(10), NOW).unwrap();
    let all =
        [right(1, "active", CONFIRMED), right(2, "pending", ISSUED), right(3, "removing", ISSUED)];
    assert_eq!((rows.as_slice(), next.as_str()), (&all[..], ""));

    let (rows, next) = rights(&registry, SUB, first(2), NOW).unwrap();
    assert_eq!((rows.as_slice(), &next), (&all[..2], &lock_id(2).to_string()));
    let (rows, next) = rights(&registry, SUB, after(&next, 2), NOW).unwrap();
    assert_eq!((rows.as_slice(), next.as_str()), (&all[2..], ""));

    let (rows, next) = rights(&registry, MASTER, first(4), NOW).unwrap();
    assert_eq!((rows.len(), rows[0].2.as_str()), (4, "pending"));
    let (rows, next) = rights(&registry, MASTER, after(&next, 4), NOW).unwrap();
    assert_eq!((rows, next.as_str()), (vec![right(5, "pending", ISSUED)], ""));
}

/// Statements that repeat a removal do not make it younger; what the Lock has yet to confirm after one does.
#[test]
fn a_removal_is_as_old_as_its_first_statement() {
    let (registry, _dir) = registry();
    let state = |issued: u64, denied: bool| {
        let mut batch = Batch::new();
        let newer = Statement { issued, ..statement(Scope::Listed(2)) };
        batch.put_statement(SUB, FAMILY, newer, vec![entry(1, true), entry(3, !denied)]);
        registry.commit(batch).unwrap();
        let rows = rights(&registry, SUB, first(10), NOW).unwrap().0;
        (rows[1].2.clone(), rows[1].3)
    };
    assert_eq!(state(ISSUED + 7, true), ("removing".into(), ISSUED));
    assert_eq!(state(ISSUED + 8, false), ("pending".into(), ISSUED + 8));
    assert_eq!(state(ISSUED + 9, true), ("removing".into(), ISSUED + 9));
    let mut batch = Batch::new();
    let done = Confirmation { version: Some(4), allow: false, time: ISSUED + 10 };
    batch.put_confirmation(SUB, lock_id(3), done);
    registry.commit(batch).unwrap();
    assert_eq!(state(ISSUED + 11, true), ("removing".into(), ISSUED + 11));
}

/// Whoever is told of confirmations hears of what waits no more, and how long it did.
#[test]
fn what_is_confirmed_waited_since_it_was_first_said() {
    let (registry, _dir) = registry();
    let locks: Vec<_> = (1..=5).map(lock_id).collect();
    let told = || completed_rights(&registry, SUB, FAMILY, &locks, NOW).unwrap();
    let row = |number, word, waited| (lock_id(number).to_string(), word, waited);
    let active = row(1, "active", CONFIRMED - ISSUED);
    assert_eq!(told(), std::slice::from_ref(&active));
    // The removal is said once more; the Lock confirms the first one, and then the second.
    let mut batch = Batch::new();
    let again = Statement { version: Some(6), issued: ISSUED + 50, ..statement(Scope::Listed(2)) };
    batch.put_statement(SUB, FAMILY, again, vec![entry(1, true), entry(3, false)]);
    registry.commit(batch).unwrap();
    let confirm = |version| {
        let mut batch = Batch::new();
        let done = Confirmation { version: Some(version), allow: false, time: ISSUED + 90 };
        batch.put_confirmation(SUB, lock_id(3), done);
        registry.commit(batch).unwrap();
    };
    confirm(5);
    assert_eq!(told().len(), 1);
    confirm(6);
    assert_eq!(told()[1], row(3, "removed", 90));
    let mut batch = Batch::new();
    batch.set_lock_removed(FAMILY, lock_id(3), true);
    registry.commit(batch).unwrap();
    assert_eq!(told().len(), 1);
    // A Master has every Lock, by one statement.
    let mut batch = Batch::new();
    let confirmation = Confirmation { version: Some(5), allow: true, time: CONFIRMED };
    batch.put_confirmation(MASTER, lock_id(5), confirmation);
    registry.commit(batch).unwrap();
    let told = completed_rights(&registry, MASTER, FAMILY, &locks, NOW).unwrap();
    assert_eq!(told, [row(5, "active", CONFIRMED - ISSUED)]);
}

/// A Lock that was removed has no rights, in lists and counts.
#[test]
fn a_removed_lock_has_no_rights() {
    let (registry, _dir) = registry();
    assert_eq!(count_rights(&registry, SUB, FAMILY, NOW).unwrap(), (1, 1));
    for (number, left) in [(2, (1, 0)), (1, (0, 0))] {
        let mut batch = Batch::new();
        batch.set_lock_removed(FAMILY, lock_id(number), true);
        registry.commit(batch).unwrap();
        assert_eq!(count_rights(&registry, SUB, FAMILY, NOW).unwrap(), left);
        let rows = rights(&registry, SUB, first(10), NOW).unwrap().0;
        assert!(rows.iter().all(|row| row.0 != lock_id(number).to_string()), "{rows:?}");
    }
    assert_eq!(count_rights(&registry, MASTER, FAMILY, NOW).unwrap().0, 0);
}

/// The count does not read every Lock; the list does.
#[test]
fn counts_agree_with_the_list() {
    let (registry, _dir) = registry();
    let confirm = |key, lock, version, allow| {
        let mut batch = Batch::new();
        let confirmation = Confirmation { version: Some(version), allow, time: CONFIRMED };
        batch.put_confirmation(key, lock_id(lock), confirmation);
        registry.commit(batch).unwrap();
    };
    let check = |key| {
        let rows = rights(&registry, key, first(10), NOW).unwrap().0;
        let listed = |state: &str| rows.iter().filter(|row| row.2 == state).count() as u32;
        let counted = count_rights(&registry, key, FAMILY, NOW).unwrap();
        assert_eq!(counted, (listed("active"), listed("pending")), "{rows:?}");
    };
    for (lock, version, allow) in
        [(1, 5, false), (3, 4, true), (2, 4, true), (3, 5, false), (2, 6, false), (1, 5, true)]
    {
        for key in [SUB, MASTER] {
            confirm(key, lock, version, allow);
            check(key);
        }
    }
}

#[test]
fn grants_made_together_are_those_made_one_by_one() {
    let (registry, _dir) = registry();
    let grants = Grants::of(&registry, SUB, FAMILY, NOW).unwrap().unwrap();
    for number in 1..=3 {
        let alone = grant(&registry, SUB, lock_id(number), NOW).unwrap();
        assert_eq!(grants.at(lock_id(number)), Some(alone));
    }
    assert_eq!(grants.at(lock_id(4)), None);
    assert!(Grants::of(&registry, MASTER, FAMILY, NOW).unwrap().is_none());
    assert!(grants.are_current(&registry, SUB, NOW).unwrap());
    assert!(!grants.are_current(&registry, MASTER, NOW).unwrap());
    let mut batch = Batch::new();
    let newer = Statement { version: Some(6), ..statement(Scope::Listed(1)) };
    batch.put_statement(SUB, FAMILY, newer, vec![entry(1, false)]);
    registry.commit(batch).unwrap();
    assert!(!grants.are_current(&registry, SUB, NOW).unwrap());
}

/// Whoever watches hears of what is said of Keys, when it is committed.
#[test]
fn new_statements_are_told_of() {
    let (registry, _dir) = registry();
    let (send, told) = std::sync::mpsc::channel();
    registry.watch_statements(move |keys| send.send(keys).unwrap());
    let mut batch = Batch::new();
    batch.put_statement(SUB, FAMILY, statement(Scope::Listed(1)), vec![entry(1, false)]);
    registry.commit(batch).unwrap();
    assert_eq!(told.try_recv(), Ok(vec![SUB]));
    let mut batch = Batch::new();
    let confirmation = Confirmation { version: Some(5), allow: true, time: CONFIRMED };
    batch.put_confirmation(SUB, lock_id(2), confirmation);
    registry.commit(batch).unwrap();
    assert!(told.try_recv().is_err());
}

/// Whoever watches hears who was certified anew, and of nothing else about Locks.
#[test]
fn new_certificates_are_told_of() {
    let (registry, _dir) = registry();
    let (send, told) = std::sync::mpsc::channel();
    registry.watch_certificates(move |certified| send.send(certified).unwrap());
    let known = registry.lock(lock_id(1)).unwrap().unwrap();
    let put = |lock: Lock| {
        let mut batch = Batch::new();
        batch.put_lock(lock_id(1), lock);
        registry.commit(batch).unwrap();
    };
    put(Lock { online: !known.online, name: "Door".into(), ..known.clone() });
    assert!(told.try_recv().is_err());
    put(Lock { certificate: b"new".to_vec(), ..known.clone() });
    assert_eq!(told.try_recv().unwrap().locks, [lock_id(1)].into());
    let ca = registry.issuer(FAMILY).unwrap().unwrap();
    let put = |issuer: Issuer| {
        let mut batch = Batch::new();
        batch.put_issuer(FAMILY, issuer);
        registry.commit(batch).unwrap();
    };
    put(Issuer { crl: b"new".to_vec(), ..ca.clone() });
    assert!(told.try_recv().is_err());
    put(Issuer { chain: vec![b"new".to_vec()], ..ca });
    assert_eq!(told.try_recv().unwrap().issuers, [FAMILY].into());
}

#[test]
fn a_grant_proves_one_lock() {
    let (registry, _dir) = registry();
    let leaves = [entry(1, true), entry(2, true), entry(3, false)]
        .map(|entry| Leaf::new(&[3; 32], Target::Lock(entry.key_hash), Effect::of(entry.allow)));
    let head = Tree::new(leaves).unwrap().head();
    for number in 1..=3_u8 {
        let given = Grant::decode(&grant(&registry, SUB, lock_id(number), NOW).unwrap()).unwrap();
        assert_eq!(
            (given.statement.as_slice(), given.index),
            (&b"cose"[..], u64::from(number - 1))
        );
        assert_eq!(given.leaf, leaves[usize::from(number - 1)]);
        head.verify(&given.leaf, given.index, &given.path).unwrap();
        let certificates =
            if number < 3 { vec![b"Sam".to_vec(), b"root".to_vec()] } else { vec![] };
        assert_eq!(given.access_chain, certificates);
    }
    let everywhere = Grant::decode(&grant(&registry, MASTER, lock_id(5), NOW).unwrap()).unwrap();
    assert_eq!(everywhere.leaf, Leaf::new(&[3; 32], Target::All, Effect::Allow));
    assert_eq!(everywhere.access_chain, [b"Mia".to_vec(), b"root".to_vec()]);
}

#[test]
fn a_bundle_is_pem() {
    let (registry, _dir) = registry();
    let (roots, crls) = family_bundle(&registry, FAMILY, NOW).unwrap();
    assert_eq!(pem::from_pem(pem::Label::Certificate, &roots).unwrap(), [b"root".to_vec()]);
    assert_eq!(pem::from_pem(pem::Label::Crl, &crls).unwrap(), [b"crl".to_vec()]);
}

#[test]
fn what_is_not_there_is_named() {
    let (registry, _dir) = registry();
    let nobody = Id::from_bytes([0; 16]);
    for (error, part) in [
        (rights(&registry, nobody, first(1), NOW).unwrap_err(), "Key"),
        (grant(&registry, nobody, lock_id(1), NOW).unwrap_err(), "Key"),
        (grant(&registry, SUB, nobody, NOW).unwrap_err(), "Lock"),
        (grant(&registry, SUB, lock_id(4), NOW).unwrap_err(), "right of Key"),
        (family_bundle(&registry, nobody, NOW).unwrap_err(), "family"),
    ] {
        assert_eq!(error.name(), ErrorName::NotFound);
        assert!(error.to_string().starts_with(&format!("there is no {part}")), "{error}");
    }
}
