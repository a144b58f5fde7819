//! The state of a right: what one Key may do at one Lock.

use std::{cmp::Ordering, fmt};

use crate::tree::Effect;

/// What one statement says about a Key at a Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionedEffect {
    /// The statement's version; none for a revocation, which is final.
    pub version: Option<u64>,
    /// Allow or deny.
    pub effect: Effect,
}

/// The state of a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RightState {
    /// There is none.
    None,
    /// Signed, not confirmed by the Lock.
    Pending,
    /// The Lock confirmed it.
    Active,
    /// Its removal is signed, not confirmed by the Lock.
    Removing,
}

impl RightState {
    /// The word used on the bus; `none` is never listed there.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Removing => "removing",
        }
    }
}

impl fmt::Display for RightState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of all statements about a Key at a Lock is in effect: a revocation before all others, then the newest version;
/// of two with the same version, the one that denies.
pub fn newest(said: impl IntoIterator<Item = VersionedEffect>) -> Option<VersionedEffect> {
    said.into_iter().reduce(|one, other| if precedence(&other, &one).is_gt() { other } else { one })
}

fn precedence(one: &VersionedEffect, other: &VersionedEffect) -> Ordering {
    let revokes = one.version.is_none().cmp(&other.version.is_none());
    // Deny is the smaller effect and has to win.
    revokes.then(one.version.cmp(&other.version)).then(other.effect.cmp(&one.effect))
}

/// The state of a right, from the statement in effect and the Lock's last confirmation.
///
/// A newer version that allows again leaves a right active: the Lock acts alike on both. A denial is done only when it, or
/// a later one, was confirmed.
pub fn state(newest: Option<VersionedEffect>, confirmed: Option<VersionedEffect>) -> RightState {
    match newest {
        None => RightState::None,
        Some(VersionedEffect { effect: Effect::Allow, .. }) => match confirmed {
            Some(VersionedEffect { effect: Effect::Allow, .. }) => RightState::Active,
            _ => RightState::Pending,
        },
        Some(deny) => match confirmed {
            Some(confirmed)
                if confirmed.effect == Effect::Deny && precedence(&confirmed, &deny).is_ge() =>
            {
                RightState::None
            }
            _ => RightState::Removing,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn allow(version: u64) -> VersionedEffect {
        VersionedEffect { version: Some(version), effect: Effect::Allow }
    }
    const fn deny(version: u64) -> VersionedEffect {
        VersionedEffect { version: Some(version), effect: Effect::Deny }
    }
    const REVOKED: VersionedEffect = VersionedEffect { version: None, effect: Effect::Deny };

    #[test]
    fn revocation_then_newest_version_then_denial_is_in_effect() {
        for (said, counts) in [
            (vec![], None),
            (vec![allow(1)], Some(allow(1))),
            (vec![allow(1), deny(2)], Some(deny(2))),
            (vec![deny(1), allow(2)], Some(allow(2))),
            (vec![allow(2), deny(2)], Some(deny(2))),
            (vec![REVOKED, allow(9)], Some(REVOKED)),
            (vec![deny(0), allow(0)], Some(deny(0))),
        ] {
            assert_eq!(newest(said.clone()), counts, "{said:?}");
            assert_eq!(newest(said.into_iter().rev()), counts);
        }
    }

    #[test]
    fn state_follows_statement_and_confirmation() {
        use RightState::{Active, Pending, Removing};
        for (newest, confirmed, expected) in [
            (None, None, RightState::None),
            (None, Some(allow(1)), RightState::None),
            (Some(allow(2)), None, Pending),
            (Some(allow(2)), Some(deny(1)), Pending),
            (Some(allow(2)), Some(allow(2)), Active),
            (Some(allow(2)), Some(allow(1)), Active),
            (Some(deny(2)), None, Removing),
            (Some(deny(2)), Some(allow(1)), Removing),
            (Some(deny(2)), Some(deny(1)), Removing),
            (Some(deny(2)), Some(deny(2)), RightState::None),
            (Some(deny(2)), Some(deny(3)), RightState::None),
            (Some(deny(2)), Some(REVOKED), RightState::None),
            (Some(REVOKED), Some(deny(7)), Removing),
            (Some(REVOKED), Some(allow(7)), Removing),
            (Some(REVOKED), Some(REVOKED), RightState::None),
        ] {
            assert_eq!(state(newest, confirmed), expected, "{newest:?} {confirmed:?}");
        }
    }

    fn any_said() -> impl Strategy<Value = VersionedEffect> {
        prop_oneof![
            1 => Just(REVOKED),
            8 => (0..4u64, any::<bool>()).prop_map(|(v, a)| if a { allow(v) } else { deny(v) }),
        ]
    }

    proptest! {
        #[test]
        fn stations_that_merge_in_any_order_agree(
            (said, shuffled) in proptest::collection::vec(any_said(), 0..8)
                .prop_flat_map(|said| (Just(said.clone()), Just(said).prop_shuffle())),
        ) {
            let counts = newest(said.clone());
            prop_assert_eq!(counts, newest(shuffled));
            if said.contains(&REVOKED) {
                prop_assert_eq!(counts, Some(REVOKED));
            }
        }
    }
}
