//! What an issuing Key signs outside of a serialization, and its card, which changes with it.

use keywright_proto::Unsigned;
use keywright_token::{CardOutcome, Cleared, Pin, Token, TokenError};

use super::{
    card::{CardOrder, put_card_with_pin},
    order::Failure,
};

/// What an issuing Key is to sign in one go.
pub struct Order {
    /// The objects, in this order.
    pub unsigned: Vec<Unsigned>,
    /// The issuing key signs a challenge first: what it signs must not exist before it has proved to be here.
    pub proves: bool,
    /// What was signed before one failed is not handed out.
    pub all_or_nothing: bool,
    /// What goes on the issuing Key's card afterwards.
    pub card: Option<CardOrder>,
    /// The card takes up the first signed object, the certificate of a new Lock.
    pub card_adds_first: bool,
}

/// The signed objects in the order given and what became of the Key's card, or why there are none; and what the token
/// answered when it was cleared.
pub type Signed = (Cleared, Result<(Vec<Vec<u8>>, CardOutcome), Failure>);

/// Signs. 2 commands an object, and 3 around them; 2 more where the key proves itself, 8 more where the Key's card changes.
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
