//! Pages of lists, compared with a model.

use std::collections::BTreeMap;

use keywright_proto::Id;
use proptest::prelude::*;

use super::*;

/// All pages of a list, one after the other.
fn all_pages<T>(page: impl Fn(Option<Id>) -> Page<(Id, T)>, limit: usize) -> Vec<(Id, T)> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let page = page(after);
        assert!(page.items.len() <= limit);
        assert!(page.next.is_none() || page.next == page.items.last().map(|(id, _)| *id));
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            return items;
        }
    }
}

fn matches(filter: &Filter, id: Id, family: Id, name: &str) -> bool {
    filter.family.is_none_or(|wanted| wanted == family)
        && filter.query.as_ref().is_none_or(|query| {
            let query = query.to_lowercase();
            name.to_lowercase().contains(&query) || id.to_string().starts_with(&query)
        })
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["Gate", "gate 2", "HARBOUR", "Ärger", "ä", "12"]).prop_map(Into::into)
}

fn filters() -> impl Strategy<Value = Filter> {
    let queries = prop::sample::select(vec!["", "GATE", "ä", "Ä", "1", "b", "2", "nothing"]);
    (prop::option::of(0..4_u32), prop::option::of(queries)).prop_map(|(family, query)| Filter {
        family: family.map(|family| id(1_000 + family)),
        query: query.map(Into::into),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn pages_of_locks_and_keys_match_the_model(
        puts in prop::collection::vec((0..40_u32, 0..3_u32, names()), 1..80),
        queries in prop::collection::vec((filters(), 1..7_usize), 6),
        cursor in 0..60_u32,
    ) {
        let place = TestDir::new();
        let registry = place.open();
        let mut model = BTreeMap::new();
        let mut batch = Batch::new();
        for family in 0..3 {
            batch.put_family(id(1_000 + family), family_sample());
        }
        for (number, family, name) in puts {
            let family = id(1_000 + family);
            batch.put_lock(id(number), Lock { name: name.clone(), ..lock(number, family) });
            batch.put_key(id(number), Key { name: name.clone(), ..key(number, family) });
            batch.put_membership(id(number), family, membership(family));
            let (_, families) = model.entry(id(number)).or_insert((name.clone(), Vec::new()));
            families.push(family);
            model.entry(id(number)).and_modify(|(old, _)| *old = name);
        }
        registry.commit(batch).unwrap();
        for (filter, limit) in queries {
            let wanted: Vec<_> = model.iter()
                .filter(|(id, (name, families))| matches(&filter, **id, *families.last().unwrap(), name))
                .map(|(id, (name, _))| (*id, name.clone()))
                .collect();
            let locks = all_pages(|after| registry.locks_page(&filter, after, limit).unwrap(), limit);
            let locks: Vec<_> = locks.into_iter().map(|(id, lock)| (id, lock.name)).collect();
            prop_assert_eq!(&locks, &wanted);

            let wanted: Vec<_> = model.iter()
                .filter(|(id, (name, families))| {
                    families.iter().any(|family| matches(&filter, **id, *family, name))
                })
                .map(|(id, (name, _))| (*id, name.clone()))
                .collect();
            let keys = all_pages(|after| registry.keys_page(&filter, after, limit).unwrap(), limit);
            let keys: Vec<_> = keys.into_iter().map(|(id, key)| (id, key.name)).collect();
            prop_assert_eq!(&keys, &wanted);

            // Any id is a cursor, known or not.
            let after = id(cursor);
            let rest = registry.keys_page(&filter, Some(after), 1_000).unwrap().items;
            prop_assert_eq!(rest.len(), wanted.iter().filter(|(id, _)| *id > after).count());
        }
        registry.verify().unwrap();
    }

    #[test]
    fn pages_of_entries_match_the_entries(
        count in prop::sample::select(vec![0_u32, 1, 139, 140, 141, 280, 1_000]),
        limit in prop::sample::select(vec![7_usize, 100, 140, 2_000]),
        cursor in 0..1_100_u32,
    ) {
        let place = TestDir::new();
        let registry = place.open();
        let all = entries(0..count);
        let mut shuffled = all.clone();
        shuffled.reverse();
        let mut batch = Batch::new();
        // Neighbours on both sides must not appear.
        for (key, family) in [(1, 0), (1, 2), (2, 0), (0, 0)] {
            batch.put_statement(id(key), id(family), statement(500), entries(2_000..2_500));
        }
        batch.put_statement(id(1), id(0), statement(count), shuffled);
        registry.commit(batch).unwrap();
        prop_assert_eq!(&registry.statement_entries(id(1), id(0)).unwrap(), &all);
        let page = |after| registry.statement_entries_page(id(1), id(0), after, limit).unwrap();
        let paged: Vec<_> = all_pages(page, limit).into_iter().map(|(_, entry)| entry).collect();
        prop_assert_eq!(&paged, &all);
        let one = registry.statement_entry(id(1), id(0), id(cursor)).unwrap();
        prop_assert_eq!(one, all.iter().find(|entry| entry.lock == id(cursor)).copied());
        let rest = registry.statement_entries_page(id(1), id(0), Some(id(cursor)), 5_000).unwrap();
        prop_assert_eq!(rest.items.len(), all.iter().filter(|entry| entry.lock > id(cursor)).count());
    }
}

fn family_sample() -> Family {
    samples::family()
}

#[test]
fn known_keys_are_sorted_by_last_seen() {
    let place = TestDir::new();
    let registry = place.open();
    let mut batch = Batch::new();
    for (number, seen) in [(1, 30), (2, 10), (3, 20)] {
        batch.put_key(id(number), Key { last_seen: seen, ..key(number, id(0)) });
    }
    batch.put_key(id(2), Key { last_seen: 40, ..key(2, id(0)) });
    registry.commit(batch).unwrap();
    let order: Vec<_> = registry.known_keys(2).unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(order, [id(2), id(1)]);
}
