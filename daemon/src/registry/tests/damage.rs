//! Damage of every kind is detected, and the damaged files are kept.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::*;

/// Makes a registry with one record of every kind, and closes it.
fn filled(place: &TestDir) {
    let mut batch = Batch::new();
    put_everything(&mut batch);
    place.open().commit(batch).unwrap();
}

/// Whether a record was lost or altered and neither opening nor `verify` noticed.
fn lost_silently(dir: &Path) -> bool {
    let Ok(registry) = Registry::open(dir) else { return false };
    let read = catch_unwind(AssertUnwindSafe(|| check_everything(&registry)));
    match read {
        Ok(_) => false,
        // A record differs from what was put: `verify` has to detect that.
        Err(_) => registry.verify().is_ok(),
    }
}

/// Once in sled's log after the last snapshot and, after opening it again, once before a snapshot.
#[test]
fn flipped_bits_are_detected() {
    let original = TestDir::new();
    filled(&original);
    for when in ["since the snapshot", "before the snapshot"] {
        let db = fs::read(original.dir().join("db")).unwrap();
        let used: Vec<_> = (0..db.len()).filter(|at| db[*at] != 0).collect();
        for round in 0..30 {
            let place = TestDir::new();
            copy(&original.dir(), &place.dir());
            let at = used[round * used.len() / 30];
            let mut flipped = db.clone();
            flipped[at] ^= 1 << (round % 8);
            fs::write(place.dir().join("db"), flipped).unwrap();
            assert!(!lost_silently(&place.dir()), "bit {} of byte {at}, {when}", round % 8);
        }
        drop(original.open());
    }
}

#[test]
fn truncated_database_is_quarantined() {
    let original = TestDir::new();
    filled(&original);
    let length = fs::metadata(original.dir().join("db")).unwrap().len();
    for part in 0..10 {
        let place = TestDir::new();
        copy(&original.dir(), &place.dir());
        let db = fs::OpenOptions::new().write(true).open(place.dir().join("db")).unwrap();
        db.set_len(length * part / 10).unwrap();
        assert!(!lost_silently(&place.dir()), "{part} tenths");
    }
}

#[test]
fn database_older_than_its_mark_is_quarantined() {
    let place = TestDir::new();
    filled(&place);
    let older = fs::read(place.dir().join("db")).unwrap();
    place.open().commit(Batch::new()).unwrap();
    fs::write(place.dir().join("db"), older).unwrap();
    let error = Registry::open(&place.dir()).err().unwrap();
    assert!(matches!(error, RegistryError::Quarantined { .. }), "{error}");
}

#[test]
fn damaged_registry_is_kept_and_the_next_start_is_empty() {
    let place = TestDir::new();
    filled(&place);
    let garbage = vec![0xa5; 600_000];
    fs::write(place.dir().join("db"), &garbage).unwrap();
    let error = Registry::open(&place.dir()).err().unwrap();
    let RegistryError::Quarantined { moved_to, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains(&moved_to.display().to_string()));
    assert!(!error.to_string().contains('\n'));
    // sled blanks segments that it cannot read, but every file is still there.
    assert!(fs::read(moved_to.join("db")).unwrap().starts_with(&garbage[..100_000]));
    for name in ["conf", "mark", "ballast", "blobs"] {
        assert!(moved_to.join(name).exists(), "{name}");
    }
    assert!(moved_to.to_str().unwrap().contains("registry.damaged-1"));
    assert_eq!(place.open().families().unwrap(), []);
}

#[test]
fn missing_or_garbled_file_is_detected() {
    for name in ["db", "conf", "mark"] {
        for content in [None, Some(&b""[..]), Some(&b"garbage, and some more of it"[..])] {
            let place = TestDir::new();
            filled(&place);
            match content {
                None => fs::remove_file(place.dir().join(name)).unwrap(),
                Some(content) => fs::write(place.dir().join(name), content).unwrap(),
            }
            // sled can open a registry with some kinds of damaged `conf` and loses nothing.
            if name == "conf" && content.is_some() {
                assert!(!lost_silently(&place.dir()), "{content:?}");
                continue;
            }
            let error = Registry::open(&place.dir()).err();
            assert!(
                matches!(error, Some(RegistryError::Quarantined { .. })),
                "{name} {content:?}: {error:?}"
            );
        }
    }
}

#[test]
fn removed_or_moved_record_is_detected() {
    let place = TestDir::new();
    filled(&place);
    let tampered = |tamper: fn(&sled::Db)| {
        let other = TestDir::new();
        copy(&place.dir(), &other.dir());
        tamper(&engine::open_sled(&other.dir()).unwrap());
        Registry::open(&other.dir()).and_then(|registry| registry.verify())
    };
    assert!(tampered(|_| ()).is_ok());
    // Small tables are counted when the registry is opened, the others by `verify`.
    let gone = tampered(|db| drop(db.remove(Table::Families.of(id(0))).unwrap()));
    assert!(matches!(gone, Err(RegistryError::Quarantined { .. })));
    let gone = tampered(|db| drop(db.remove(Table::Locks.of(id(2))).unwrap()));
    assert!(matches!(gone, Err(RegistryError::Damaged { .. })));
    let moved = tampered(|db| {
        let key = db.remove(Table::Keys.of(id(1))).unwrap().unwrap();
        db.insert(Table::Keys.of(id(2)), key).unwrap();
    });
    assert!(matches!(moved, Err(RegistryError::Damaged { .. })));
    let event = tampered(|db| {
        let payload = codec::encode(&AuditRecord {
            time: 5,
            event: "nothing-happened".into(),
            fields: vec![],
            previous: [0; 32],
        });
        let key = Table::Audit.at(0);
        let (key, value) = pieces::pieces(&key, &payload.unwrap()).unwrap().remove(0);
        db.insert(key, value).unwrap();
    });
    assert!(matches!(event, Err(RegistryError::Damaged { what }) if what.contains("audit log")));
}

#[test]
fn directory_with_other_files_is_left_unchanged() {
    let place = TestDir::new();
    fs::create_dir(place.dir()).unwrap();
    fs::write(place.dir().join("letter.txt"), "Dear").unwrap();
    let error = Registry::open(&place.dir()).err().unwrap();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
    assert_eq!(fs::read(place.dir().join("letter.txt")).unwrap(), b"Dear");

    let place = TestDir::new();
    fs::write(place.dir(), "a file").unwrap();
    assert!(matches!(Registry::open(&place.dir()), Err(RegistryError::NotARegistry { .. })));
}

#[test]
fn interrupted_creation_is_restarted() {
    let place = TestDir::new();
    let new = place.0.path().join("registry.new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("db"), "half of").unwrap();
    place.open().verify().unwrap();
    assert!(!new.exists());
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
