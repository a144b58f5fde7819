//! Tests of the registry as a whole.

mod audit_log;
mod damage;
mod formats;
mod groups;
mod kill;
mod lists;
mod samples;

use std::path::PathBuf;

use keywright_proto::Id;

use super::{records::*, *};
use layout::Table;
use samples::*;
use tempfile::TempDir;

/// A directory for a registry, gone at the end of the test.
struct TestDir(TempDir);

impl TestDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("registry")
    }

    fn open(&self) -> Registry {
        Registry::open(&self.dir()).unwrap()
    }
}

impl Registry {
    /// Reads and counts every record, and checks the chain of the audit log.
    fn verify(&self) -> Result<(), RegistryError> {
        let mut tables = Table::Numbers as u8..Table::Pieces as u8;
        tables.try_for_each(|table| self.0.store.verify_table(table))?;
        audit_log::check_chain(self)
    }
}

/// One record of every kind, as `check_everything` reads them.
fn put_everything(batch: &mut Batch) {
    batch
        .put_family(id(0), family())
        .put_issuer(id(0), issuer(id(0)))
        .put_key(id(1), key(1, id(0)))
        .put_membership(id(1), id(0), membership(id(0)))
        .put_ca_certificate(id(0), vec![8; 500])
        .put_access_certificate(id(1), id(0), vec![9; 500])
        .put_lock(id(2), lock(2, id(0)))
        .put_statement(id(1), id(0), statement(300), entries(0..300))
        .put_confirmation(id(1), id(2), Confirmation { version: Some(3), allow: true, time: 4 })
        .put_older_statements(id(1), id(0), vec![(real_statement(), entries(0..2))])
        .put_revocation(id(0), revocation())
        .put_signed_confirmation(
            id(1),
            id(2),
            SignedConfirmation { cose: vec![3; 250], newest_version: 9 },
        )
        .put_root(id(0), id(3), vec![7; 500])
        .put_lock(id(4), lock(4, id(0)))
        .put_lock_removal(id(0), removal(4))
        .set_lock_removed(id(0), id(4), true)
        .put_statement(id(5), id(0), statement(3), denied(0..3))
        .put_intent(intent(7))
        .put_intent_entries(7, entries(0..300))
        .put_leftover([9; 16], leftover())
        .audit(5, "key-made", vec![("name".into(), "x".into()), ("id".into(), "y".into())])
        .audit(6, "lock-added", vec![]);
}

fn check_everything(registry: &Registry) -> Result<(), RegistryError> {
    let mut cas = registry.ca_certificates(id(0))?;
    cas.sort();
    assert_eq!(cas, [vec![1; 600], vec![8; 500]]);
    assert_eq!(registry.access_certificates(id(1), id(0))?, [vec![4; 700], vec![9; 500]]);
    assert_eq!(registry.keys_with_several_certificates(id(0))?, [id(1)].into());
    check_everything_of_format_4(registry)
}

fn check_everything_of_format_4(registry: &Registry) -> Result<(), RegistryError> {
    assert_eq!(registry.members(id(0))?, [(id(1), membership(id(0)))]);
    assert!(registry.ca_certificates(id(0))?.contains(&vec![1; 600]));
    assert_eq!(registry.roots(id(0))?, [(id(3), vec![7; 500])]);
    assert_eq!(registry.lock_removals(id(0))?, [removal(4)]);
    assert_eq!(registry.removals_of_lock(id(0), id(4))?, [removal(4)]);
    assert_eq!(registry.removals_of_lock(id(0), id(2))?, []);
    assert_eq!(registry.removed_locks(id(0))?, [(id(4), lock(4, id(0)))]);
    assert_eq!(registry.removed_lock(id(0), id(4))?, Some(lock(4, id(0))));
    assert_eq!(registry.removed_locks(id(1))?, []);
    assert_eq!(registry.lock(id(4))?, None);
    assert_eq!(registry.lock_entry(id(0), id(4))?, None);
    assert_eq!(registry.right_removed_since(id(5), id(0), id(1))?, Some(1_700_000_000));
    assert_eq!(registry.right_removed_since(id(5), id(0), id(9))?, None);
    check_everything_of_format_2(registry)
}

