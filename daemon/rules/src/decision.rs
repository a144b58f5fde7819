//! Which of the present Keys belong together: the table of contract section 2, as one pure function.
//!
//! A ruling is given for each pair of present Keys. The issuer of a pair is the Key that may make
//! something of the other; the table looks at what the Keys claim, and a job proves the claims.

pub use keywright_proto::words::Reason;
use keywright_proto::{Id, Kind};

/// When a Key was plugged in. Keys that were there at the start of the daemon have no order among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Plugged {
    /// It was there when the daemon started.
    #[default]
    AtStart,
    /// It was the n-th to be plugged in since.
    Later(u64),
}

/// What a present Key is, as far as the table looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyClass {
    /// Nothing on it.
    Blank,
    /// A Master or Backup Key.
    Issuer {
        /// The family that it issues for.
        family: Id,
        /// Whether the family has a Lock, confirmed or not.
        has_lock: bool,
    },
    /// A Sub Key of any family.
    Sub,
    /// It holds keys or certificates of somebody else.
    Foreign,
    /// It was revoked.
    Revoked,
    /// It cannot be used.
    Unusable,
}

/// A present Key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentKey<'a> {
    /// Names it.
    pub label: &'a str,
    /// What it is.
    pub class: KeyClass,
    /// When it came.
    pub plugged: Plugged,
}

/// What has happened to a pair since both were plugged in, or is happening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairState {
    /// A serialization of this pair is under way.
    Live,
    /// It was cancelled.
    Cancelled,
    /// It ended.
    Done,
}

/// The pairs that have a history: issuer (none for a Master's own making), candidate, what happened.
pub type History<'a> = &'a [(Option<&'a str>, &'a str, PairState)];

/// What is to be done about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Offer to make one of these kinds.
    Offer(&'static [Kind]),
    /// Offer nothing, for this reason.
    None(Reason),
}

/// The ruling on one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// The Key that issues or would, if the pair has one.
    pub issuer: Option<&'a str>,
    /// The other Key.
    pub other: &'a str,
    /// What is to be done.
    pub verdict: Verdict,
}

/// What a blank Key may become.
pub const KINDS_FOR_BLANK: &[Kind] = &[Kind::Backup, Kind::Sub];
/// What a Key that is somebody's already may become.
pub const KINDS_FOR_MEMBER: &[Kind] = &[Kind::Sub];

/// Rules on every pair of present Keys that has no serialization under way.
pub fn decide<'a>(keys: &[PresentKey<'a>], history: History<'_>) -> Vec<Ruling<'a>> {
    let mut rulings = Vec::new();
    for (n, first) in keys.iter().enumerate() {
        for second in &keys[n + 1..] {
            rulings.extend(rule(first, second, keys, history));
        }
    }
    rulings
}

/// The kinds that `issuer` may make of `candidate` when a person asks for it by name, or why none.
///
/// Unlike [`decide`] this does not mind other possible issuers, nor what the pair went through before.
pub fn allowed_kinds(issuer: KeyClass, candidate: KeyClass) -> Result<&'static [Kind], Reason> {
    match refusal_reason(issuer, candidate) {
        Some(reason) => Err(reason),
        None if candidate == KeyClass::Blank => Ok(KINDS_FOR_BLANK),
        None => Ok(KINDS_FOR_MEMBER),
    }
}

/// The rows of the table that look at one pair alone, `issuer` being the Key that would issue.
fn refusal_reason(issuer: KeyClass, other: KeyClass) -> Option<Reason> {
    use KeyClass::*;
    Some(match (issuer, other) {
        (Revoked, _) | (_, Revoked) => Reason::Revoked,
        (Unusable, _) | (_, Unusable) => Reason::Unusable,
        (Issuer { family, .. }, Issuer { family: same, .. }) if family == same => {
            Reason::SameFamily
        }
        (Issuer { has_lock: false, .. }, _) => Reason::NoLock,
        (Issuer { .. }, Foreign) => Reason::ForeignCredentials,
        (Issuer { .. }, _) => return None,
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
    if let Some(reason) = refusal_reason(issuer.class, other.class) {
        return Some(none(reason));
    }
    match pair_state(issuer.label, other.label, history) {
        Some(PairState::Live) => return None,
        Some(PairState::Cancelled) => return Some(none(Reason::Cancelled)),
        Some(PairState::Done) => return Some(none(Reason::Done)),
        None => {}
    }
    if is_ambiguous(issuer, other, keys, history) {
        return Some(none(Reason::AmbiguousIssuer));
    }
    let kinds = if other.class == KeyClass::Blank { KINDS_FOR_BLANK } else { KINDS_FOR_MEMBER };
    Some(Ruling { issuer: named, other: other.label, verdict: Verdict::Offer(kinds) })
}

/// Puts the Key that issues, or is named first, before the other.
fn orient<'k, 'a>(
    first: &'k PresentKey<'a>,
    second: &'k PresentKey<'a>,
) -> (&'k PresentKey<'a>, &'k PresentKey<'a>) {
    // Who can issue stands first; between equals the one that was present first.
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

/// Whether somebody else could be the issuer of `other` just as well, so that a person has to say which.
fn is_ambiguous(
    issuer: &PresentKey<'_>,
    other: &PresentKey<'_>,
    keys: &[PresentKey<'_>],
    history: History<'_>,
) -> bool {
    let taken = history.iter().any(|(by, candidate, past)| {
        *candidate == other.label && *by != Some(issuer.label) && *past == PairState::Live
    });
    // Each family may give rights to a Key that is somebody's already; a blank one belongs to one.
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
            // Of one family's Keys the one that was present first issues.
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
