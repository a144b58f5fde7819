//! Papers signed one after the other by an issuing Key that is plugged in: what changes rights after
//! a Key was made.

use keywright_proto::Unsigned;

use super::{order::Failure, wizard::Who};
use crate::token::{Cleared, Pin, Slot, Token, TokenError};

/// The signed papers in the order given, or why there are none; and what the token answered when it
/// was cleared.
pub type Signed = (Cleared, Result<Vec<Vec<u8>>, Failure>);

/// Signs. 2 commands a paper, and 3 around them. All or none: what was signed before one failed is
/// not handed out.
///
/// # Errors
/// As [`Token::sign_with`].
pub fn sign_all(token: &mut Token, pin: &Pin, papers: Vec<Unsigned>) -> Result<Signed, TokenError> {
    let signed = attempt(token, pin, papers);
    let cleared = token.clear();
    Ok((cleared?, signed?))
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
