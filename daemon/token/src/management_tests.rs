//! Tests of the management key and of clearing its authentication, with a simulated card.

use super::management::KeyOrigin;
use super::management_key::{KeyType, ManagementKey, protected_key};
use super::simulated::{Card, NITROKEY, PRINTED, Quirks, YUBIKEY};
use super::verbs::Token;
use super::verbs_tests::{authorized, cost, factory_pin, open, pin};
use super::{TokenError, TransportError};

#[test]
fn management_key_in_force_is_found() {
    for (kind, commands) in
        [(KeyType::Tdes, 2), (KeyType::Aes192, 3), (KeyType::Aes256, 4), (KeyType::Aes128, 5)]
    {
        let card = Card::blank(NITROKEY, kind);
        let mut token = open(&card);
        let (origin, counted) = cost(&card, &mut token, Token::authenticate_management);
        assert_eq!((origin, counted), (Ok(KeyOrigin::Factory), commands), "{kind:?}");

        card.with(|card| {
            card.management = ManagementKey::random(kind).unwrap();
            card.objects.insert(PRINTED, card.management.protected().to_vec());
        });
        // Without the PIN, PRINTED cannot be read. With it the key is found, and at once if PRINTED was read before.
        let mut token = open(&card);
        assert_eq!(token.authenticate_management(), Err(TokenError::ForeignManagementKey));
        token.verify_pin(&factory_pin()).unwrap();
        let found = cost(&card, &mut token, Token::authenticate_management);
        assert_eq!(found, (Ok(KeyOrigin::Protected), commands + 3), "{kind:?}");
        let again = cost(&card, &mut token, Token::authenticate_management);
        assert_eq!(again, (Ok(KeyOrigin::Protected), commands), "{kind:?}");

        card.with(|card| card.management = ManagementKey::random(kind).unwrap());
        assert_eq!(token.authenticate_management(), Err(TokenError::ForeignManagementKey));
    }
}

#[test]
fn pin_known_to_be_cleared_is_not_checked_again() {
    type Present = fn(&mut Token);
    let rows: [(Present, usize); 4] = [
        (|_| {}, 2),
        (|token| token.verify_pin(&factory_pin()).unwrap(), 4),
        (|token| assert!(token.verify_pin(&pin("999999")).is_err()), 4),
        (|token| token.change_pin(&factory_pin(), &pin("246810")).unwrap(), 4),
    ];
    for (present, commands) in rows {
        let card = Card::blank(YUBIKEY, KeyType::Tdes);
        let token = &mut open(&card);
        token.authenticate_management().unwrap();
        token.protect_management_key(&factory_pin()).unwrap();
        present(token);
        assert_eq!(cost(&card, token, authorized), (Ok(false), commands));
        assert!(!card.with(|card| card.verified || card.authorized));
    }
}

#[test]
fn failed_authentication_does_not_hide_an_earlier_one() {
    let card = Card::blank(NITROKEY, KeyType::Tdes);
    let mut token = open(&card);
    token.authenticate_management().unwrap();
    card.with(|card| card.management = ManagementKey::random(KeyType::Tdes).unwrap());
    assert_eq!(token.authenticate_management(), Err(TokenError::ForeignManagementKey));
    assert_eq!(authorized(&mut token), Ok(true));
}

#[test]
fn management_key_is_not_set_unless_printed_is_under_the_pin() {
    for quirks in
        [Quirks { printed_under_pin: false, ..NITROKEY }, Quirks { clears_pin: false, ..NITROKEY }]
    {
        let card = Card::blank(quirks, KeyType::Tdes);
        let mut token = open(&card);
        token.authenticate_management().unwrap();
        assert!(token.protect_management_key(&factory_pin()).is_err());
        card.with(|card| assert_eq!(card.management.bytes()[..8], [1, 2, 3, 4, 5, 6, 7, 8]));
    }
}

/// Firmware older than VERIFY with P1 = FF (SP 800-73-4) clears the PIN and the management key at SELECT.
#[test]
fn select_clears_the_pin_where_verify_cannot() {
    let card = Card::blank(Quirks { clears_pin: false, ..YUBIKEY }, KeyType::Aes192);
    let mut token = open(&card);
    token.authenticate_management().unwrap();
    token.verify_pin(&factory_pin()).unwrap();
    let protect = |token: &mut Token| token.protect_management_key(&factory_pin());
    assert_eq!(cost(&card, &mut token, protect), (Ok(()), 6 + 1 + 3));
    card.with(|card| {
        let kept = protected_key(&card.objects[&PRINTED]).unwrap();
        assert_eq!(kept[..], *card.management.bytes());
        assert!(!card.verified);
    });
    assert_eq!(authorized(&mut token), Ok(false));
}

#[test]
fn printed_data_of_another_program_is_kept() {
    let card = Card::blank(NITROKEY, KeyType::Tdes);
    card.with(|card| card.objects.insert(PRINTED, b"\x01\x04Name".to_vec()));
    let mut token = open(&card);
    token.authenticate_management().unwrap();
    let protect = token.protect_management_key(&factory_pin());
    assert!(matches!(protect, Err(TokenError::Unsupported(_))));
    card.with(|card| assert_eq!(card.objects[&PRINTED], b"\x01\x04Name"));
}

/// A key in PRINTED beside a factory management key is never set, because another person may know it.
#[test]
fn planted_management_key_is_not_put_in_force() {
    let card = Card::blank(NITROKEY, KeyType::Tdes);
    let planted = ManagementKey::random(KeyType::Tdes).unwrap();
    card.with(|card| card.objects.insert(PRINTED, planted.protected().to_vec()));
    let mut token = open(&card);
    token.read_usage(&factory_pin()).unwrap();
    assert_eq!(token.authenticate_management(), Ok(KeyOrigin::Factory));
    token.protect_management_key(&factory_pin()).unwrap();
    card.with(|card| assert_ne!(card.management.bytes(), planted.bytes()));
}

/// Unplugs the token at every command, before and after it takes effect. The next run always ends with the management key
/// stored under the PIN, and a usable key exists at any moment.
#[test]
fn protecting_the_management_key_survives_any_interruption() {
    let selects = Quirks { clears_pin: false, ..YUBIKEY };
    for (quirks, kind) in
        [(NITROKEY, KeyType::Tdes), (YUBIKEY, KeyType::Aes192), (selects, KeyType::Aes192)]
    {
        let job = |token: &mut Token| {
            token.authenticate_management()?;
            token.protect_management_key(&factory_pin())
        };
        let mut interruptions = 0;
        for last in 0.. {
            let mut finished = false;
            for takes_effect in [false, true] {
                let card = Card::blank(quirks, kind);
                let first = Token::open(card.plug_until(last, takes_effect))
                    .and_then(|mut token| job(&mut token));
                match first {
                    Ok(()) => finished = true,
                    Err(error) => {
                        assert_eq!(error, TokenError::Transport(TransportError::Gone));
                        interruptions += 1;
                    }
                }
                let mut token = open(&card);
                token.verify_pin(&factory_pin()).unwrap();
                job(&mut token).unwrap();
                card.with(|card| {
                    let kept = protected_key(&card.objects[&PRINTED]).unwrap();
                    assert_eq!(kept[..], *card.management.bytes(), "{last} {takes_effect}");
                    assert_ne!(kept[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
                });
            }
            if finished {
                break;
            }
        }
        assert!(interruptions >= 2 * 10, "{interruptions}");
    }
}
