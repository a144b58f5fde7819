//! Decides which pairs of plugged-in Keys the daemon offers, and why it does not offer the others.
//!
//! [`decide`] gives one ruling for each pair. The issuer of a pair is the Key that would sign for the other one. A ruling
//! relies on what the Keys claim; the job proves the claims before it writes. `decision_tests.rs` lists the rules as a
//! table.

pub use keywright_proto::words::Reason;
use keywright_proto::{Id, Kind};

/// When a Key was plugged in. The order of Keys that were present when the daemon started is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Plugged {
    /// Before the daemon started.
    #[default]
    AtStart,
    /// Since then, as the n-th Key.
    Later(u64),
}

/// What a plugged-in Key is, as far as it matters for a ruling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyClass {
    /// It holds no keys or certificates.
    Blank,
    /// A Master or Backup Key.
    Issuer {
        /// The family for which it issues.
        family: Id,
        /// Whether the family has a Lock, confirmed or not.
        has_lock: bool,
    },
    /// A Sub Key of any family.
    Sub,
    /// It holds keys or certificates that Keywright did not make.
    Foreign,
    /// The family that is shown for it revoked it.
    Revoked,
    /// It cannot be used.
    Unusable,
}

/// A plugged-in Key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentKey<'a> {
    /// Its label.
    pub label: &'a str,
    /// What it is.
    pub class: KeyClass,
    /// When it was plugged in.
    pub plugged: Plugged,
    /// The families that revoked it.
    pub revoked_in: &'a [Id],
}

/// What happened to a pair since both Keys were plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairState {
    /// A serialization of this pair is in progress.
    Live,
    /// Its serialization was cancelled.
    Cancelled,
    /// Its serialization ended.
    Done,
}

/// Pairs with a history: issuer (`None` if the candidate becomes a Master), candidate, what happened.
pub type History<'a> = &'a [(Option<&'a str>, &'a str, PairState)];

/// Whether to offer a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Offer to make the other Key one of these kinds.
    Offer(&'static [Kind]),
    /// Do not offer it, for this reason.
    None(Reason),
}

/// The ruling on one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// The Key that would issue, if one of the two can.
    pub issuer: Option<&'a str>,
    /// The other Key.
    pub other: &'a str,
    /// Whether to offer the pair.
    pub verdict: Verdict,
}

/// The kinds that a blank Key may become.
pub const KINDS_FOR_BLANK: &[Kind] = &[Kind::Backup, Kind::Sub];
/// The kinds that a Key with a role in some family may become in another family.
pub const KINDS_FOR_MEMBER: &[Kind] = &[Kind::Sub];

/// Rules on every pair of plugged-in Keys that has no serialization in progress.
pub fn decide<'a>(keys: &[PresentKey<'a>], history: History<'_>) -> Vec<Ruling<'a>> {
    let mut rulings = Vec::new();
    for (n, first) in keys.iter().enumerate() {
        for second in &keys[n + 1..] {
            rulings.extend(rule(first, second, keys, history));
        }
    }
    rulings
}

/// Returns what a Key is to an issuer: a family's revocation ends what the Key is in that family, and nothing in others.
pub fn class_for(issuer: KeyClass, key: KeyClass, revoked_in: &[Id]) -> KeyClass {
    match (issuer, key) {
        (_, KeyClass::Unusable) => key,
        (KeyClass::Issuer { family, .. }, _) if revoked_in.contains(&family) => KeyClass::Revoked,
        (KeyClass::Issuer { .. }, KeyClass::Revoked) if !revoked_in.is_empty() => KeyClass::Sub,
        _ => key,
    }
}

