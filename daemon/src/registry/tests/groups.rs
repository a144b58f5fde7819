//! Groups of Locks.

use super::{super::groups::remove_from_groups, *};

fn put(registry: &Registry, family: u32, name: &str, locks: std::ops::Range<u32>) {
    let mut batch = Batch::new();
    batch.put_group(id(family), name.into(), locks.map(id).collect());
    registry.commit(batch).unwrap();
}

fn locks(registry: &Registry, family: u32, name: &str) -> Option<Vec<Id>> {
    registry.group_locks(id(family), name).unwrap()
}

fn sorted(locks: impl Iterator<Item = u32>) -> Option<Vec<Id>> {
    let mut ids: Vec<Id> = locks.map(id).collect();
    ids.sort_unstable();
    Some(ids)
}

fn names(registry: &Registry, filter: Filter) -> Vec<(String, u32)> {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = registry.groups_page(&filter, after, 1).unwrap();
        names.extend(page.items.into_iter().map(|(_, group)| (group.name, group.locks)));
        after = page.next;
        if after.is_none() {
            names.sort();
            return names;
        }
    }
}

#[test]
fn groups_of_any_size_are_stored_in_small_values() {
    let place = TestDir::new();
    let registry = place.open();
    for count in [0, 1, 400, 401, 10_000, 3] {
        put(&registry, 0, "Hall", 0..count);
        assert_eq!(locks(&registry, 0, "Hall"), sorted(0..count), "{count}");
        let stored = registry.0.store.stored_sizes();
        assert!(stored.iter().all(|size| *size <= 8 * 1024), "{count}");
    }
    drop(registry);
    let registry = place.open();
    registry.verify().unwrap();
    assert_eq!(locks(&registry, 0, "Hall"), sorted(0..3));
    assert_eq!(locks(&registry, 0, "hall"), None, "names are case-sensitive");
    assert_eq!(locks(&registry, 1, "Hall"), None, "another family has another group of that name");
    let mut batch = Batch::new();
    batch.remove_group(id(0), "Hall".into());
    registry.commit(batch).unwrap();
    assert_eq!(locks(&registry, 0, "Hall"), None);
    let left = registry.view().unwrap().all(Table::GroupLocks.key()).count();
    assert_eq!(left, 0);
    registry.verify().unwrap();
}

#[test]
fn groups_are_filtered_by_family_and_name() {
    let place = TestDir::new();
    let registry = place.open();
    for (family, name) in [(0, "North hall"), (0, "Barn"), (1, "Barn"), (1, "Bärn")] {
        put(&registry, family, name, 0..family + 1);
    }
    let filter = |family: Option<u32>, query: Option<&str>| Filter {
        family: family.map(id),
        query: query.map(str::to_owned),
    };
    let found = |found: &[(&str, u32)]| {
        found.iter().map(|(name, locks)| ((*name).to_owned(), *locks)).collect::<Vec<_>>()
    };
    let all = [("Barn", 1), ("Barn", 2), ("Bärn", 2), ("North hall", 1)];
    assert_eq!(names(&registry, filter(None, None)), found(&all));
    let zero = [("Barn", 1), ("North hall", 1)];
    assert_eq!(names(&registry, filter(Some(0), None)), found(&zero));
    assert_eq!(names(&registry, filter(None, Some("HALL"))), found(&all[3..]));
    assert_eq!(names(&registry, filter(Some(7), None)), []);
}

/// Takes Locks out of all groups, in one commit.
fn leave(registry: &Registry, gone: &[Id]) {
    let left = registry.0.store.commit(|view, changes| {
        gone.iter().try_for_each(|lock| remove_from_groups(view, changes, *lock))
    });
    left.unwrap();
}

#[test]
fn restored_lock_does_not_return_to_its_groups() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    batch.put_family(id(0), family());
    for number in 0..3 {
        batch.put_lock(id(number), lock(number, id(0)));
    }
    registry.commit(batch).unwrap();
    put(&registry, 0, "Hall", 0..3);
    for removed in [true, false] {
        let mut batch = Batch::new();
        batch.set_lock_removed(id(0), id(1), removed);
        registry.commit(batch).unwrap();
        assert_eq!(locks(&registry, 0, "Hall"), sorted([0, 2].into_iter()));
    }
    registry.verify().unwrap();
}

#[test]
fn removed_lock_leaves_its_groups() {
    let place = TestDir::new();
    let registry = place.open();
    put(&registry, 0, "All", 0..1_000);
    put(&registry, 0, "Odd", 7..8);
    put(&registry, 0, "Other", 8..9);
    // The first Lock of a chunk, the last one, one in between, one that is in no group.
    let all = sorted(0..1_000).unwrap();
    let gone = [all[0], all[400], all[799], all[500], id(7), id(5_000)];
    leave(&registry, &gone);
    let kept: Vec<Id> = all.into_iter().filter(|lock| !gone.contains(lock)).collect();
    assert_eq!(locks(&registry, 0, "All"), Some(kept));
    assert_eq!(locks(&registry, 0, "Odd"), Some(vec![]));
    assert_eq!(locks(&registry, 0, "Other"), sorted(8..9));
    registry.verify().unwrap();
    // A group without Locks has no chunks left.
    leave(&registry, &(0..1_000).map(id).collect::<Vec<_>>());
    assert_eq!(locks(&registry, 0, "All"), Some(vec![]));
    let left = registry.view().unwrap().all(Table::GroupLocks.key()).count();
    assert_eq!(left, 0);
}