fn check_everything_of_format_2(registry: &Registry) -> Result<(), RegistryError> {
    assert_eq!(registry.older_statements(id(1), id(0))?, [(real_statement(), entries(0..2))]);
    assert!(registry.has_older_statements(id(1), id(0))?);
    assert!(!registry.has_older_statements(id(2), id(0))?);
    assert_eq!(registry.revocations(id(0))?, [revocation()]);
    let word = SignedConfirmation { cose: vec![3; 250], newest_version: 9 };
    assert_eq!(registry.signed_confirmation(id(1), id(2))?, Some(word.clone()));
    assert_eq!(registry.signed_confirmations(id(1))?, [(id(2), word)]);
    let found = registry.statement_by_digest(&real_digest())?;
    assert_eq!(found, Some(StatementRef { key: id(1), family: id(0), version: Some(2) }));
    check_everything_of_format_1(registry)
}

fn check_everything_of_format_1(registry: &Registry) -> Result<(), RegistryError> {
    assert_eq!(registry.family(id(0))?, Some(family()));
    assert_eq!(registry.families()?, [(id(0), family())]);
    assert_eq!(registry.issuer(id(0))?, Some(issuer(id(0))));
    assert_eq!(registry.issuers_of(id(0))?, [(id(0), issuer(id(0)))]);
    assert_eq!(registry.key(id(1))?, Some(key(1, id(0))));
    assert_eq!(registry.known_keys(10)?, [(id(1), key(1, id(0)))]);
    assert_eq!(registry.memberships(id(1))?, [(id(0), membership(id(0)))]);
    assert_eq!(registry.membership(id(1), id(0))?, Some(membership(id(0))));
    assert_eq!(registry.membership(id(1), id(2))?, None);
    assert_eq!(registry.lock(id(2))?, Some(lock(2, id(0))));
    assert_eq!(registry.lock_entries(id(0))?.len(), 1);
    assert_eq!(registry.statement(id(1), id(0))?, Some(statement(300)));
    assert_eq!(registry.statement_entries(id(1), id(0))?, entries(0..300));
    let confirmed = Confirmation { version: Some(3), allow: true, time: 4 };
    assert_eq!(registry.confirmation(id(1), id(2))?, Some(confirmed));
    assert_eq!(registry.intents()?, [intent(7)]);
    assert_eq!(registry.intent(7)?, Some(intent(7)));
    assert_eq!(registry.intent_entries(7)?, entries(0..300));
    assert_eq!(registry.leftover([9; 16])?, Some(leftover()));
    let log = registry.audit_page(0, 10)?;
    let words: Vec<_> = log.iter().map(|event| &*event.event).collect();
    assert_eq!(words[..2], ["key-made", "lock-added"]);
    assert_eq!(log[0].fields[0].0, "id", "fields are sorted");
    assert_eq!(registry.audit_tail(1)?, log[log.len() - 1..]);
    registry.verify()
}

#[test]
fn records_survive_reopening() {
    let place = TestDir::new();
    let mut batch = Batch::new();
    put_everything(&mut batch);
    place.open().commit(batch).unwrap();
    check_everything(&place.open()).unwrap();
}

