//! Measures the time from the start of the process to its name on the bus.

use std::time::Instant;

use keywright_bus_tests::Station;

use crate::table::{Goal, Row, Samples};

/// Restarts the daemon `times` times on its registry. `limit` is the goal in milliseconds.
pub async fn measure(station: &mut Station, what: &str, limit: f64, times: usize) -> Row {
    let mut samples = Vec::new();
    for _ in 0..times {
        assert!(station.daemon.stop().await.success(), "SIGTERM ends it cleanly");
        let start = Instant::now();
        station.daemon.restart(station.client.connection()).await;
        samples.push(start.elapsed());
    }
    Row::times(what, Goal::at_most(limit), &samples.into_iter().collect::<Samples>())
}
