//! Time, as this Lock knows it.

/// A moment, as this Lock knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What the clock says, in milliseconds since 1970: it may say anything.
    pub unix: u64,
    /// How long this Lock has uptime, in milliseconds ([`crate::uptime`]).
    pub uptime: u64,
}
