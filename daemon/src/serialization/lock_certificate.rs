//! A Lock's certificate, signed by an issuing Key that is plugged in: the one signature of AddLock.

use keywright_proto::{Certificate, PublicKey, Role, profile};

use super::{
    card::{CardOrder, Carried, put_card_with_pin},
    order::Failure,
    papers::validity,
    signing::cleared_after,
    wizard::Who,
    write::{challenge, random_serial},
};
use crate::token::{Cleared, Pin, Slot, Token, TokenError};

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
    /// What goes on the issuing Key's card beside this Lock, where a station asks.
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
    let signed = attempt(token, pin, request);
    let renewed = match (&signed, &request.card) {
        (Ok(Ok(lock)), Some(order)) => {
            let order = CardOrder { added: Some(lock.clone()), ..order.clone() };
            Some(put_card_with_pin(token, pin, &order))
        }
        _ => None,
    };
    let cleared = cleared_after(token.clear(), renewed.as_ref());
    let card = renewed.and_then(Result::ok).unwrap_or_default();
    Ok((cleared?, signed?.map(|lock| (lock, card))))
}

fn attempt(
    token: &mut Token,
    pin: &Pin,
    request: &LockRequest,
) -> Result<Result<Vec<u8>, Failure>, TokenError> {
    let unsigned = match unsigned(request) {
        Ok(unsigned) => unsigned,
        Err(failure) => return Ok(Err(failure)),
    };
    if request.prove {
        let digest = match challenge() {
            Ok(digest) => digest,
            Err(failure) => return Ok(Err(failure)),
        };
        let signature = token.sign_with(Slot::Issuing, pin, &digest)?;
        if unsigned.signer().verify_prehash(&digest, &signature).is_err() {
            return Ok(Err(Failure::NotGenuine(Who::Issuer)));
        }
    }
    let signature = token.sign_with(Slot::Issuing, pin, &unsigned.digest())?;
    Ok(unsigned.assemble(&signature).map_err(|_| Failure::NotGenuine(Who::Issuer)))
}

fn unsigned(request: &LockRequest) -> Result<keywright_proto::Unsigned, Failure> {
    let [own, ..] = request.chain.as_slice() else {
        return Err(Failure::Profile("the issuer has no CA certificate".into()));
    };
    let validity = validity(request.made, request.years);
    profile::end_entity(&request.key, Role::Lock, own, &random_serial()?, validity)
        .map_err(|error| Failure::Profile(error.to_string()))
}
