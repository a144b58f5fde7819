//! Papers signed one after the other by an issuing Key that is plugged in: what changes rights after
//! a Key was made.

use keywright_proto::Unsigned;

use super::{
    card::{CardOrder, Carried, put_card_with_pin},
    order::Failure,
    wizard::Who,
};
use crate::token::{Cleared, Pin, Slot, Token, TokenError, TransportError};

/// The signed papers in the order given and what became of the Key's card, or why there are none; and what the token
/// answered when it was cleared.
pub type Signed = (Cleared, Result<(Vec<Vec<u8>>, Carried), Failure>);

/// Signs. 2 commands a paper, and 3 around them; 8 more where the Key's card changes with it. All or none: what was
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
    let signed = attempt(token, pin, papers);
    let renewed = match (&signed, card) {
        (Ok(Ok(_)), Some(order)) => Some(put_card_with_pin(token, pin, order)),
        _ => None,
    };
    let cleared = cleared_after(token.clear(), renewed.as_ref());
    let carried = renewed.and_then(Result::ok).unwrap_or_default();
    Ok((cleared?, signed?.map(|papers| (papers, carried))))
}

/// The same where each paper counts by itself, the first ones most: what was signed before one failed is handed out.
///
/// # Errors
/// As [`Token::sign_with`], where nothing was signed.
pub fn sign_first(
    token: &mut Token,
    pin: &Pin,
    papers: Vec<Unsigned>,
) -> Result<Signed, TokenError> {
    let (mut signed, wanted) = (Vec::with_capacity(papers.len()), papers.len());
    for paper in papers {
        match attempt(token, pin, vec![paper]) {
            Ok(Ok(one)) => signed.extend(one),
            failed if signed.is_empty() => {
                let cleared = token.clear();
                return Ok((cleared?, failed?.map(|none| (none, Carried::NotDue))));
            }
            Ok(Err(why)) => {
                tracing::error!(?why, "the rest was not signed");
                break;
            }
            Err(error) => {
                tracing::warn!(%error, "the rest was not signed");
                break;
            }
        }
    }
    let cleared = match token.clear() {
        // It has signed all the same. One that left forgets by itself.
        Err(error) if signed.len() < wanted => {
            let gone = error == TokenError::Transport(TransportError::Gone);
            Cleared { authorized: !gone, retries: None }
        }
        cleared => cleared?,
    };
    Ok((cleared, Ok((signed, Carried::NotDue))))
}

/// A token that left while its card was written has signed all the same, and forgets by itself.
pub(super) fn cleared_after(
    cleared: Result<Cleared, TokenError>,
    card: Option<&Result<Carried, TokenError>>,
) -> Result<Cleared, TokenError> {
    match (cleared, card) {
        (Err(_), Some(Err(TokenError::Transport(TransportError::Gone)))) => {
            Ok(Cleared { authorized: false, retries: None })
        }
        (cleared, _) => cleared,
    }
}

fn attempt(
    token: &mut Token,
    pin: &Pin,
    papers: Vec<Unsigned>,
) -> Result<Result<Vec<Vec<u8>>, Failure>, TokenError> {
    let mut signed = Vec::with_capacity(papers.len());
    for paper in papers {
        let signature = token.sign_with(Slot::Issuing, pin, &paper.digest())?;
        match paper.assemble(&signature) {
            Ok(paper) => signed.push(paper),
            Err(_) => return Ok(Err(Failure::NotGenuine(Who::Issuer))),
        }
    }
    Ok(Ok(signed))
}
