//! Signing with the issuing Key on a token that is plugged in: a Lock's certificate, and whatever else is signed after a
//! Key was made.
//!
//! Signing takes two steps, so that the caller may renew the Key's card ([`OldCard`](crate::OldCard)) in between, while the
//! token is authorized: [`certify_lock`], [`sign_all`] or [`sign_until_failure`], then [`clear_after_signing`]. Every function here fails as
//! [`Token::sign_with`] does.

use keywright_proto::{
    Certificate, PublicKey, Role, Unsigned,
    profile::{self, Validity},
};
use sha2::{Digest, Sha256};

use crate::{CardOutcome, Cleared, Pin, Slot, Token, TokenError, TransportError};

/// What a token signs to show that it holds a key; nothing else that is signed has this form.
const CHALLENGE: &[u8] = b"Keywright challenge\0";
/// Seconds of a day.
const DAY: u64 = 86_400;
/// Seconds of a year.
const YEAR: u64 = 365 * DAY + DAY / 4;

/// Why nothing was signed although the token answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The signature is not by the key that the token's certificates name.
    #[error("the token could not prove that it holds the key its certificates name; do not use it")]
    NotGenuine,
    /// What was to be signed could not be built, and why.
    #[error("{0}")]
    Profile(String),
}

/// What was signed, or why nothing was.
pub type Signed<T> = Result<T, NotSigned>;

/// What the token answered when it was cleared; what was signed, and what became of the Key's card.
pub type Finished<T> = (Cleared, Signed<(T, CardOutcome)>);

/// A Lock's certificate that is to be signed.
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
}

/// Signs a Lock's certificate and answers it, DER. 2 commands, 2 more where the key has to prove itself first.
pub fn certify_lock(
    token: &mut Token,
    pin: &Pin,
    request: &LockRequest,
) -> Result<Signed<Vec<u8>>, TokenError> {
    let unsigned = match unsigned_lock(request) {
        Ok(unsigned) => unsigned,
        Err(why) => return Ok(Err(why)),
    };
    if request.prove
        && let Err(why) = prove_issuing_key(token, pin, unsigned.signer())?
    {
        return Ok(Err(why));
    }
    let signature = token.sign_with(Slot::Issuing, pin, &unsigned.digest())?;
    Ok(unsigned.assemble(&signature).map_err(|_| NotSigned::NotGenuine))
}

/// Has the issuing key sign a challenge, to show that it is on this token. 2 commands.
pub fn prove_issuing_key(
    token: &mut Token,
    pin: &Pin,
    key: &PublicKey,
) -> Result<Signed<()>, TokenError> {
    let digest = match challenge() {
        Ok(digest) => digest,
        Err(why) => return Ok(Err(why)),
    };
    let signature = token.sign_with(Slot::Issuing, pin, &digest)?;
    Ok(key.verify_prehash(&digest, &signature).map_err(|_| NotSigned::NotGenuine))
}

fn unsigned_lock(request: &LockRequest) -> Result<Unsigned, NotSigned> {
    let [own, ..] = request.chain.as_slice() else {
        return Err(NotSigned::Profile("the issuer has no CA certificate".into()));
    };
    let validity = validity(request.made, request.years);
    profile::end_entity(&request.key, Role::Lock, own, &random_serial()?, validity)
        .map_err(|error| NotSigned::Profile(error.to_string()))
}

/// Signs these objects in the order given: all or none. What was signed before one failed is not handed out. 2 commands
/// each.
pub fn sign_all(
    token: &mut Token,
    pin: &Pin,
    objects: Vec<Unsigned>,
) -> Result<Signed<Vec<Vec<u8>>>, TokenError> {
    let mut signed = Vec::with_capacity(objects.len());
    for object in objects {
        let signature = token.sign_with(Slot::Issuing, pin, &object.digest())?;
        match object.assemble(&signature) {
            Ok(object) => signed.push(object),
            Err(_) => return Ok(Err(NotSigned::NotGenuine)),
        }
    }
    Ok(Ok(signed))
}

/// Signs these objects in the order given, the most important first, and clears the token. What was signed before one
/// failed is handed out; it is an error only where nothing was signed.
pub fn sign_until_failure(
    token: &mut Token,
    pin: &Pin,
    objects: Vec<Unsigned>,
) -> Result<Finished<Vec<Vec<u8>>>, TokenError> {
    let (mut signed, wanted) = (Vec::with_capacity(objects.len()), objects.len());
    for object in objects {
        match sign_all(token, pin, vec![object]) {
            Ok(Ok(one)) => signed.extend(one),
            failed if signed.is_empty() => return clear_after_signing(token, failed, None),
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
    Ok((cleared, Ok((signed, CardOutcome::NotDue))))
}

/// Clears the token after it signed and, where its card was due, after the card was put on it. 3 commands.
pub fn clear_after_signing<T>(
    token: &mut Token,
    signed: Result<Signed<T>, TokenError>,
    card: Option<Result<CardOutcome, TokenError>>,
) -> Result<Finished<T>, TokenError> {
    let cleared = match (token.clear(), &card) {
        // A token that left while its card was written has signed all the same, and forgets by itself.
        (Err(_), Some(Err(TokenError::Transport(TransportError::Gone)))) => {
            Cleared { authorized: false, retries: None }
        }
        (cleared, _) => cleared?,
    };
    let card = card.and_then(Result::ok).unwrap_or_default();
    Ok((cleared, signed?.map(|signed| (signed, card))))
}

/// The validity of a certificate made now: from a day before, for clocks that are late.
pub fn validity(made: u64, years: u32) -> Validity {
    Validity { not_before: made.saturating_sub(DAY), not_after: made + u64::from(years) * YEAR }
}

/// A serial number for a certificate.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_serial() -> Result<Vec<u8>, NotSigned> {
    let mut serial = vec![0; 16];
    getrandom::fill(&mut serial).map_err(|_| no_randomness())?;
    // Positive and of full length (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7F | 0x40;
    Ok(serial)
}

/// A digest that nobody can have had signed before, for a token to show that it holds a key.
///
/// # Errors
/// The system gives no random numbers.
pub fn challenge() -> Result<[u8; 32], NotSigned> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| no_randomness())?;
    Ok(Sha256::new().chain_update(CHALLENGE).chain_update(nonce).finalize().into())
}

fn no_randomness() -> NotSigned {
    NotSigned::Profile("the system gives no random numbers".into())
}