#[test]
fn replaced_records_leave_nothing_behind() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    put_everything(&mut batch);
    registry.commit(batch).unwrap();
    let mut batch = Batch::new();
    let seen_later = Key { last_seen: 2_000_000_000, ..key(1, id(0)) };
    batch
        .put_family(id(9), family())
        .put_key(id(1), seen_later.clone())
        .put_lock(id(2), lock(2, id(9)))
        .put_statement(id(1), id(0), statement(2), entries(0..2))
        .remove_intent(7)
        .remove_leftover([9; 16]);
    registry.commit(batch).unwrap();
    assert_eq!(registry.known_keys(10).unwrap(), [(id(1), seen_later)]);
    assert_eq!(registry.lock_entry(id(0), id(2)).unwrap(), None);
    assert!(registry.lock_entry(id(9), id(2)).unwrap().is_some());
    assert_eq!(registry.statement_entries(id(1), id(0)).unwrap(), entries(0..2));
    assert_eq!(registry.intents().unwrap(), []);
    assert_eq!(registry.intent_entries(7).unwrap(), []);
    assert_eq!(registry.leftover([9; 16]).unwrap(), None);
    registry.verify().unwrap();
}

/// A right that stays denied keeps the time of the first denial; one that was allowed in between gets a new time.
#[test]
fn removed_right_keeps_the_time_of_its_first_denial() {
    let place = TestDir::new();
    let registry = place.open();
    let state = |issued: u64, allowed: std::ops::Range<u32>, denied: std::ops::Range<u32>| {
        let mut entries = [entries(allowed), self::denied(denied)].concat();
        entries.sort();
        let mut batch = Batch::new();
        let statement = Statement { issued, ..statement(entries.len() as u32) };
        batch.put_statement(id(1), id(0), statement, entries);
        registry.commit(batch).unwrap();
    };
    let since = |number| registry.right_removed_since(id(1), id(0), id(number)).unwrap();
    state(10, 0..400, 0..0);
    assert_eq!(since(7), None);
    state(20, 0..300, 300..400);
    state(30, 0..200, 200..400);
    assert_eq!(
        (since(399), since(300), since(299), since(199)),
        (Some(20), Some(20), Some(30), None)
    );
    state(40, 150..400, 0..100);
    assert_eq!((since(350), since(99), since(120)), (None, Some(40), None));
    state(50, 0..0, 0..400);
    assert_eq!((since(350), since(99)), (Some(50), Some(40)));
    registry.verify().unwrap();
}

#[test]
fn removed_lock_is_off_the_lists_until_restored() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    put_everything(&mut batch);
    registry.commit(batch).unwrap();
    let set = |removed| {
        let mut batch = Batch::new();
        batch.set_lock_removed(id(0), id(2), removed).set_lock_removed(id(0), id(77), removed);
        registry.commit(batch).unwrap();
        registry.lock_entries(id(0)).unwrap().len()
    };
    for _ in 0..2 {
        assert_eq!(set(true), 0);
        assert_eq!(registry.removed_lock(id(0), id(2)).unwrap(), Some(lock(2, id(0))));
    }
    for _ in 0..2 {
        assert_eq!(set(false), 1);
        assert_eq!(registry.lock(id(2)).unwrap(), Some(lock(2, id(0))));
        assert_eq!(registry.removed_lock(id(0), id(2)).unwrap(), None);
    }
    // The first removal by a signer stays.
    let mut batch = Batch::new();
    batch.put_lock_removal(id(0), LockRemoval { first_seen: 9, ..removal(4) });
    registry.commit(batch).unwrap();
    assert_eq!(registry.lock_removals(id(0)).unwrap(), [removal(4)]);
    registry.verify().unwrap();
}

#[test]
fn large_record_is_stored_in_small_pieces() {
    let place = TestDir::new();
    let registry = place.open();
    for size in [0, 7_000, 7_163, 7_164, 50_000, 1_000_000, 10] {
        let mut issuer = issuer(id(0));
        issuer.crl = (0..size).map(|byte| byte as u8).collect();
        let mut batch = Batch::new();
        put_everything(&mut batch);
        batch.put_issuer(id(3), issuer.clone());
        registry.commit(batch).unwrap();
        assert_eq!(registry.issuer(id(3)).unwrap(), Some(issuer));
        let stored = registry.0.store.stored_sizes();
        assert!(stored.iter().all(|size| *size <= 8 * 1024), "{size}");
    }
    let pieces = registry.view().unwrap().all(Table::Pieces.key()).count();
    assert_eq!(pieces, 0, "the pieces of replaced records are gone");
    assert_eq!(std::fs::read_dir(place.dir().join("blobs")).unwrap().count(), 0);
}

