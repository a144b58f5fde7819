//! Tests of the operations with a simulated card.

use std::sync::Arc;

use super::details::{Details, PinState};
use super::management_key::KeyType;
use super::object::{Container, Slot, encode_certificate, encode_chuid};
use super::pin::{Pin, RecoveryCode};
use super::scripted::{EXTENDED, Scripted};
use super::simulated::{Card, NITROKEY, PRINTED, Quirks, SIGNATURE, Shared, YUBIKEY};
use super::usage::{Printed, Usage};
use super::verbs::{Identity, PukReplacement, Token};
use super::{Connector, Session, TokenError, TransportError};

/// Whether anything is still authenticated after clearing.
pub(super) fn authorized(token: &mut Token) -> Result<bool, TokenError> {
    token.clear().map(|cleared| cleared.authorized)
}

pub(super) fn factory_pin() -> Pin {
    Pin::new(b"123456").unwrap()
}

pub(super) fn pin(digits: &str) -> Pin {
    Pin::new(digits.as_bytes()).unwrap()
}

fn code(digits: &str) -> RecoveryCode {
    RecoveryCode::new(digits.as_bytes()).unwrap()
}

pub(super) fn open(card: &Shared) -> Token {
    Token::open(card.plug()).unwrap()
}

/// Runs a step and returns the number of commands that it sent, as counted by both the card and the client.
pub(super) fn cost<R>(
    card: &Shared,
    token: &mut Token,
    step: impl FnOnce(&mut Token) -> R,
) -> (R, usize) {
    card.commands();
    let before = token.commands();
    let result = step(token);
    let counted = card.commands();
    assert_eq!(usize::try_from(token.commands() - before).unwrap(), counted);
    (result, counted)
}

#[test]
fn token_without_piv_is_refused() {
    for answer in ["6a82", "6d00", "6999"] {
        let token = Scripted::boxed(EXTENDED, [("00a40400..", Ok(answer))]);
        assert_eq!(Token::open(token).err(), Some(TokenError::NoPiv));
    }
}

#[test]
fn identity_is_read_from_blank_and_used_tokens() {
    for quirks in [NITROKEY, YUBIKEY, Quirks { extended: false, ..NITROKEY }] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        assert_eq!(card.commands(), 1);
        let (identity, commands) = cost(&card, &mut token, Token::read_identity);
        assert_eq!((identity.unwrap(), commands), (Identity::default(), 3));

        let certificate = vec![0xDE; 900];
        card.with(|card| {
            let contents = encode_certificate(&certificate);
            card.objects.insert(Container::AccessCertificate.tag(), contents.clone());
            card.objects.insert(Container::IssuingCertificate.tag(), contents);
            card.objects.insert(Container::Chuid.tag(), encode_chuid(&[7; 16]));
        });
        let identity = token.read_identity().unwrap();
        assert_eq!(identity.guid, Some([7; 16]));
        assert_eq!(identity.access_certificate.as_ref(), Some(&certificate));
        assert_eq!(identity.issuing_certificate.as_ref(), Some(&certificate));
    }
}

#[test]
fn details_are_read_with_few_commands() {
    let card = Card::blank(YUBIKEY, KeyType::Aes192);
    card.with(|card| card.keys.insert(0x9A, 0x11));
    let mut token = open(&card);
    let (details, commands) = cost(&card, &mut token, |token| token.read_details(false));
    let expected = Details {
        pin: PinState::Default,
        retries: Some(3),
        puk_blocked: Some(false),
        puk_is_factory: Some(true),
        has_access_key: Some(true),
        has_issuing_key: Some(false),
        other_slots: Vec::new(),
        serial: Some("257".into()),
    };
    assert_eq!((details.unwrap(), commands), (expected, 5));
    card.with(|card| (card.pin_tries, card.puk_tries, card.puk) = (0, 0, [1; 8]));
    let details = token.read_details(false).unwrap();
    assert_eq!((details.pin, details.retries), (PinState::Blocked, Some(0)));
    assert_eq!((details.puk_blocked, details.puk_is_factory), (Some(true), Some(false)));

    let card = Card::blank(NITROKEY, KeyType::Tdes);
    let mut token = open(&card);
    let (details, commands) = cost(&card, &mut token, |token| token.read_details(false));
    let expected = Details { retries: Some(3), ..Details::default() };
    assert_eq!((details.unwrap(), commands), (expected, 3));
    card.with(|card| card.pin_tries = 0);
    assert_eq!(token.read_details(false).unwrap().pin, PinState::Blocked);
}

