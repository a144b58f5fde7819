//! Older formats are read and migrated; a newer one is refused.

use std::path::Path;

use keywright_proto::Role;

use super::{
    damage::copy,
    schema::{Migration, v1, v2, v3, v4},
    *,
};

/// The fixtures were written once by `freeze` and never change: they are what old stations have on disk.
#[test]
fn format_1_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v1"), &place.dir());
    let registry = place.open();
    check_everything_of_format_1(&registry).unwrap();
    check_rechained_log(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Format 2 added older statements, revocations, signed confirmations and digests.
#[test]
fn format_2_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v2"), &place.dir());
    let registry = place.open();
    check_everything_of_format_2(&registry).unwrap();
    check_rechained_log(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Format 3 added the times of removed rights, removed Locks, and self-signed certificates of CAs.
#[test]
fn format_3_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v3"), &place.dir());
    let registry = place.open();
    check_everything_of_format_4(&registry).unwrap();
    check_rechained_log(&registry);
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Format 2 did not store since when a right is removed.
#[test]
fn removed_rights_of_format_2_get_the_time_of_their_statement() {
    let place = TestDir::new();
    let entry = |lock: &LockEntry| v2::LockEntry {
        lock: *lock.lock.as_bytes(),
        key_hash: lock.key_hash,
        allow: lock.allow,
    };
    let mut listed = [denied(0..200), entries(200..500)].concat();
    listed.sort();
    put_as_before(&place, &schema::MIGRATIONS[..1], |changes| {
        let ids = [*id(1).as_bytes(), *id(0).as_bytes()].concat();
        let (version, scope) = (Some(7), v2::Scope::Listed(500));
        let (cose, salt_seed, allowed) = (vec![6; 400], [8; 32], 300);
        let issued = 1_700_000_000;
        let statement = v2::Statement { version, cose, salt_seed, scope, allowed, issued };
        changes.put([&[v2::STATEMENTS], &*ids].concat(), &statement)?;
        for chunk in listed.chunks(140) {
            let first = chunk[0].lock;
            let chunk: Vec<_> = chunk.iter().map(entry).collect();
            let place = [&[v2::STATEMENT_ENTRIES], &*ids, first.as_bytes()].concat();
            changes.put(place, &chunk)?;
        }
        Ok(())
    });
    let registry = place.open();
    let since = |number| registry.right_removed_since(id(1), id(0), id(number)).unwrap();
    for number in 0..200 {
        assert_eq!(since(number), Some(1_700_000_000), "{number}");
    }
    assert_eq!((since(200), since(499)), (None, None));
    registry.verify().unwrap();
}

/// Puts records into a new registry of an older format, and closes it.
fn put_as_before(
    place: &TestDir,
    older: &[Migration],
    put: impl FnOnce(&mut changes::Changes) -> Result<(), RegistryError>,
) {
    let registry = Registry::open_with(&place.dir(), older).unwrap();
    registry.0.store.commit(|_, changes| put(changes)).unwrap();
}

/// Since format 4 the log is chained over its exported lines.
#[test]
fn format_4_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v4"), &place.dir());
    let registry = place.open();
    check_everything_of_format_4(&registry).unwrap();
    let head = registry.audit_tail(1).unwrap()[0].hash();
    assert_eq!(
        hex::encode(head),
        HEAD,
        "an end of the log that was noted elsewhere still verifies"
    );
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Format 5 added further certificates of Keys and CAs.
#[test]
fn format_5_is_read() {
    let place = TestDir::new();
    copy(&fixture("registry-v5"), &place.dir());
    let registry = place.open();
    check_everything(&registry).unwrap();
    assert_eq!(registry.take_serialization_number().unwrap(), 65);
}

/// Format 4 had one role, issuing key and revocation for all families of a Key.
#[test]
fn memberships_of_format_4_get_their_own_role_issuing_key_and_revocation() {
    let place = TestDir::new();
    let (home, guest, other) = (id(10), id(11), id(12));
    put_as_before(&place, &schema::MIGRATIONS[..3], |changes| {
        let key = v4::OldKey {
            access_key: vec![1; 91],
            label: "k1".into(),
            name: "Bea".into(),
            family: *home.as_bytes(),
            role: Role::Backup,
            issuing_key: Some(b"issuing key".to_vec()),
            guid: None,
            serial: "7".into(),
            model: "Virtual Key".into(),
            last_seen: 5,
            revoked: true,
            puk_tried: true,
        };
        changes.put([&[v4::KEYS], &id(1).as_bytes()[..]].concat(), &key)?;
        for (family, role, issuer) in [
            (home, Role::Backup, Id::of_spki(b"issuing key")),
            (guest, Role::Sub, id(3)),
            (other, Role::Sub, id(3)),
        ] {
            let (certificate, issuer) = (vec![4; 700], *issuer.as_bytes());
            let own = v4::OldMembership { role, certificate, issuer, container: 7 };
            let ids = [*id(1).as_bytes(), *family.as_bytes()].concat();
            changes.put([&[v4::MEMBERSHIPS], &*ids].concat(), &own)?;
        }
        let chain = vec![vec![1; 600], vec![2; 600]];
        let (family, crl, to_revoke) = (*home.as_bytes(), vec![], vec![]);
        let issuer = v4::Issuer { family, chain, crl, to_revoke };
        changes.put([&[v4::ISSUERS], &id(3).as_bytes()[..]].concat(), &issuer)?;
        let Revocation { cose, salt_seed, first_seen, reason, .. } = revocation();
        let key = *id(1).as_bytes();
        let revoked = v4::Revocation { key, cose, salt_seed, first_seen, reason };
        changes.put([&[v4::REVOCATIONS], &guest.as_bytes()[..], &[9; 32]].concat(), &revoked)?;
        let statement = |version, scope| {
            let (cose, salt_seed) = (vec![6; 400], [8; 32]);
            v4::OldStatement { version, cose, salt_seed, scope, allowed: 2, issued: 3 }
        };
        for (family, statement) in [
            (home, statement(Some(1), v4::Scope::All)),
            (guest, statement(Some(2), v4::Scope::Listed(0))),
            (other, statement(None, v4::Scope::All)),
        ] {
            let ids = [*id(1).as_bytes(), *family.as_bytes()].concat();
            changes.put([&[v4::STATEMENTS], &*ids].concat(), &statement)?;
        }
        Ok(())
    });
    let registry = place.open();
    let key = registry.key(id(1)).unwrap().unwrap();
    assert_eq!((&*key.name, key.family, key.puk_tried, key.last_seen), ("Bea", home, true, 5));
    let own = |family| registry.membership(id(1), family).unwrap().unwrap();
    assert_eq!(own(home).issuing_key.as_deref(), Some(&b"issuing key"[..]));
    assert_eq!(own(guest).issuing_key, None);
    assert_eq!((own(home).role, own(guest).role), (Role::Backup, Role::Sub));
    assert_eq!([home, guest, other].map(|family| own(family).revoked), [false, true, false]);
    assert_eq!(registry.ca_certificates(home).unwrap().len(), 2);
    let said = |family| {
        let statement = registry.statement(id(1), family).unwrap().unwrap();
        (statement.everywhere, statement.listed)
    };
    assert_eq!(
        (said(home), said(guest), said(other)),
        ((Some(true), 0), (None, 0), (Some(false), 0))
    );
    registry.verify().unwrap();
}

/// The end of the log in the fixture of format 4, as any other program takes it from its lines.
const HEAD: &str = "85a0676edc45a0ef2a9231228992307bfa7fb0191ddbab895541545b7dca7248";

/// The log of an older format has one more event, which names the end of the old chain.
fn check_rechained_log(registry: &Registry) {
    let log = registry.audit_page(0, 10).unwrap();
    let [.., last] = &log[..] else { panic!("{log:?}") };
    assert_eq!((log.len(), &*last.event), (3, "log-rewritten"));
    assert_eq!((last.field("events"), last.field("broken")), (Some("2"), None));
    assert_eq!(last.field("head"), Some(OLD_HEAD));
}

/// The hash of the last record in the fixtures of formats 1 to 3, as those formats took it.
const OLD_HEAD: &str = "a423b6a81fd41628af639ea6b0d3704817b5e2d9f06a19ff7114fb566a144e39";

/// Format 1 did not store digests.
#[test]
fn statements_of_format_1_get_their_digests() {
    let place = TestDir::new();
    put_as_before(&place, &[], |changes| {
        let Statement { version, cose, salt_seed, allowed, issued, .. } = real_statement();
        let scope = v1::Scope::Listed(2);
        let statement = v1::Statement { version, cose, salt_seed, scope, allowed, issued };
        let place = [&[v1::STATEMENTS], &id(1).as_bytes()[..], id(0).as_bytes()].concat();
        changes.put(place, &statement)
    });
    let found = place.open().statement_by_digest(&real_digest()).unwrap().unwrap();
    assert_eq!((found.key, found.family, found.version), (id(1), id(0), Some(2)));
}

/// The fixture of a format, opened and left in that format.
fn frozen_registry(place: &TestDir, format: usize) -> Registry {
    copy(&fixture(&format!("registry-v{format}")), &place.dir());
    Registry::open_with(&place.dir(), &schema::MIGRATIONS[..format - 1]).unwrap()
}

/// The copies of records in each migration fit the fixture of its format.
#[test]
fn frozen_records_read_the_fixtures_of_their_format() {
    let place = TestDir::new();
    let registry = frozen_registry(&place, 1);
    let view = registry.view().unwrap();
    let statements: Vec<v1::Statement> = view.records(vec![v1::STATEMENTS]).unwrap();
    let found: Vec<_> = statements.iter().map(|said| (said.version, said.cose.len())).collect();
    assert_eq!(found, [(Some(1_700_000_000_000), 400)]);
    assert_eq!(statements[0].scope, v1::Scope::Listed(300));

    let place = TestDir::new();
    let registry = frozen_registry(&place, 2);
    let view = registry.view().unwrap();
    let statements: Vec<v2::Statement> = view.records(vec![v2::STATEMENTS]).unwrap();
    assert_eq!(statements[0].issued, 1_700_000_000);
    let chunks: Vec<Vec<v2::LockEntry>> = view.records(vec![v2::STATEMENT_ENTRIES]).unwrap();
    assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 300);
    let digests: Vec<v1::StatementRef> = view.records(vec![v1::STATEMENT_DIGESTS]).unwrap();
    assert!(digests.iter().any(|known| known.version == Some(2)));

    let place = TestDir::new();
    let registry = frozen_registry(&place, 3);
    let view = registry.view().unwrap();
    let events: Vec<v3::AuditRecord> = view.records(vec![v3::AUDIT]).unwrap();
    assert_eq!(events.iter().map(|event| event.time).collect::<Vec<_>>(), [5, 6]);
    let chunks: Vec<Vec<v2::RemovedRight>> = view.records(vec![v2::REMOVED_RIGHTS]).unwrap();
    assert_eq!(chunks.iter().flatten().count(), 3);

    let place = TestDir::new();
    let registry = frozen_registry(&place, 4);
    let view = registry.view().unwrap();
    let events: Vec<v3::AuditRecord> = view.records(vec![v3::AUDIT]).unwrap();
    let extent: Vec<v3::AuditExtent> = view.records(vec![v3::AUDIT_EXTENT]).unwrap();
    assert_eq!((events.len(), extent[0].first), (2, 0));
    let keys: Vec<v4::OldKey> = view.records(vec![v4::KEYS]).unwrap();
    assert_eq!((&*keys[0].label, keys[0].role, keys.len()), ("k1", Role::Sub, 1));
    let members: Vec<v4::OldMembership> = view.records(vec![v4::MEMBERSHIPS]).unwrap();
    assert_eq!((members[0].container, members[0].role), (0x5f_c105, Role::Sub));
    let issuers: Vec<v4::Issuer> = view.records(vec![v4::ISSUERS]).unwrap();
    assert_eq!(issuers[0].chain, vec![vec![1; 600]; 2]);
    let statements: Vec<v4::OldStatement> = view.records(vec![v4::STATEMENTS]).unwrap();
    assert!(statements.iter().any(|statement| statement.scope == v4::Scope::Listed(300)));
    let older: Vec<v4::OldStatement> = view.records(vec![v4::OLDER_STATEMENTS]).unwrap();
    assert_eq!(older.len(), 1);
    let revocations: Vec<v4::Revocation> = view.records(vec![v4::REVOCATIONS]).unwrap();
    assert_eq!(revocations[0].reason, "lost");
    drop(view);

    let place = TestDir::new();
    let registry = frozen_registry(&place, 5);
    let view = registry.view().unwrap();
    let keys: Vec<v4::Key> = view.records(vec![v4::KEYS]).unwrap();
    assert_eq!((&*keys[0].label, keys.len()), ("k1", 1));
    let members: Vec<v4::Membership> = view.records(vec![v4::MEMBERSHIPS]).unwrap();
    assert_eq!((members[0].role, members[0].revoked), (Role::Sub, false));
    let statements: Vec<v4::Statement> = view.records(vec![v4::STATEMENTS]).unwrap();
    assert!(statements.iter().any(|statement| statement.listed == 300));
}

/// A statement with one more field. bincode stores a struct in a struct like its fields.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct WiderStatement {
    old: v4::Statement,
    reason: String,
}

