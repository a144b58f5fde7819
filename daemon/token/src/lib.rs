//! PIV tokens (NIST SP 800-73-4): plugs and unplugs ([`hotplug`]), the ways to a token (USB and pcscd), the PIV client, what
//! the product asks of a token ([`Token`]), what a token claims to be ([`claims`]), and signing with the Key on it.
//!
//! This crate knows what one token does and says. It knows nothing of a registry, a bus, or what a family has decided:
//! its callers give it certificates and objects to sign.
#![forbid(unsafe_code)]

mod apdu;
mod ccid;
mod ccid_transport;
mod claim;
mod details;
mod error;
mod extensions;
mod family_card;
pub mod hotplug;
mod identity_claims;
mod management;
mod management_key;
#[cfg(test)]
mod management_tests;
mod object;
mod pcsc;
mod pcsc_reader;
#[cfg(test)]
mod pcsc_tests;
mod pcscd;
mod pin;
mod piv;
mod route;
#[cfg(test)]
mod scripted;
mod session;
mod signing;
#[cfg(test)]
mod simulated;
mod tlv;
mod usage;
mod usb;
mod verbs;
#[cfg(test)]
mod verbs_tests;
#[cfg(feature = "virtual-reader")]
mod vpcd;

use std::fmt;

pub use details::{Details, PinState};
pub use error::TokenError;
pub use family_card::{CardContents, CardOutcome, OldCard, unlock_for_card};
pub use identity_claims::{Claims, claims};
pub use object::{Container, Retired, Slot, decode_card, random_guid, random_seed};
pub use pin::{Pin, PinFormat, RecoveryCode};
pub use route::Route;
pub use session::Session;
pub use signing::{
    Finished, LockRequest, NotSigned, Signed, certify_lock, challenge, clear_after_signing,
    prove_issuing_key, random_serial, sign_all, sign_until_failure, validity,
};
pub use usage::{Printed, Usage};
pub use verbs::{CardSlot, Cleared, Identity, PukReplacement, Token};

/// Moves command APDUs to a token and response APDUs back. Knows nothing of PIV.
pub trait Transport: Send {
    /// Sends one command APDU and returns the whole response, the status word last.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError>;

    /// What may be sent in one piece.
    fn limits(&self) -> Limits;

    /// Whether something may count as authenticated on the token from here on. Where other programs share the token,
    /// one that was not cleared is reset at the end; one that is ours alone is switched off in any case.
    fn may_stay_authorized(&mut self, _authorized: bool) {}
}

/// What a reader takes in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Extended-length APDUs are possible (CCID `dwFeatures` 0x40000).
    pub extended: bool,
    /// The longest command APDU, in bytes.
    pub longest_command: usize,
}

/// Opens a token for one job; dropping the [`Transport`] lets it go.
pub trait Connector: Send + Sync {
    /// Claims the token.
    fn open(&self) -> Result<Box<dyn Transport>, TransportError>;

    /// Blocks until a token that could not be asked may be asked again, such as when another program that has claimed it
    /// lets it go, and says whether it can be tried: not where it was pulled out, or nobody tells. `attempts` is how often
    /// that was said in vain.
    fn wait_until_free(&self, attempts: u32) -> bool {
        let _ = attempts;
        false
    }
}

/// Why nothing could be exchanged with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Pulled out, or its program ended.
    #[error("the token was unplugged")]
    Gone,
    /// Another program has claimed it.
    #[error("the token is in use by {holder}")]
    Busy {
        /// As far as it is known: who it is nobody tells.
        holder: String,
    },
    /// Another program that shares the token reset it: what was authorized is not any more.
    #[error("another program reset the token")]
    Reset,
    /// pcscd, through which the token was used, has ended, or is about to.
    #[error("pcscd has ended, or has lost the token")]
    ServiceGone,
    /// This reader or token can never be used, and why.
    #[error("the token cannot be used: {0}")]
    Unusable(String),
    /// It did not answer in time.
    #[error("the token did not answer in time")]
    Timeout,
    /// It broke the protocol of its transport.
    #[error("the token answered what its protocol does not allow: {0}")]
    Protocol(String),
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
