//! Measures pages of long lists over D-Bus, and reads such lists for other measurements.

use std::time::{Duration, Instant};

use keywright_bus_tests::{Answers, Plugged, Station, api::Options};
use zbus::{ObjectPath, Variant};

use crate::table::{Goal, Row, Samples};

/// Rows per page.
const PAGE: u32 = 100;
/// Search texts: found in many names, in few, in none, and possibly at the start of an id.
const QUERIES: [&str; 4] = ["gate", "gate 04999", "no such lock", "0a1b"];

/// Reads `pages` pages of each list and does as many searches, on a station with 100,000 Locks and a Sub Key with rights
/// on all of them.
pub async fn measure(station: &Station, sub: &Plugged, pages: usize) -> Vec<Row> {
    let id = station.watch.objects().await.key(&sub.path).unwrap().text("Id");
    let manager = station.client.manager().await;
    let mut locks = Vec::new();
    let mut after = String::new();
    for _ in 0..pages {
        let start = Instant::now();
        let (_, next) = manager.list_locks(Options::new(), &after, PAGE).await.unwrap();
        locks.push(start.elapsed());
        after = next;
    }
    let mut rights = Vec::new();
    after.clear();
    for _ in 0..pages {
        let start = Instant::now();
        let (rows, next) = manager.list_rights(&id, &after, PAGE).await.unwrap();
        rights.push(start.elapsed());
        assert_eq!(rows.len(), PAGE as usize, "a right for every Lock");
        after = next;
    }
    let mut searches = Vec::new();
    for query in QUERIES.iter().cycle().take(pages) {
        let filter = Options::from([("query", Variant::from(*query))]);
        let start = Instant::now();
        manager.list_locks(filter, "", PAGE).await.unwrap();
        searches.push(start.elapsed());
    }
    vec![
        row("ListLocks, a page of 100 of 100,000", 5.0, locks),
        row("ListRights, a page of 100 of 100,000", 5.0, rights),
        row("ListLocks with query, 100,000 Locks", 150.0, searches),
    ]
}

/// Reads `pages` pages of the Locks selected in a serialization for all 100,000 Locks.
pub async fn measure_selection(station: &mut Station, master: &Plugged, pages: usize) -> Row {
    let blank = station.plug("selection").await;
    let job = station.offer(master, &blank).await;
    let all = Answers::sub("Selection", &[]);
    station.client.answer_until(&mut station.watch, &job, &all, "review").await;
    let manager = station.client.manager().await;
    let (mut times, mut after) = (Vec::new(), String::new());
    for _ in 0..pages {
        let path = ObjectPath::try_from(job.as_str()).unwrap();
        let filter = Options::from([("serialization", Variant::from(path))]);
        let start = Instant::now();
        let (_, next) = manager.list_locks(filter, &after, PAGE).await.unwrap();
        times.push(start.elapsed());
        after = next;
    }
    station.client.serialization(&job).await.cancel().await.unwrap();
    row("ListLocks with serialization, 100 of 100,000", 5.0, times)
}

/// Reads a list to its end, `page` by page.
pub async fn read_all<R, F>(page: impl Fn(String) -> F) -> Vec<R>
where
    F: Future<Output = zbus::Result<(Vec<R>, String)>>,
{
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let (more, next) = page(after).await.unwrap();
        rows.extend(more);
        if next.is_empty() {
            return rows;
        }
        after = next;
    }
}

fn row(what: &str, limit: f64, times: Vec<Duration>) -> Row {
    Row::times(what, Goal::p99(limit), &times.into_iter().collect::<Samples>())
}
