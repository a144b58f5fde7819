//! What a token claims to be, from what can be read on it without a PIN: its certificates and its family's card. Nothing
//! of it is proven until the token signs.

use keywright_proto::{Card, Certificate, Id, PublicKey, Role, Uri, card::CardError};

use crate::Identity;

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
    pub unknown_profile: bool,
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

/// Reads the claims of a token.
pub fn claims(identity: &Identity) -> Claims {
    let mut claims = certificate_claims(identity);
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
fn certificate_claims(identity: &Identity) -> Claims {
    let access = identity.access_certificate.as_deref().map(Certificate::parse);
    let issuing = identity.issuing_certificate.as_deref().map(Certificate::parse);
    let unknown_profile = matches!(access, Some(Err(_))) || matches!(issuing, Some(Err(_)));
    let foreign = Claims { foreign: true, unknown_profile, ..Claims::default() };
    match (access, issuing) {
        (None, None) => Claims::default(),
        (Some(Ok(access)), None) => match membership(&access) {
            Some((family, Role::Sub)) => Claims {
                family: Some((family, Role::Sub)),
                access: Some(access),
                ..Claims::default()
            },
            _ => foreign,
        },
        (Some(Ok(access)), Some(Ok(issuing))) => match (membership(&access), issuing.uri()) {
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
fn membership(access: &Certificate) -> Option<(Id, Role)> {
    match access.uri() {
        Uri::EndEntity { family, role, id } if *id == access.public_key().id() => {
            Some((*family, *role))
        }
        _ => None,
    }
}