#[test]
fn details_of_a_blank_token_name_used_slots() {
    for (quirks, expected) in [(YUBIKEY, 5), (NITROKEY, 5)] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        let (details, commands) = cost(&card, &mut token, |token| token.read_details(true));
        let details = details.unwrap();
        assert_eq!((details.other_slots.len(), commands), (0, expected));
        assert_eq!((details.has_access_key, details.has_issuing_key), (None, None));
        let used = encode_certificate(b"somebody's");
        card.with(|card| card.objects.insert(Container::CardAuthenticationCertificate.tag(), used));
        assert_eq!(token.read_details(true).unwrap().other_slots, ["slot 9E"]);
        assert!(token.read_details(false).unwrap().other_slots.is_empty());
    }
}

#[test]
fn pin_refusals_tell_the_tries_left() {
    for quirks in [NITROKEY, YUBIKEY, Quirks { clears_pin: false, ..NITROKEY }] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        assert_eq!(cost(&card, &mut token, |t| t.verify_pin(&factory_pin())), (Ok(()), 1));
        let refused = |retries| Err(TokenError::PinRefused { retries });
        assert_eq!(token.verify_pin(&pin("999999")), refused(2));
        assert_eq!(token.verify_pin(&pin("letter")), Err(TokenError::PinFormat));
        assert_eq!(token.change_pin(&pin("999999"), &pin("246810")), refused(1));
        assert_eq!(token.change_pin(&pin("999999"), &pin("246810")), Err(TokenError::PinBlocked));
        assert_eq!(token.verify_pin(&factory_pin()), Err(TokenError::PinBlocked));

        let unblock = |token: &mut Token, with| token.unblock_pin(&code(with), &pin("246810"));
        let wrong = Err(TokenError::CodeRefused { retries: Some(2) });
        assert_eq!(unblock(&mut token, "00000000"), wrong);
        assert_eq!(unblock(&mut token, "12345678"), Ok(()));
        let change = |t: &mut Token| t.change_pin(&pin("246810"), &pin("135791"));
        assert_eq!(cost(&card, &mut token, change), (Ok(()), 1));
        assert_eq!(token.verify_pin(&pin("135791")), Ok(()));
    }
}

/// The tries are reported even if the PIN is verified, which hides them on some firmware.
#[test]
fn refused_pin_change_tells_the_tries_after_a_verified_pin() {
    for (quirks, commands) in [(NITROKEY, 3), (YUBIKEY, 1)] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        token.verify_pin(&factory_pin()).unwrap();
        let change = |t: &mut Token| t.change_pin(&pin("999999"), &pin("246810"));
        let refused = Err(TokenError::PinRefused { retries: 2 });
        assert_eq!(cost(&card, &mut token, change), (refused, commands));
    }
}

#[test]
fn only_a_factory_recovery_code_is_replaced() {
    for (quirks, retries) in [(NITROKEY, None), (YUBIKEY, Some(2))] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        let offer = |t: &mut Token| t.replace_factory_puk(&code("24681012"));
        assert_eq!(cost(&card, &mut token, offer), (Ok(PukReplacement::Replaced), 1));
        card.with(|card| assert_eq!(card.puk, *b"24681012"));
        assert_eq!(offer(&mut token), Ok(PukReplacement::Kept { retries }));
        card.with(|card| card.puk_tries = 1);
        assert!(matches!(offer(&mut token), Ok(PukReplacement::Kept { .. })));
        let change = token.piv.change_puk(&code("24681012"), &code("11223344"));
        assert!(matches!(change, Err(TokenError::CodeRefused { .. } | TokenError::CodeBlocked)));
    }
}

#[test]
fn blank_token_is_found_unused() {
    // Without a key history each of the 20 retired containers is read.
    for (quirks, expected) in [(NITROKEY, 6), (YUBIKEY, 26)] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        token.verify_pin(&factory_pin()).unwrap();
        let (usage, commands) = cost(&card, &mut token, |t| t.read_usage(&factory_pin()));
        let blank = Usage {
            access_key: false,
            issuing_key: false,
            key_management: false,
            card_authentication: false,
            printed: Printed::Factory,
            retired: vec![],
        };
        assert_eq!((usage.unwrap(), commands), (blank, expected));
    }
}

