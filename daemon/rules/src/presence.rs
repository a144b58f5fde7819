//! What a present token is, from what can be read on it without a PIN: a claim, until a job proves it.

use keywright_proto::Role;
pub use keywright_token::{Claims, claims};

use crate::decision::Standing;

/// What a present Key is (contract section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum State {
    /// Nothing on it, as far as can be seen without a PIN.
    #[default]
    Blank,
    /// The root of a family.
    Master,
    /// A peer of one.
    Backup,
    /// A Sub Key.
    Sub,
    /// Slot 9A or 9C holds something that is not ours.
    Foreign,
    /// Revoked, as this station knows.
    Revoked,
    /// No PIV, or no way to talk to it.
    Unusable,
}

impl State {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Master => "master",
            Self::Backup => "backup",
            Self::Sub => "sub",
            Self::Foreign => "foreign",
            Self::Revoked => "revoked",
            Self::Unusable => "unusable",
        }
    }
}

/// What this station knows of a token that it has recognized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// A job made something on it that never got a right: nothing on it counts.
    pub leftover: bool,
    /// It was revoked.
    pub revoked: bool,
    /// The highest role that it has here in any family.
    pub role: Option<Role>,
}

/// What the Key is, by its claims and by what this station knows of it.
pub fn state(claims: &Claims, known: Known) -> State {
    if known.revoked {
        return State::Revoked;
    }
    // A job that was given up may have got as far as half of its certificates, but to no other.
    if known.leftover && !claims.alien {
        return State::Blank;
    }
    if claims.foreign {
        return State::Foreign;
    }
    let claimed = claims.family.map(|(_, role)| role);
    match claimed.max(known.role) {
        None => State::Blank,
        Some(Role::Master) => State::Master,
        Some(Role::Backup) => State::Backup,
        // A Soft Key is known from the registry only: no token of ours claims to be one.
        Some(Role::Sub | Role::Soft) => State::Sub,
        Some(Role::Lock) => State::Foreign,
    }
}

/// What the decision looks at.
pub fn standing(state: State, claims: &Claims, has_lock: bool) -> Standing {
    match (state, claims.family) {
        (State::Blank, _) => Standing::Blank,
        (State::Master | State::Backup, Some((family, _))) => Standing::Issuer { family, has_lock },
        (State::Sub, _) => Standing::Sub,
        (State::Revoked, _) => Standing::Revoked,
        (State::Unusable, _) => Standing::Unusable,
        (State::Foreign | State::Master | State::Backup, _) => Standing::Foreign,
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
