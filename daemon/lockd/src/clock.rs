//! What time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, as this Lock knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What the clock says, in milliseconds since 1970: it may say anything.
    pub unix: u64,
    /// How long this Lock has lived, in milliseconds ([`crate::lived`]).
    pub lived: u64,
}

/// Milliseconds since 1970-01-01 UTC; a clock before that counts as 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
