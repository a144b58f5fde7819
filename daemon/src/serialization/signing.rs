//! Signs with an issuing Key outside of a serialization, and updates the Key's card.

use keywright_proto::Unsigned;
use keywright_token::{CardOutcome, Cleared, Pin, Token, TokenError};

use super::{
    card::{CardOrder, put_card_with_pin},
    order::Failure,
};

/// What an issuing Key is to sign in one session.
pub struct Order {
    /// The objects, in this order.
    pub unsigned: Vec<Unsigned>,
    /// The issuing key has to sign a challenge first, because no object may be signed before the token has proved to
    /// hold the key.
    pub proves: bool,
    /// If one signature fails, those made before it are discarded.
    pub all_or_nothing: bool,
    /// The card to write afterwards.
    pub card: Option<CardOrder>,
    /// The card gets the first signed object, which is the certificate of a new Lock.
    pub card_adds_first: bool,
}

/// The signed objects in the order given and the outcome for the Key's card, or why there are none; and the token's
/// answer when it was cleared.
pub type Signed = (Cleared, Result<(Vec<Vec<u8>>, CardOutcome), Failure>);

/// Signs: 2 commands an object and 3 around them; 2 more for the challenge, 8 more if the card changes.
///
/// # Errors
/// As [`Token::sign_with`].
pub fn sign(token: &mut Token, pin: &Pin, order: Order) -> Result<Signed, TokenError> {
    let Order { unsigned, proves, all_or_nothing, card, card_adds_first } = order;
    if !all_or_nothing {
        let (cleared, signed) = keywright_token::sign_until_failure(token, pin, unsigned)?;
        return Ok((cleared, signed.map_err(Failure::from)));
    }
    let proven = match unsigned.first() {
        Some(first) if proves => keywright_token::prove_issuing_key(token, pin, first.signer()),
        _ => Ok(Ok(())),
    };
    let signed = match proven {
        Ok(Ok(())) => keywright_token::sign_all(token, pin, unsigned),
        Ok(Err(why)) => Ok(Err(why)),
        Err(error) => Err(error),
    };
    let renewed = match (&signed, card) {
        (Ok(Ok(signed)), Some(card)) => {
            let added = if card_adds_first { signed.first().cloned() } else { card.added };
            Some(put_card_with_pin(token, pin, &CardOrder { added, ..card }))
        }
        _ => None,
    };
    let (cleared, signed) = keywright_token::clear_after_signing(token, signed, renewed)?;
    Ok((cleared, signed.map_err(Failure::from)))
}
