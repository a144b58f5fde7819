//! Objects signed one after the other by an issuing Key that is plugged in: what changes rights after a Key was made.

use keywright_proto::Unsigned;

use super::{
    card::{CardOrder, Carried, put_card_with_pin},
    order::Failure,
};
use crate::token::{self, Cleared, Pin, Token, TokenError};

/// The signed objects in the order given and what became of the Key's card, or why there are none; and what the token
/// answered when it was cleared.
pub type Signed = (Cleared, Result<(Vec<Vec<u8>>, Carried), Failure>);

/// Signs. 2 commands an object, and 3 around them; 8 more where the Key's card changes with it. All or none: what was
/// signed before one failed is not handed out.
///
/// # Errors
/// As [`Token::sign_with`].
pub fn sign_all(
    token: &mut Token,
    pin: &Pin,
    papers: Vec<Unsigned>,
    card: Option<&CardOrder>,
) -> Result<Signed, TokenError> {
    let signed = token::sign_all(token, pin, papers);
    let renewed = match (&signed, card) {
        (Ok(Ok(_)), Some(order)) => Some(put_card_with_pin(token, pin, order)),
        _ => None,
    };
    let (cleared, signed) = token::finish(token, signed, renewed)?;
    Ok((cleared, signed.map_err(Failure::from)))
}

/// The same where each object counts by itself, the first ones most: what was signed before one failed is handed out.
///
/// # Errors
/// As [`Token::sign_with`], where nothing was signed.
pub fn sign_first(
    token: &mut Token,
    pin: &Pin,
    papers: Vec<Unsigned>,
) -> Result<Signed, TokenError> {
    let (cleared, signed) = token::sign_first(token, pin, papers)?;
    Ok((cleared, signed.map_err(Failure::from)))
}
