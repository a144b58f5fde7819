//! A Lock's certificate, signed by an issuing Key that is plugged in: the one signature of AddLock.

use keywright_proto::{Certificate, PublicKey};

use super::{
    card::{CardOrder, Carried, put_card_with_pin},
    order::Failure,
};
use crate::token::{self, Cleared, Pin, Token, TokenError};

/// What is to be signed.
#[derive(Clone)]
pub struct LockRequest {
    /// The Lock's identity key.
    pub key: PublicKey,
    /// The issuing Key's CA certificates, its own first.
    pub chain: Vec<Certificate>,
    /// The family's root has yet to be pinned: its key shows first that it is here, and only then signs.
    pub prove: bool,
    /// When the certificate is made, in Unix seconds.
    pub made: u64,
    /// For how many years it is valid.
    pub years: u32,
    /// What goes on the issuing Key's card beside this Lock.
    pub card: Option<CardOrder>,
}

/// The signed certificate, DER, or why there is none, and what became of the card; and what the token answered when it was
/// cleared.
pub type Signed = (Cleared, Result<(Vec<u8>, Carried), Failure>);

/// Signs, and renews the card. 5 commands, 8 more for the card, 2 more where the key has to prove itself first.
///
/// # Errors
/// As [`Token::sign_with`].
pub fn sign_lock(
    token: &mut Token,
    pin: &Pin,
    request: &LockRequest,
) -> Result<Signed, TokenError> {
    let LockRequest { key, chain, prove, made, years, card } = request.clone();
    let signed =
        token::certify_lock(token, pin, &token::LockRequest { key, chain, prove, made, years });
    let renewed = match (&signed, card) {
        (Ok(Ok(lock)), Some(order)) => {
            let order = CardOrder { added: Some(lock.clone()), ..order };
            Some(put_card_with_pin(token, pin, &order))
        }
        _ => None,
    };
    let (cleared, signed) = token::finish(token, signed, renewed)?;
    Ok((cleared, signed.map_err(Failure::from)))
}