#[test]
fn record_above_the_limit_fails_the_whole_batch() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    batch.put_family(id(0), family());
    batch.put_issuer(id(0), Issuer { crl: vec![0; codec::LIMIT], ..issuer(id(0)) });
    assert!(matches!(registry.commit(batch), Err(RegistryError::Unstorable { .. })));
    assert_eq!(registry.families().unwrap(), []);
    registry.verify().unwrap();
    registry.commit(Batch::new()).unwrap();
}

#[test]
fn commit_is_refused_on_a_full_disk() {
    let place = TestDir::new();
    let registry = place.open();
    let refused = registry.0.store.files().check_room(usize::MAX);
    assert!(matches!(refused, Err(RegistryError::DiskFull { .. })));
    registry.0.store.files().check_room(0).unwrap();
}

#[test]
fn registry_stops_after_a_failed_write() {
    let place = TestDir::new();
    let registry = place.open();
    // The sync fails: sled has the batch in memory, the disk may not have it.
    let blobs = place.dir().join("blobs");
    std::fs::remove_dir(&blobs).unwrap();
    std::fs::write(&blobs, "").unwrap();
    let mut batch = Batch::new();
    put_everything(&mut batch);
    assert!(matches!(registry.commit(batch), Err(RegistryError::Io { .. })));
    assert!(matches!(registry.families(), Err(RegistryError::Stopped { .. })));
    assert!(matches!(registry.commit(Batch::new()), Err(RegistryError::Stopped { .. })));
    drop(registry);
    std::fs::remove_file(&blobs).unwrap();
    place.open().verify().unwrap();
}

#[test]
fn missing_ballast_is_restored() {
    let place = TestDir::new();
    drop(place.open());
    std::fs::remove_file(place.dir().join("ballast")).unwrap();
    drop(place.open());
    assert_eq!(std::fs::metadata(place.dir().join("ballast")).unwrap().len(), 2 * 1024 * 1024);
}

#[test]
fn serialization_numbers_are_never_reused() {
    let place = TestDir::new();
    let mut given = Vec::new();
    for calls in [1, 64, 65, 3] {
        let registry = place.open();
        given.extend((0..calls).map(|_| registry.take_serialization_number().unwrap()));
    }
    assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
    assert_eq!(given[0], 1);
}

#[test]
fn second_open_is_refused_while_the_first_continues() {
    let place = TestDir::new();
    let registry = place.open();
    let refused = Registry::open(&place.dir()).err().unwrap();
    assert!(matches!(refused, RegistryError::InUse { .. }));
    let text = refused.to_string();
    assert!(text.contains("in use by another process: stop the other daemon"), "{text}");
    registry.commit(Batch::new()).unwrap();
}

#[test]
fn database_opened_by_another_program_is_in_use() {
    let place = TestDir::new();
    drop(place.open());
    let _db = engine::open_sled(&place.dir()).unwrap();
    assert!(matches!(Registry::open(&place.dir()), Err(RegistryError::InUse { .. })));
}

#[test]
fn statement_is_read_with_its_own_entries() {
    let place = TestDir::new();
    let registry = place.open();
    let put = |locks| {
        let mut batch = Batch::new();
        batch.put_statement(id(1), id(0), statement(locks), entries(0..locks));
        registry.commit(batch).unwrap();
    };
    put(1);
    std::thread::scope(|scope| {
        // The reader ends with an error if it sees the entries of another statement.
        let reader = scope.spawn(|| {
            (0..400).try_for_each(|_| registry.statement_entries(id(1), id(0)).map(drop))
        });
        while !reader.is_finished() {
            put(600);
            put(20);
        }
        reader.join().unwrap().unwrap();
    });
}
