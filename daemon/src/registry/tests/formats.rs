//! Formats of other versions: the frozen first one, steps to a newer one, one that is too new.

use std::path::Path;

use super::{damage::copy, schema::Migration, *};

/// Written once by `freeze`, never again: whoever has format 1 on disk has these bytes.
#[test]
fn the_first_format_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v1"), &place.dir());
    let registry = place.open();
    check_everything_of_format_1(&registry).unwrap();
    is_rewritten(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// The same for format 2: older statements, revocations, what Locks signed, digests.
#[test]
fn the_second_format_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v2"), &place.dir());
    let registry = place.open();
    check_everything_of_format_2(&registry).unwrap();
    is_rewritten(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// The same for format 3: when rights were removed, Locks that were, roots of CAs.
#[test]
fn the_third_format_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v3"), &place.dir());
    let registry = place.open();
    check_everything(&registry).unwrap();
    is_rewritten(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Rights that a statement of format 2 denies have its time after the step to format 3.
#[test]
fn removed_rights_of_the_second_format_get_their_time() {
    let place = TestDir::new();
    let registry = Registry::open_with(&place.dir(), &schema::MIGRATIONS[..1]).unwrap();
    let mut batch = Batch::new();
    batch.put_statement(id(1), id(0), statement(9), [denied(0..5), entries(5..9)].concat());
    registry.commit(batch).unwrap();
    // As format 2 has it.
    let without = |view: &view::View<'_>, changes: &mut changes::Changes| {
        changes.remove_all(view, Table::RemovedRights.key())
    };
    registry.0.store.commit(without).unwrap();
    drop(registry);
    let registry = place.open();
    let since = |number| registry.right_removed_since(id(1), id(0), id(number)).unwrap();
    assert_eq!((since(4), since(5)), (Some(1_700_000_000), None));
    registry.verify().unwrap();
}

/// The same for format 4: the log is chained over its lines.
#[test]
fn the_fourth_format_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v4"), &place.dir());
    let registry = place.open();
    check_everything(&registry).unwrap();
    let head = registry.audit_tail(1).unwrap()[0].hash();
    assert_eq!(hex::encode(head), HEAD, "whoever noted the end of the log finds it again");
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// The end of the log in the fixture of format 4, as any other program takes it from its lines.
const HEAD: &str = "85a0676edc45a0ef2a9231228992307bfa7fb0191ddbab895541545b7dca7248";

/// The log of an older format goes on, and says what its end was.
fn is_rewritten(registry: &Registry) {
    let log = registry.audit_page(0, 10).unwrap();
    let [.., last] = &log[..] else { panic!("{log:?}") };
    assert_eq!((log.len(), &*last.event), (3, "log-rewritten"));
    assert_eq!((last.field("events"), last.field("broken")), (Some("2"), None));
    assert_eq!(last.field("head"), Some(OLD_HEAD));
}

/// The hash of the last record in the fixtures of formats 1 to 3, as those formats took it.
const OLD_HEAD: &str = "a423b6a81fd41628af639ea6b0d3704817b5e2d9f06a19ff7114fb566a144e39";

/// A statement of format 1 is found by its digest after the step to format 2.
#[test]
fn statements_of_the_first_format_get_their_digests() {
    let place = TestDir::new();
    let registry = Registry::open_with(&place.dir(), &[]).unwrap();
    let mut batch = Batch::new();
    batch.put_statement(id(1), id(0), real_statement(), entries(0..2));
    registry.commit(batch).unwrap();
    // As format 1 has it.
    registry
        .0
        .store
        .commit(|view, changes| changes.remove_all(view, Table::Digests.key()))
        .unwrap();
    assert_eq!(registry.statement_by_digest(&real_digest()).unwrap(), None);
    drop(registry);
    let found = place.open().statement_by_digest(&real_digest()).unwrap().unwrap();
    assert_eq!((found.key, found.family, found.version), (id(1), id(0), Some(2)));
}

/// Makes the fixture of the present format. For a new format: a new name, and a test of its own above.
#[test]
#[ignore = "run once for each format"]
fn freeze() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    put_everything(&mut batch);
    registry.commit(batch).unwrap();
    registry.take_serialization_number().unwrap();
    drop(registry);
    let fixture = fixture("registry-v4");
    assert!(!fixture.exists(), "a fixture is frozen");
    copy(&place.dir(), &fixture);
    // Zeros only, and put back when a registry is opened.
    std::fs::remove_file(fixture.join("ballast")).unwrap();
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

const STEPS: &[Migration] = &[
    |view, changes| {
        let mut family: Family = view.record(&Table::Families.of(id(0)))?.unwrap();
        family.locks += 1;
        changes.put(Table::Families.of(id(0)), &family)
    },
    |view, changes| {
        let mut family: Family = view.record(&Table::Families.of(id(0)))?.unwrap();
        family.locks *= 10;
        changes.put(Table::Families.of(id(0)), &family)
    },
];

fn locks(registry: &Registry) -> u32 {
    registry.family(id(0)).unwrap().unwrap().locks
}

#[test]
fn each_step_is_taken_once_and_in_order() {
    for known in [&STEPS[..1], STEPS] {
        let place = TestDir::new();
        let registry = Registry::open_with(&place.dir(), &[]).unwrap();
        let mut batch = Batch::new();
        batch.put_family(id(0), family());
        registry.commit(batch).unwrap();
        drop(registry);
        locks(&Registry::open_with(&place.dir(), known).unwrap());
        for _ in 0..2 {
            let registry = Registry::open_with(&place.dir(), STEPS).unwrap();
            assert_eq!(locks(&registry), 10);
            registry.verify().unwrap();
        }
    }
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let place = TestDir::new();
    drop(Registry::open_with(&place.dir(), &[]).unwrap());
    let failing: Migration = |_, changes| {
        changes.put(Table::Families.of(id(0)), &family())?;
        Err(RegistryError::Unstorable { what: "a test".into() })
    };
    let failed = Registry::open_with(&place.dir(), &[failing]);
    assert!(matches!(failed, Err(RegistryError::Unstorable { .. })));
    assert_eq!(place.open().families().unwrap(), []);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let place = TestDir::new();
    let later = [STEPS, STEPS].concat();
    drop(Registry::open_with(&place.dir(), &later).unwrap());
    let refused = Registry::open(&place.dir()).err().unwrap();
    assert!(matches!(refused, RegistryError::NewerSchema { found: 5, known: 4, .. }));
    let text = refused.to_string();
    assert!(
        text.contains("has format 5 and this program knows formats up to 4: install"),
        "{text}"
    );
    Registry::open_with(&place.dir(), &later).unwrap().verify().unwrap();
}
