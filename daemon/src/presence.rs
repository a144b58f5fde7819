//! What a present token is, from what can be read on it without a PIN: a claim, until a job proves it.

use keywright_proto::{Card, Certificate, Id, PublicKey, Role, Uri, card::CardError};

use crate::{decision::Standing, token::Identity};

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

/// What a token's certificates claim.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The first family's, if its certificates are ours.
    pub family: Option<(Id, Role)>,
    /// The access certificate (slot 9A), if it is ours.
    pub access: Option<Certificate>,
    /// The CA certificate (slot 9C), if it is ours.
    pub issuing: Option<Certificate>,
    /// Something that is not ours is on it.
    pub foreign: bool,
    /// A certificate on it is none that any station makes.
    pub alien: bool,
    /// The family's card, where it was read and verifies up to the root that it names.
    pub card: Option<Card>,
    /// Why it does not.
    pub card_refused: Option<CardError>,
}

impl Claims {
    /// The access key claimed.
    pub fn access_key(&self) -> Option<&PublicKey> {
        self.access.as_ref().map(Certificate::public_key)
    }

    /// The issuing key claimed.
    pub fn issuing_key(&self) -> Option<&PublicKey> {
        self.issuing.as_ref().map(Certificate::public_key)
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

/// Reads the claims of a token.
pub fn claims(identity: &Identity) -> Claims {
    let mut claims = certified(identity);
    if let (Some(card), Some(access), Some(own)) = (&identity.card, &claims.access, &claims.issuing)
    {
        match Card::read(card, access, own) {
            Ok(card) => claims.card = Some(card),
            Err(error) => claims.card_refused = Some(error),
        }
    }
    claims
}

/// What its certificates say.
fn certified(identity: &Identity) -> Claims {
    let access = identity.access_certificate.as_deref().map(Certificate::parse);
    let issuing = identity.issuing_certificate.as_deref().map(Certificate::parse);
    let alien = matches!(access, Some(Err(_))) || matches!(issuing, Some(Err(_)));
    let foreign = Claims { foreign: true, alien, ..Claims::default() };
    match (access, issuing) {
        (None, None) => Claims::default(),
        (Some(Ok(access)), None) => match member(&access) {
            Some((family, Role::Sub)) => Claims {
                family: Some((family, Role::Sub)),
                access: Some(access),
                ..Claims::default()
            },
            _ => foreign,
        },
        (Some(Ok(access)), Some(Ok(issuing))) => match (member(&access), issuing.uri()) {
            (Some((family, role)), Uri::Ca { family: issues_for })
                if role.is_issuer() && family == *issues_for && issuing.is_ca() =>
            {
                Claims {
                    family: Some((family, role)),
                    access: Some(access),
                    issuing: Some(issuing),
                    ..Claims::default()
                }
            }
            _ => foreign,
        },
        _ => foreign,
    }
}

/// Family and role of an access certificate that names its own key.
fn member(access: &Certificate) -> Option<(Id, Role)> {
    match access.uri() {
        Uri::EndEntity { family, role, id } if *id == access.public_key().id() => {
            Some((*family, *role))
        }
        _ => None,
    }
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
