//! The audit log: its chain, its size limit, and its migration from older formats.

use keywright_proto::audit::{NOTHING, TRIMMED};

use super::{
    super::audit_log::{NewEvent, append_within},
    *,
};

/// Commits this many events, one a commit, to a log with these limits.
fn log(registry: &Registry, events: u64, full: u64, dropped: u64) {
    for number in 0..events {
        let fields = vec![("lock".into(), "x".repeat(32))];
        let event = NewEvent { time: number, event: "lock-added".into(), fields };
        let store = &registry.0.store;
        store
            .commit(|view, changes| {
                append_within(view, changes, vec![event], full, dropped).map(drop)
            })
            .unwrap();
    }
}

/// Checks the chain from the oldest event to the newest, and the recorded size of the log.
pub fn check_chain(registry: &Registry) -> Result<(), RegistryError> {
    let events = registry.audit_page(0, usize::MAX)?;
    let view = registry.view()?;
    let extent: AuditExtent = view.record(&Table::AuditExtent.key())?.unwrap_or_default();
    let mut previous = (extent.first == 0).then_some(NOTHING);
    for (event, position) in events.iter().zip(extent.first..) {
        if event.position != position || previous.is_some_and(|hash| hash != event.previous) {
            return Err(RegistryError::damaged(format!("the audit log breaks at {position}")));
        }
        previous = Some(event.hash());
    }
    let sizes = view.all(Table::Audit.key()).map(|record| Ok(record?.1.len() as u64));
    if sizes.sum::<Result<u64, RegistryError>>()? == extent.bytes {
        Ok(())
    } else {
        Err(RegistryError::damaged("the audit log is not as long as it is counted"))
    }
}

#[test]
fn each_event_has_the_hash_of_the_previous_one() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    batch.audit(1, "key-made", vec![("b".into(), "2".into()), ("a".into(), "1".into())]);
    batch.audit(1, "lock-added", vec![]);
    registry.commit(batch).unwrap();
    let mut batch = Batch::new();
    batch.audit(2, "key-renamed", vec![]);
    registry.commit(batch).unwrap();
    let log = registry.audit_page(0, 10).unwrap();
    let mut previous = NOTHING;
    for (event, position) in log.iter().zip(0..) {
        assert_eq!((event.position, event.previous), (position, previous));
        previous = event.hash();
    }
    assert_eq!(log.len(), 3);
    assert_eq!(registry.audit_page(1, 1).unwrap(), log[1..2]);
    registry.verify().unwrap();
}

#[test]
fn audit_watcher_gets_only_committed_events() {
    let place = TestDir::new();
    let registry = place.open();
    let events = Arc::new(Mutex::new(Vec::new()));
    let watched = Arc::clone(&events);
    registry.watch_audit_events(move |events| watched.lock().unwrap().extend_from_slice(events));
    registry.commit(Batch::new()).unwrap();
    let mut refused = Batch::new();
    refused.audit(1, "key-made", vec![]);
    refused.put_issuer(id(0), Issuer { crl: vec![0; codec::LIMIT], ..issuer(id(0)) });
    registry.commit(refused).unwrap_err();
    assert_eq!(*events.lock().unwrap(), []);
    let mut batch = Batch::new();
    batch.audit(1, "key-made", vec![]).audit(1, "lock-added", vec![]);
    registry.commit(batch).unwrap();
    assert_eq!(*events.lock().unwrap(), registry.audit_page(0, 10).unwrap());
}

#[test]
fn full_log_removes_its_oldest_events_and_says_so() {
    let place = TestDir::new();
    let registry = place.open();
    log(&registry, 500, 4_000, 1_000);
    registry.verify().unwrap();
    let kept = registry.audit_page(0, 1_000).unwrap();
    let trims: Vec<_> = kept.iter().filter(|event| event.event == TRIMMED).collect();
    let newest = trims.last().unwrap();
    assert_eq!(newest.field("first"), Some(&*kept[0].position.to_string()));
    assert!(kept[0].position > 300, "{}", kept[0].position);
    let bytes: usize = registry.0.store.stored_sizes().into_iter().sum();
    assert!(bytes < 8_000, "{bytes}");
    for pair in kept.windows(2) {
        assert_eq!(pair[1].previous, pair[0].hash());
    }
    // After reopening, the chain continues.
    drop(registry);
    let registry = place.open();
    log(&registry, 1, 4_000, 1_000);
    let last = &registry.audit_tail(1).unwrap()[0];
    assert_eq!(last.position, kept[kept.len() - 1].position + 1);
    registry.verify().unwrap();
}

/// The old log has one record that does not have the hash of the one before.
#[test]
fn migration_names_a_break_in_an_older_log() {
    let place = TestDir::new();
    let registry = Registry::open_with(&place.dir(), &[]).unwrap();
    let old = registry.0.store.commit(|_, changes| {
        for position in 0..3 {
            let (time, event) = (position, "key-made".into());
            let record = AuditRecord { time, event, fields: vec![], previous: [0; 32] };
            changes.put(Table::Audit.at(position), &record)?;
        }
        Ok(())
    });
    old.unwrap();
    drop(registry);
    let registry = place.open();
    registry.verify().unwrap();
    let last = &registry.audit_tail(1).unwrap()[0];
    assert_eq!((last.position, last.field("broken")), (3, Some("1")));
}

/// The size on disk of an event of the usual kind.
#[test]
fn event_takes_less_than_two_hundred_bytes() {
    let place = TestDir::new();
    let registry = place.open();
    let before: usize = registry.0.store.stored_sizes().into_iter().sum();
    for _ in 0..100 {
        let mut batch = Batch::new();
        let field = |name: &str| (name.to_owned(), "0123456789abcdef0123456789abcdef".to_owned());
        batch.audit(1_764_105_600, "rights-changed", vec![field("family"), field("key")]);
        registry.commit(batch).unwrap();
    }
    let after: usize = registry.0.store.stored_sizes().into_iter().sum();
    let each = (after - before) / 100;
    assert!((100..200).contains(&each), "{each}");
}