/// Returns the kinds that `candidate` may become if `issuer` issues, or the reason why there are none. Considers these two
/// Keys alone: [`decide`] adds other possible issuers and the history of the pair.
pub fn allowed_kinds(issuer: KeyClass, candidate: KeyClass) -> Result<&'static [Kind], Reason> {
    use KeyClass::*;
    Err(match (issuer, candidate) {
        (Revoked, _) | (_, Revoked) => Reason::Revoked,
        (Unusable, _) | (_, Unusable) => Reason::Unusable,
        (Issuer { family, .. }, Issuer { family: same, .. }) if family == same => {
            Reason::SameFamily
        }
        (Issuer { has_lock: false, .. }, _) => Reason::NoLock,
        (Issuer { .. }, Foreign) => Reason::ForeignCredentials,
        (Issuer { .. }, Blank) => return Ok(KINDS_FOR_BLANK),
        (Issuer { .. }, Issuer { .. } | Sub) => return Ok(KINDS_FOR_MEMBER),
        (Sub, _) | (_, Sub) => Reason::NotAnIssuer,
        _ => Reason::NoIssuer,
    })
}

fn rule<'a>(
    first: &PresentKey<'a>,
    second: &PresentKey<'a>,
    keys: &[PresentKey<'a>],
    history: History<'_>,
) -> Option<Ruling<'a>> {
    let (issuer, other) = orient(first, second);
    let named = matches!(issuer.class, KeyClass::Issuer { .. }).then_some(issuer.label);
    let none =
        |reason| Ruling { issuer: named, other: other.label, verdict: Verdict::None(reason) };
    let candidate = class_for(issuer.class, other.class, other.revoked_in);
    let kinds = match allowed_kinds(issuer.class, candidate) {
        Ok(kinds) => kinds,
        Err(reason) => return Some(none(reason)),
    };
    match pair_state(issuer.label, other.label, history) {
        Some(PairState::Live) => return None,
        Some(PairState::Cancelled) => return Some(none(Reason::Cancelled)),
        Some(PairState::Done) => return Some(none(Reason::Done)),
        None => {}
    }
    if is_ambiguous(issuer, other, keys, history) {
        return Some(none(Reason::AmbiguousIssuer));
    }
    Some(Ruling { issuer: named, other: other.label, verdict: Verdict::Offer(kinds) })
}

/// Puts the Key that would issue, or is to be named first, before the other.
fn orient<'k, 'a>(
    first: &'k PresentKey<'a>,
    second: &'k PresentKey<'a>,
) -> (&'k PresentKey<'a>, &'k PresentKey<'a>) {
    // An issuer comes first; of two equals, the one that was plugged in first.
    let rank = |key: &PresentKey<'_>| match key.class {
        KeyClass::Issuer { has_lock: true, .. } => 0,
        KeyClass::Issuer { .. } => 1,
        KeyClass::Sub => 2,
        KeyClass::Blank => 3,
        KeyClass::Foreign => 4,
        KeyClass::Unusable => 5,
        KeyClass::Revoked => 6,
    };
    if (rank(second), second.plugged) < (rank(first), first.plugged) {
        (second, first)
    } else {
        (first, second)
    }
}

/// Whether another Key could issue for `other` just as well, so that a person has to choose.
fn is_ambiguous(
    issuer: &PresentKey<'_>,
    other: &PresentKey<'_>,
    keys: &[PresentKey<'_>],
    history: History<'_>,
) -> bool {
    let taken = history.iter().any(|(by, candidate, past)| {
        *candidate == other.label && *by != Some(issuer.label) && *past == PairState::Live
    });
    // A Key with a role may get rights from several families; a blank Key gets its role from one.
    if other.class == KeyClass::Blank && taken {
        return true;
    }
    let KeyClass::Issuer { family, .. } = issuer.class else { return false };
    if matches!(other.class, KeyClass::Issuer { has_lock: true, .. })
        && other.plugged == issuer.plugged
    {
        return true;
    }
    keys.iter().filter(|key| key.label != issuer.label && key.label != other.label).any(|rival| {
        let KeyClass::Issuer { family: theirs, has_lock: true } = rival.class else {
            return false;
        };
        if theirs == family {
            // Of two issuers of one family, the one that was plugged in first issues.
            rival.plugged <= issuer.plugged
        } else {
            other.class == KeyClass::Blank
        }
    })
}

fn pair_state(issuer: &str, candidate: &str, history: History<'_>) -> Option<PairState> {
    let of = |a: &str, b: &str| {
        history.iter().find(|(by, key, _)| *by == Some(a) && *key == b).map(|(.., past)| *past)
    };
    of(issuer, candidate).or_else(|| of(candidate, issuer))
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
