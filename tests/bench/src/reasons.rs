//! Why each command of a job is needed: by when it is sent, to which token, and its name.

/// A part of a whole job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The tokens are plugged in and the offer is made.
    Plug,
    /// A person gives PINs.
    Pins,
    /// From the last PIN on.
    Write,
}

/// Which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one that signs.
    Issuer,
    /// The one that becomes a Key.
    Candidate,
}

impl Phase {
    /// As the list has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plug => "plug",
            Self::Pins => "PINs",
            Self::Write => "write",
        }
    }
}

impl Who {
    /// As the list has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Candidate => "candidate",
        }
    }
}

/// The reason of the command of this name that came `nth` (from 0) in its phase to its token.
pub fn why(_phase: Phase, _who: Who, _name: &str, _nth: usize) -> &'static str {
    "?"
}
