//! What a present token is, from what can be read on it without a PIN: a claim, until a job proves it.

use keywright_proto::Role;
pub use keywright_proto::words::KeyState;
pub use keywright_token::{Claims, claims};

use crate::decision::KeyClass;

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
pub fn state(claims: &Claims, known: Known) -> KeyState {
    if known.revoked {
        return KeyState::Revoked;
    }
    // A job that was given up may have got as far as half of its certificates, but to no other.
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
        // A Soft Key is known from the registry only: no token of ours claims to be one.
        Some(Role::Sub | Role::Soft) => KeyState::Sub,
        Some(Role::Lock) => KeyState::Foreign,
    }
}

/// What the decision looks at.
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
