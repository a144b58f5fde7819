//! The stages of a write, as they are shown while it runs.

/// What the write is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The PINs and the closer look.
    Checking,
    /// Keys are generated.
    Keys,
    /// Certificates are signed.
    Certificates,
    /// The statement is signed.
    Statement,
    /// PIN, management key and PUK are replaced.
    Secrets,
    /// What was written is read back.
    Verifying,
    /// The registry is committed.
    Saving,
}

impl Stage {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Keys => "keys",
            Self::Certificates => "certificates",
            Self::Statement => "statement",
            Self::Secrets => "secrets",
            Self::Verifying => "verifying",
            Self::Saving => "saving",
        }
    }
}
