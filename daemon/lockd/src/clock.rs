//! The two clocks that a Lock judges by.

/// One moment on both clocks of this Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time in milliseconds since 1970. It is not trusted: anybody with access to the machine may have set
    /// it.
    pub unix: u64,
    /// Uptime of this Lock in milliseconds ([`crate::uptime`]).
    pub uptime: u64,
}
