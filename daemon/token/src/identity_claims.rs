//! Reads what a token claims to be from its certificates and its family's card, which are readable without the PIN.
//!
//! Claims are not proven until the token signs: anyone can write certificates to a token.

use keywright_proto::{Card, Certificate, Id, PublicKey, Role, Uri, card::CardError};

use crate::Identity;

/// What a token claims to be.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Its first family and its role there, if its certificates are made by Keywright.
    pub family: Option<(Id, Role)>,
    /// The access certificate (slot 9A), if it is made by Keywright.
    pub access: Option<Certificate>,
    /// The CA certificate (slot 9C), if it is made by Keywright.
    pub issuing: Option<Certificate>,
    /// It holds certificates that Keywright did not make, or that do not belong together.
    pub foreign: bool,
    /// One of its certificates does not have the profile of any Keywright certificate.
    pub unknown_profile: bool,
    /// The family's card, if it was read and verifies up to the root that it names.
    pub card: Option<Card>,
    /// Why the family's card does not verify.
    pub card_refused: Option<CardError>,
}

impl Claims {
    /// The claimed access key.
    pub fn access_key(&self) -> Option<&PublicKey> {
        self.access.as_ref().map(Certificate::public_key)
    }

    /// The claimed issuing key.
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

/// Reads the claims of the certificates alone.
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

/// Returns family and role of an access certificate whose id is that of its own key.
fn membership(access: &Certificate) -> Option<(Id, Role)> {
    match access.uri() {
        Uri::EndEntity { family, role, id } if *id == access.public_key().id() => {
            Some((*family, *role))
        }
        _ => None,
    }
}
