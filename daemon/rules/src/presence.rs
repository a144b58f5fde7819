//! Decides the state of a plugged-in Key from what its token claims and from what this station knows of it.
//!
//! The claims are read without a PIN and are not proven; a job proves them before it relies on them.

use keywright_proto::Role;
pub use keywright_proto::words::KeyState;
pub use keywright_token::{Claims, claims};

use crate::decision::KeyClass;

/// What this station's registry knows of a token that it recognized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// A cancelled job left keys or certificates on it that never got a right; they are ignored.
    pub leftover: bool,
    /// The family that is shown for it revoked it.
    pub revoked: bool,
    /// The highest role that it has in any family of this station.
    pub role: Option<Role>,
}

/// Returns the state of a Key. What this station knows overrides what the token claims.
pub fn state(claims: &Claims, known: Known) -> KeyState {
    if known.revoked {
        return KeyState::Revoked;
    }
    // A cancelled job leaves some of its own certificates at most, and those have our profile.
    if known.leftover && !claims.unknown_profile {
        return KeyState::Blank;
    }
    if claims.foreign {
        return KeyState::Foreign;
    }
    let claimed = claims.family.map(|(_, role)| role);
    match claimed.max(known.role) {
        None => KeyState::Blank,
        Some(Role::Master) => KeyState::Master,
        Some(Role::Backup) => KeyState::Backup,
        // Only the registry knows of Soft Keys; no token is made with that role.
        Some(Role::Sub | Role::Soft) => KeyState::Sub,
        Some(Role::Lock) => KeyState::Foreign,
    }
}

/// Returns what [`decide`](crate::decision::decide) needs to know of a Key.
pub fn classify(state: KeyState, claims: &Claims, has_lock: bool) -> KeyClass {
    match (state, claims.family) {
        (KeyState::Blank, _) => KeyClass::Blank,
        (KeyState::Master | KeyState::Backup, Some((family, _))) => {
            KeyClass::Issuer { family, has_lock }
        }
        (KeyState::Sub, _) => KeyClass::Sub,
        (KeyState::Revoked, _) => KeyClass::Revoked,
        (KeyState::Unusable, _) => KeyClass::Unusable,
        (KeyState::Foreign | KeyState::Master | KeyState::Backup, _) => KeyClass::Foreign,
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