/// A migration to format 6 that adds a field to `Statement`, made by the recipe in `schema`.
fn widen_statements(
    view: &view::View<'_>,
    changes: &mut changes::Changes,
) -> Result<(), RegistryError> {
    for record in view.all(vec![v4::STATEMENTS]) {
        let (place, payload) = record?;
        let old: v4::Statement = codec::decode(&payload)?;
        changes.put(place.to_vec(), &WiderStatement { old, reason: "lost".into() })?;
    }
    Ok(())
}

/// No migration uses a current record, so that a later format can change all of them.
#[test]
fn registries_of_every_format_survive_a_new_field() {
    let migrations = [schema::MIGRATIONS, &[widen_statements as Migration]].concat();
    for format in 1..=schema::newest(schema::MIGRATIONS) {
        let place = TestDir::new();
        copy(&fixture(&format!("registry-v{format}")), &place.dir());
        let registry = Registry::open_with(&place.dir(), &migrations).unwrap();
        let view = registry.view().unwrap();
        let statements: Vec<WiderStatement> = view.records(vec![v4::STATEMENTS]).unwrap();
        assert!(!statements.is_empty(), "{format}");
        assert!(statements.iter().all(|statement| statement.reason == "lost"), "{format}");
        let narrow = view.records::<v4::Statement>(vec![v4::STATEMENTS]);
        assert!(matches!(narrow, Err(RegistryError::Damaged { .. })), "{format}");
        drop(view);
        registry.verify().unwrap();
    }
}

/// Makes the fixture of the current format. A new format gets a new name here and a test above.
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
    let fixture = fixture("registry-v5");
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
fn each_migration_runs_once_and_in_order() {
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
fn failed_migration_changes_nothing() {
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
fn newer_format_is_refused_and_left_unchanged() {
    let place = TestDir::new();
    let later = [STEPS, STEPS, &STEPS[..1]].concat();
    drop(Registry::open_with(&place.dir(), &later).unwrap());
    let refused = Registry::open(&place.dir()).err().unwrap();
    assert!(matches!(refused, RegistryError::NewerSchema { found: 6, known: 5, .. }));
    let text = refused.to_string();
    assert!(
        text.contains("has format 6 and this program knows formats up to 5: install"),
        "{text}"
    );
    Registry::open_with(&place.dir(), &later).unwrap().verify().unwrap();
}
