//! Signs with the issuing key on a token: certificates of Locks, statements, CRLs and whatever else a family signs.
//!
//! Signing takes two steps: [`certify_lock`] or [`sign_all`], then [`clear_after_signing`]. In between, while the token is
//! authenticated, the caller may renew the Key's card ([`OldCard`](crate::OldCard)). [`sign_until_failure`] does both.
//! Every function here returns the errors of [`Token::sign_with`].

use keywright_proto::{
    Certificate, PublicKey, Role, Unsigned,
    profile::{self, Validity},
};
use sha2::{Digest, Sha256};

use crate::{CardOutcome, Cleared, Pin, Slot, Token, TokenError, TransportError};

/// The prefix of a challenge that a token signs to prove that it holds a key. No other signed object begins with it.
const CHALLENGE: &[u8] = b"Keywright challenge\0";
/// Seconds in a day.
const DAY: u64 = 86_400;
/// Seconds in a year.
const YEAR: u64 = 365 * DAY + DAY / 4;

/// Why nothing was signed, although the token answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The signature is not by the key in the token's certificate.
    #[error("the token could not prove that it holds the key its certificates name; do not use it")]
    NotGenuine,
    /// The object to be signed could not be built, for this reason.
    #[error("{0}")]
    Profile(String),
}

/// The signed objects, or why nothing was signed.
pub type Signed<T> = Result<T, NotSigned>;

/// The result of clearing the token, and the signed objects with the result of renewing the Key's card.
pub type Finished<T> = (Cleared, Signed<(T, CardOutcome)>);

/// A request for a Lock's certificate.
#[derive(Clone)]
pub struct LockRequest {
    /// The Lock's identity key.
    pub key: PublicKey,
    /// The issuing Key's CA certificates, its own first.
    pub chain: Vec<Certificate>,
    /// The family's root is not pinned yet, so the issuing key must prove that it is on the token before it signs.
    pub prove: bool,
    /// The time of issue, in Unix seconds.
    pub made: u64,
    /// The number of years for which it is valid.
    pub years: u32,
}

/// Signs a Lock's certificate and returns it in DER. 2 commands, 2 more with `prove`.
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

/// Makes the issuing key sign a challenge, which proves that it is on this token. 2 commands.
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

/// Signs objects in the given order, and returns either all of them or none. 2 commands each.
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

/// Signs objects in the given order until one fails, and clears the token.
///
/// Returns the objects signed before the failure, so the caller puts the most important ones first. It is an error only
/// if nothing was signed.
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
        // The objects are signed all the same. An unplugged token loses its authentication by itself.
        Err(error) if signed.len() < wanted => {
            let gone = error == TokenError::Transport(TransportError::Gone);
            Cleared { authorized: !gone, retries: None }
        }
        cleared => cleared?,
    };
    Ok((cleared, Ok((signed, CardOutcome::NotDue))))
}

/// Clears the token after it signed and, if `card` is given, after its card was renewed. 3 commands.
pub fn clear_after_signing<T>(
    token: &mut Token,
    signed: Result<Signed<T>, TokenError>,
    card: Option<Result<CardOutcome, TokenError>>,
) -> Result<Finished<T>, TokenError> {
    let cleared = match (token.clear(), &card) {
        // A token that was unplugged while its card was written signed all the same, and lost its authentication.
        (Err(_), Some(Err(TokenError::Transport(TransportError::Gone)))) => {
            Cleared { authorized: false, retries: None }
        }
        (cleared, _) => cleared?,
    };
    let card = card.and_then(Result::ok).unwrap_or_default();
    Ok((cleared, signed?.map(|signed| (signed, card))))
}

/// Returns the validity of a certificate issued at `made`. It begins a day earlier, for Locks whose clocks are slow.
pub fn validity(made: u64, years: u32) -> Validity {
    Validity { not_before: made.saturating_sub(DAY), not_after: made + u64::from(years) * YEAR }
}

/// Creates a random serial number for a certificate.
pub fn random_serial() -> Result<Vec<u8>, NotSigned> {
    let mut serial = vec![0; 16];
    getrandom::fill(&mut serial).map_err(|_| no_randomness())?;
    // Positive and of full length (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7F | 0x40;
    Ok(serial)
}

/// Creates a random challenge digest, which a token signs to prove that it holds a key.
pub fn challenge() -> Result<[u8; 32], NotSigned> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| no_randomness())?;
    Ok(Sha256::new().chain_update(CHALLENGE).chain_update(nonce).finalize().into())
}

fn no_randomness() -> NotSigned {
    NotSigned::Profile("the system gives no random numbers".into())
}
