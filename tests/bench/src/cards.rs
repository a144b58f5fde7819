//! Measures the family card with 100,000 Locks: AddLock, which renews it, and a Backup Key, which gets one.

use std::time::Instant;

use keywright_bus_tests::{
    Answers, Gate, Plugged, Station,
    pins::{self, PIN},
};

use crate::{
    job::{self, SIGNATURE},
    table::{Goal, Row, Samples},
    token_log,
};

/// Number of Locks added: as many as the daemon renews the card for during one plug.
const ADDED: u8 = 4;

/// Adds Locks to a family of 100,000 and makes a Backup Key. The Master has to be plugged in again after its last AddLock.
pub async fn measure(station: &mut Station, master: &Plugged) -> Vec<Row> {
    job::peak(station);
    let written =
        |station: &Station, name| token_log::successes(&job::log(station, name), "PUT 5FC10D");
    let before = written(station, "master");
    let manager = station.client.manager().await;
    let mut times = Vec::new();
    for number in 1..=ADDED {
        let (name, request) = (format!("new gate {number}"), Gate::request(number));
        let start = Instant::now();
        manager.add_lock(&master.path, &name, &request, pins::pipe(PIN)).await.unwrap();
        times.push(start.elapsed());
    }
    let added = times.into_iter().collect::<Samples>();
    let renewed = written(station, "master") - before;
    assert_eq!(renewed, u64::from(ADDED), "each renewed the card");
    let added_peak = job::peak(station);
    let answers = Answers::backup("backup");
    let (backup, time, peaks) = job::make(station, master, "backup", &answers).await;
    assert_eq!(written(station, "backup"), 1, "it carries a card");
    // With two issuers the next offer could be of either.
    station.unplug(backup).await;
    let peak = peaks.iter().map(|(_, peak)| *peak).max().unwrap_or_default();
    let times = |what: &str, samples: &Samples| {
        Row::times(format!("{what}, signatures at {SIGNATURE} ms"), Goal::NONE, samples)
    };
    let rows = [
        times("AddLock, the card renewed", &added),
        times("a Backup Key with its card, last PIN to finished", &[time].into_iter().collect()),
        Row::memory("peak RSS of these AddLocks", Goal::at_most(100.0), added_peak),
        Row::memory("peak RSS of this Backup Key", Goal::at_most(100.0), peak),
    ];
    rows.into_iter().map(|row| row.of("100,000 Locks")).collect()
}
