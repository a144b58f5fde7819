//! Confirmations: a Lock signs that it has put a statement into effect.

use minicbor::{Decoder, Encoder};

use crate::{
    PublicKey, Unsigned,
    cose::{self, Received},
    statement::VERSION_LIMIT,
    tree::{Effect, Hash},
};

/// The longest confirmation, in bytes.
pub const MAX_CONFIRMATION: usize = 1024;

/// What a Lock confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The statement: [`crate::VerifiedStatement::digest`].
    pub statement: Hash,
    /// Whether the Lock now admits the Key.
    pub effect: Effect,
    /// The newest version that the Lock knows for that Key; the station's next statement has a greater one.
    pub newest_version: u64,
}

/// Why a confirmation is not made or does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// Not a COSE_Sign1 of a confirmation in its one encoding, or out of bounds.
    #[error("not a Keywright confirmation")]
    Malformed,
    /// It names another Lock.
    #[error("the confirmation is of another Lock")]
    OtherLock,
    /// Not signed by the Lock's identity key.
    #[error("the confirmation was not signed by this Lock")]
    BadSignature,
}

impl Confirmation {
    /// The confirmation, to be signed by the Lock's identity key.
    ///
    /// # Errors
    /// [`ConfirmationError::Malformed`] where the version is not below [`VERSION_LIMIT`].
    pub fn unsigned(&self, lock: &PublicKey) -> Result<Unsigned, ConfirmationError> {
        let payload = self.encode(&lock.hash()).ok_or(ConfirmationError::Malformed)?;
        Ok(cose::unsigned(lock.clone(), cose::CONFIRMATION, &[], payload))
    }

    /// Deterministic CBOR; none where the version is out of bounds.
    fn encode(&self, lock: &Hash) -> Option<Vec<u8>> {
        if self.newest_version >= VERSION_LIMIT {
            return None;
        }
        let mut e = Encoder::new(Vec::new());
        e.map(4).ok()?.u8(1).ok()?.bytes(&self.statement).ok()?;
        e.u8(2).ok()?.bool(self.effect == Effect::Allow).ok()?;
        e.u8(3).ok()?.bytes(lock).ok()?;
        e.u8(4).ok()?.u64(self.newest_version).ok()?;
        Some(e.into_writer())
    }

    fn decode(payload: &[u8]) -> Option<(Self, Hash)> {
        let mut d = Decoder::new(payload);
        (d.map().ok()?? == 4 && d.u8().ok()? == 1).then_some(())?;
        let statement = d.bytes().ok()?.try_into().ok()?;
        (d.u8().ok()? == 2).then_some(())?;
        let effect = if d.bool().ok()? { Effect::Allow } else { Effect::Deny };
        (d.u8().ok()? == 3).then_some(())?;
        let lock = d.bytes().ok()?.try_into().ok()?;
        (d.u8().ok()? == 4).then_some(())?;
        let confirmation = Self { statement, effect, newest_version: d.u64().ok()? };
        (confirmation.encode(&lock)? == payload).then_some((confirmation, lock))
    }

    /// SHA-256 of the key of the Lock that a confirmation claims to come from, to find it by.
    ///
    /// # Errors
    /// [`ConfirmationError::Malformed`]. Nothing is verified.
    pub fn claimed_lock(bytes: &[u8]) -> Result<Hash, ConfirmationError> {
        Ok(receive(bytes)?.1.1)
    }

    /// Reads a confirmation that was verified before. Nothing is verified.
    ///
    /// # Errors
    /// [`ConfirmationError::Malformed`].
    pub fn claimed(bytes: &[u8]) -> Result<Self, ConfirmationError> {
        Ok(receive(bytes)?.1.0)
    }

    /// Verifies a confirmation under a Lock's identity key.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn verify(bytes: &[u8], lock: &PublicKey) -> Result<Self, ConfirmationError> {
        let (received, (confirmation, lock_hash)) = receive(bytes)?;
        if lock_hash != lock.hash() {
            return Err(ConfirmationError::OtherLock);
        }
        received.verify(lock).map_err(|_| ConfirmationError::BadSignature)?;
        Ok(confirmation)
    }
}

fn receive(bytes: &[u8]) -> Result<(Received, (Confirmation, Hash)), ConfirmationError> {
    let received = Received::parse(bytes, cose::CONFIRMATION, MAX_CONFIRMATION)
        .filter(|received| received.chain.is_empty())
        .ok_or(ConfirmationError::Malformed)?;
    let content = Confirmation::decode(&received.payload).ok_or(ConfirmationError::Malformed)?;
    Ok((received, content))
}
