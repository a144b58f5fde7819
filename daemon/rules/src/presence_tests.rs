//! States of tokens with valid, incomplete and contradicting certificates.

use keywright_proto::{
    Certificate, PublicKey, Unsigned,
    profile::{self, Validity},
};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::hazmat::PrehashSigner},
    pkcs8::EncodePublicKey,
};

use super::*;
use keywright_token::Identity;

const VALIDITY: Validity = Validity { not_before: 1_700_000_000, not_after: 2_000_000_000 };

struct Holder(SigningKey);

impl Holder {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn public(&self) -> PublicKey {
        let der = self.0.verifying_key().to_public_key_der().unwrap();
        PublicKey::from_spki_der(der.as_bytes()).unwrap()
    }

    fn sign(&self, unsigned: Unsigned) -> Vec<u8> {
        let signature: DerSignature = self.0.sign_prehash(&unsigned.digest()).unwrap();
        unsigned.assemble(signature.as_bytes()).unwrap()
    }
}

/// The root of a family and its own access certificate.
fn master(issuing: &Holder, access: &Holder) -> (Vec<u8>, Vec<u8>) {
    let ca = issuing.sign(profile::master_ca(&issuing.public(), &[1], VALIDITY).unwrap());
    let access = member(issuing, &ca, access, Role::Master);
    (ca, access)
}

fn member(issuing: &Holder, ca: &[u8], access: &Holder, role: Role) -> Vec<u8> {
    let ca = Certificate::parse(ca).unwrap();
    issuing.sign(profile::end_entity(&access.public(), role, &ca, &[2], VALIDITY).unwrap())
}

fn identity(access: Option<&[u8]>, issuing: Option<&[u8]>) -> Identity {
    Identity {
        card: None,
        guid: None,
        access_certificate: access.map(<[u8]>::to_vec),
        issuing_certificate: issuing.map(<[u8]>::to_vec),
    }
}

fn state_of(access: Option<&[u8]>, issuing: Option<&[u8]>) -> KeyState {
    state(&claims(&identity(access, issuing)), Known::default())
}

#[test]
fn state_follows_both_certificates() {
    let (issuing, access) = (Holder::new(1), Holder::new(2));
    let (ca, own) = master(&issuing, &access);
    let sub = member(&issuing, &ca, &access, Role::Sub);
    let backup = member(&issuing, &ca, &access, Role::Backup);
    let lock = member(&issuing, &ca, &access, Role::Lock);
    let (other_ca, _) = master(&Holder::new(3), &Holder::new(4));
    let garbage: &[u8] = b"not a certificate";
    type Row<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, KeyState);
    let rows: &[Row] = &[
        (None, None, KeyState::Blank),
        (Some(&own), Some(&ca), KeyState::Master),
        (Some(&backup), Some(&ca), KeyState::Backup),
        (Some(&sub), None, KeyState::Sub),
        // A Sub Key has no issuing certificate; an issuer has both certificates, of one family.
        (Some(&sub), Some(&ca), KeyState::Foreign),
        (Some(&own), None, KeyState::Foreign),
        (None, Some(&ca), KeyState::Foreign),
        (Some(&own), Some(&other_ca), KeyState::Foreign),
        (Some(&ca), Some(&ca), KeyState::Foreign),
        (Some(&own), Some(&own), KeyState::Foreign),
        (Some(&lock), None, KeyState::Foreign),
        (Some(garbage), None, KeyState::Foreign),
        (None, Some(garbage), KeyState::Foreign),
        (Some(&own), Some(garbage), KeyState::Foreign),
        (Some(garbage), Some(&ca), KeyState::Foreign),
    ];
    for (n, (access, issuing, expected)) in rows.iter().enumerate() {
        assert_eq!(state_of(*access, *issuing), *expected, "row {n}");
    }
}

#[test]
fn local_knowledge_overrides_claims() {
    let (issuing, access) = (Holder::new(1), Holder::new(2));
    let (ca, _) = master(&issuing, &access);
    let sub = member(&issuing, &ca, &access, Role::Sub);
    let claims = claims(&identity(Some(&sub), None));
    let with = |known| state(&claims, known);
    assert_eq!(with(Known { revoked: true, ..Known::default() }), KeyState::Revoked);
    assert_eq!(with(Known { leftover: true, ..Known::default() }), KeyState::Blank);
    assert_eq!(with(Known { role: Some(Role::Master), ..Known::default() }), KeyState::Master);
    assert_eq!(with(Known { role: Some(Role::Soft), ..Known::default() }), KeyState::Sub);
    // A Key without certificates has the state that the registry knows.
    let absent = Known { role: Some(Role::Backup), ..Known::default() };
    assert_eq!(state(&Claims::default(), absent), KeyState::Backup);
}

#[test]
fn issuers_are_classified_with_their_family() {
    let (issuing, access) = (Holder::new(1), Holder::new(2));
    let (ca, own) = master(&issuing, &access);
    let claims = claims(&identity(Some(&own), Some(&ca)));
    let family = issuing.public().id();
    assert_eq!(
        classify(KeyState::Master, &claims, true),
        KeyClass::Issuer { family, has_lock: true }
    );
    // A Master without certificates has no key to sign with.
    assert_eq!(classify(KeyState::Master, &Claims::default(), true), KeyClass::Foreign);
    assert_eq!(classify(KeyState::Unusable, &claims, true), KeyClass::Unusable);
}

#[test]
fn leftover_token_with_an_unknown_certificate_is_foreign() {
    let leftover = Known { leftover: true, ..Known::default() };
    assert_eq!(state(&claims(&Identity::default()), leftover), KeyState::Blank);
    let certificate = Some(b"of another program".to_vec());
    for identity in [
        Identity { access_certificate: certificate.clone(), ..Identity::default() },
        Identity { issuing_certificate: certificate, ..Identity::default() },
    ] {
        assert_eq!(state(&claims(&identity), leftover), KeyState::Foreign, "{identity:?}");
    }
}
