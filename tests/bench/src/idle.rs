//! Measures the idle daemon: memory, and wake-ups of its threads.

use std::time::Duration;

use keywright_bus_tests::Station;
use tokio::time::sleep;

use crate::{
    process,
    table::{Goal, Row},
};

/// Name prefix of sled's threads, which cannot be turned off.
const STORE_THREAD: &str = "sled-io";
/// Time after the last call before the measurement begins.
const SETTLE: Duration = Duration::from_secs(3);

/// Watches an idle daemon for `window`.
pub async fn measure(station: &Station, what: &str, window: Duration) -> Vec<Row> {
    let pid = station.daemon.pid();
    sleep(SETTLE).await;
    let before = process::context_switches(pid);
    sleep(window).await;
    let after = process::context_switches(pid);
    let memory = process::memory(pid);
    let (mut store, mut others, mut woken) = (0, 0, Vec::new());
    for (thread, count) in &after {
        let more = count - before.get(thread).copied().unwrap_or_default();
        if thread.1.starts_with(STORE_THREAD) {
            store += more;
        } else {
            others += more;
            if more > 0 {
                woken.push(format!("{} {more}", thread.1));
            }
        }
    }
    let seconds = window.as_secs();
    let named = if woken.is_empty() { String::new() } else { format!(": {}", woken.join(", ")) };
    let rows = [
        Row::memory("RSS (VmRSS)", Goal::at_most(12.0), memory.resident),
        Row::memory("PSS (smaps_rollup)", Goal::NONE, memory.proportional),
        Row::count(format!("wake-ups in {seconds} s{named}"), Goal::at_most(0.0), others),
        Row::count(format!("wake-ups of sled's I/O threads in {seconds} s"), Goal::NONE, store),
    ];
    rows.into_iter().map(|row| row.of(what)).collect()
}
