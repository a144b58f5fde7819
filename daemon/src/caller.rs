//! Who calls.

/// Who calls over the bus, as the bus vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The unique bus name.
    pub name: String,
    /// The user.
    pub uid: u32,
}