#[test]
fn every_kind_of_use_is_found() {
    type Prepare = fn(&mut Card);
    type Holds = fn(&Usage) -> bool;
    let rows: [(Prepare, Holds); 9] = [
        (|card| _ = card.keys.insert(0x9A, 0x11), |usage| usage.access_key),
        (|card| _ = card.keys.insert(0x9C, 0x11), |usage| usage.issuing_key),
        // A slot with an RSA key may refuse a P-256 signature like an empty slot of other firmware.
        (|card| _ = card.keys.insert(0x9A, 0x07), |usage| usage.access_key),
        (|card| _ = card.keys.insert(0x9C, 0x07), |usage| usage.issuing_key),
        (
            |card| {
                let tag = Container::KeyManagementCertificate.tag();
                card.objects.insert(tag, encode_certificate(b"x"));
            },
            |usage| usage.key_management,
        ),
        (
            |card| {
                let tag = Container::CardAuthenticationCertificate.tag();
                card.objects.insert(tag, vec![1, 1, 1]);
            },
            |usage| usage.card_authentication,
        ),
        (
            |card| drop(card.objects.insert([0x5F, 0xC1, 0x1F], encode_certificate(b"card"))),
            |usage| usage.retired.iter().map(|(_, der)| &der[..]).eq([b"card"]),
        ),
        (
            |card| drop(card.objects.insert(PRINTED, card.management.protected().to_vec())),
            |usage| usage.printed == Printed::ManagementKey,
        ),
        (
            |card| drop(card.objects.insert(PRINTED, b"\x01\x04Name".to_vec())),
            |usage| usage.printed == Printed::Other,
        ),
    ];
    for quirks in [NITROKEY, YUBIKEY] {
        for (n, (prepare, holds)) in rows.iter().enumerate() {
            let card = Card::blank(quirks, KeyType::Tdes);
            assert!(!holds(&open(&card).read_usage(&factory_pin()).unwrap()), "row {n} blank");
            card.with(prepare);
            assert!(holds(&open(&card).read_usage(&factory_pin()).unwrap()), "row {n}");
        }
    }
}

#[test]
fn writing_needs_the_management_key() {
    let card = Card::blank(NITROKEY, KeyType::Tdes);
    let mut token = open(&card);
    card.commands();
    assert_eq!(token.write_guid(&[1; 16]), Err(TokenError::NotAuthenticated));
    assert_eq!(token.generate(Slot::Access), Err(TokenError::NotAuthenticated));
    let write = token.write_certificate(Container::AccessCertificate, b"x");
    assert_eq!(write, Err(TokenError::NotAuthenticated));
    let protect = token.protect_management_key(&factory_pin());
    assert_eq!(protect, Err(TokenError::NotAuthenticated));
    assert_eq!(card.commands(), 0);
}

#[test]
fn write_that_does_not_read_back_is_an_error() {
    let card = Card::blank(Quirks { stores: false, ..NITROKEY }, KeyType::Tdes);
    let mut token = open(&card);
    token.authenticate_management().unwrap();
    assert!(matches!(token.write_guid(&[1; 16]), Err(TokenError::ReadBack { .. })));
    let write = token.write_certificate(Container::AccessCertificate, b"x");
    assert!(matches!(write, Err(TokenError::ReadBack { .. })));
    token.verify_pin(&factory_pin()).unwrap();
    let protect = token.protect_management_key(&factory_pin());
    assert!(matches!(protect, Err(TokenError::ReadBack { .. })));
    card.with(|card| assert_eq!(card.management.bytes()[..8], [1, 2, 3, 4, 5, 6, 7, 8]));
}

