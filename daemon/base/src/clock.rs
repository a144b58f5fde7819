//! Wall-clock time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn since_1970() -> Duration {
    // A clock before 1970 counts as 1970; statement versions then grow by one each.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970-01-01 UTC.
pub fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

/// Milliseconds since 1970-01-01 UTC.
pub fn unix_millis() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}
