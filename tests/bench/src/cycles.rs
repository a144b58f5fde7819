//! Measures the daemon's memory growth while two Keys are plugged in and pulled out many times.

use keywright_bus_tests::Station;

use crate::{
    plug, process,
    table::{Goal, Row},
};

/// Cycles that are not counted, while pools and caches fill.
const WARM_UP: usize = 50;

/// Measures the growth over `cycles` cycles of a Master and a blank Key.
pub async fn measure(cycles: usize) -> Vec<Row> {
    let mut station = Station::unwatched(|_| ()).await;
    let master = plug::with_lock(&mut station).await;
    station.unplug(master).await;
    run(&mut station, WARM_UP).await;
    let before = process::memory(station.daemon.pid()).resident;
    run(&mut station, cycles / 2).await;
    let half = process::memory(station.daemon.pid()).resident;
    run(&mut station, cycles - cycles / 2).await;
    let after = process::memory(station.daemon.pid()).resident;
    vec![
        Row::memory(format!("RSS after {WARM_UP} plug cycles of two Keys"), Goal::NONE, before),
        Row::memory(
            format!("grown in {} more", cycles / 2),
            Goal::NONE,
            half.saturating_sub(before),
        ),
        Row::memory(
            format!("grown in the {} after these", cycles - cycles / 2),
            Goal::at_most(0.5),
            after.saturating_sub(half),
        ),
    ]
}

async fn run(station: &mut Station, times: usize) {
    for _ in 0..times {
        let master = station.plug("master").await;
        let blank = station.plug("blank").await;
        station.offer(&master, &blank).await;
        station.unplug(master).await;
        station.unplug(blank).await;
    }
}