/// Every operation of a Sub Key's job on a blank token, with its number of commands.
#[test]
fn whole_job_costs_the_documented_commands() {
    for (quirks, generate, protect, stays) in [
        (NITROKEY, 1, 6, true),
        (YUBIKEY, 1, 6, false),
        (Quirks { change_verifies: false, ..NITROKEY }, 1, 8, true),
        (Quirks { takes_policy: false, ..NITROKEY }, 2, 6, true),
        (Quirks { extended: false, ..NITROKEY }, 1, 6, true),
        (Quirks { select_clears: true, ..NITROKEY }, 1, 6, false),
    ] {
        let card = Card::blank(quirks, KeyType::Tdes);
        let token = &mut open(&card);
        token.verify_pin(&factory_pin()).unwrap();
        token.read_usage(&factory_pin()).unwrap();
        assert_eq!(cost(&card, token, |t| t.authenticate_management().unwrap()).1, 2);
        assert_eq!(cost(&card, token, |t| t.write_guid(&[7; 16])), (Ok(()), 2));
        assert_eq!(token.read_identity().unwrap().guid, Some([7; 16]));
        let (point, commands) = cost(&card, token, |t| t.generate(Slot::Access).unwrap());
        assert_eq!((commands, point), (generate, [4; 65]));
        assert_eq!(token.generate(Slot::Issuing).unwrap(), [4; 65]);

        let certificate = vec![0x30; 1800];
        let write = |t: &mut Token| t.write_certificate(Container::AccessCertificate, &certificate);
        assert_eq!(cost(&card, token, write), (Ok(()), 2));
        let read = token.read_certificate(Container::AccessCertificate).unwrap();
        assert_eq!(read.as_ref(), Some(&certificate));

        let new = pin("246810");
        token.change_pin(&factory_pin(), &new).unwrap();
        assert_eq!(cost(&card, token, |t| t.protect_management_key(&new)), (Ok(()), protect));
        assert_eq!(cost(&card, token, |t| t.protect_management_key(&new)), (Ok(()), 0));
        assert!(!card.with(|card| card.verified));

        let sign = |slot| move |t: &mut Token| t.sign_with(slot, &pin("246810"), &[1; 32]);
        let signed = |(signature, commands): (Result<Vec<u8>, _>, _)| {
            assert_eq!(hex::encode(signature.unwrap()), SIGNATURE);
            commands
        };
        assert_eq!(signed(cost(&card, token, sign(Slot::Access))), 2);
        assert_eq!(signed(cost(&card, token, sign(Slot::Access))), 1);
        assert_eq!(signed(cost(&card, token, sign(Slot::Issuing))), 2);
        token.verify_pin(&new).unwrap();
        assert_eq!(signed(cost(&card, token, sign(Slot::Issuing))), 1);

        assert_eq!(cost(&card, token, authorized), (Ok(stays), 4));
        assert_eq!(card.with(|card| card.authorized), stays);
        assert!(!card.with(|card| card.verified));
    }
}

#[test]
fn clearing_reports_a_pin_that_stays_verified() {
    let rows = [
        (NITROKEY, false, 2),
        (Quirks { clears_pin: false, ..NITROKEY }, true, 3),
        (Quirks { clears_pin: false, ..YUBIKEY }, false, 3),
    ];
    for (quirks, expected, commands) in rows {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        token.verify_pin(&factory_pin()).unwrap();
        assert_eq!(cost(&card, &mut token, authorized), (Ok(expected), commands));
        assert_eq!(card.with(|card| card.verified), expected);
    }
}

#[test]
fn session_runs_on_its_own_thread_and_releases_the_token() {
    let card = Card::blank(NITROKEY, KeyType::Tdes);
    let connector: Arc<dyn Connector> = Arc::new(card.clone());
    let session = Session::open(&connector, "token-test").unwrap();
    let name = session.run(|_| Ok(std::thread::current().name().map(str::to_owned))).unwrap();
    assert_eq!(name.as_deref(), Some("token-test"));
    let refused = session.run(|token| token.verify_pin(&pin("999999")));
    assert_eq!(refused, Err(TokenError::PinRefused { retries: 2 }));
    assert_eq!(session.run(|token| token.verify_pin(&factory_pin())), Ok(()));
    let held = Arc::strong_count(&card.0);
    drop(session);
    assert_eq!(Arc::strong_count(&card.0), held - 1, "the transport is closed");
}

#[test]
fn session_reports_why_it_could_not_be_opened() {
    struct Busy;
    impl Connector for Busy {
        fn open(&self) -> Result<Box<dyn super::Transport>, TransportError> {
            Err(TransportError::Busy { holder: "pcscd".into() })
        }
    }
    let connector: Arc<dyn Connector> = Arc::new(Busy);
    let error = Session::open(&connector, "token-test").err().unwrap();
    assert_eq!(error.to_string(), "the token is in use by pcscd");
}

#[test]
fn session_ends_with_a_panic() {
    let connector: Arc<dyn Connector> = Arc::new(Card::blank(NITROKEY, KeyType::Tdes));
    let session = Session::open(&connector, "token-test").unwrap();
    let ended: Result<(), _> = session.run(|_| panic!("expected by this test"));
    assert_eq!(ended, Err(TokenError::SessionEnded));
    assert_eq!(session.run(|_| Ok(())), Err(TokenError::SessionEnded));
}
