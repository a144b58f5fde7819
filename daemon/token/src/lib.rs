//! Talks to PIV tokens (NIST SP 800-73-4).
//!
//! - [`hotplug`] reports plugs and unplugs, each with a [`Connector`], the only way to open that token.
//! - [`Session`] opens a token for one job, directly over USB (CCID) or through pcscd (PC/SC), as [`Route`] says.
//! - [`Token`] has the operations that Keywright needs, each documented with the number of commands it sends.
//! - [`claims`] reads what a token claims to be from what is readable without the PIN.
//! - [`certify_lock`], [`sign_all`] and [`sign_until_failure`] sign with the issuing key on a token.
//!
//! The crate knows one token at a time. It has no registry, no bus and no rules of a family: its callers pass the
//! certificates and the objects to sign.
//!
//! | file | what |
//! | --- | --- |
//! | `verbs` | the operations on a token: [`Token`] |
//! | `session` `claim` | one job on an open token, on a thread of its own; waiting for another program |
//! | `identity_claims` `details` `usage` | what a token tells: before the PIN, for display, and after the PIN |
//! | `management` `management_key` | authenticates with the management key, and replaces the factory's |
//! | `pin` | PINs and recovery codes |
//! | `signing` `family_card` | signs with the issuing key; writes the family's card |
//! | `piv` `apdu` `object` `tlv` `extensions` | commands, their encoding, and data objects (SP 800-73-4) |
//! | `route` `pcscd` | chooses between direct USB and pcscd |
//! | `usb` `ccid` `ccid_transport` | talks to a token over USB |
//! | `pcsc` `pcsc_reader` | talks to a token through pcscd |
//! | `vpcd` | talks to a card program (feature `virtual-reader`) |
//! | `hotplug` | plugs and unplugs, from udev and the virtual reader |
//! | `error` | why an operation failed |
//! | `scripted` `simulated` | test doubles: a scripted transport, a simulated card |
//!
//! Every operation on a token may fail with [`TokenError::Transport`]; its documentation names other errors only where
//! the caller can act on them.
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
pub use management::KeyOrigin;
pub use object::{Container, Retired, Slot, decode_card, random_guid};
pub use pin::{Pin, PinFormat, RecoveryCode};
pub use route::Route;
pub use session::Session;
pub use signing::{
    LockRequest, NotSigned, certify_lock, challenge, clear_after_signing, prove_issuing_key,
    random_serial, sign_all, sign_until_failure, validity,
};
pub use usage::{Printed, Usage};
pub use verbs::{CardSlot, Cleared, Identity, PukReplacement, Token};

/// Exchanges APDUs (ISO/IEC 7816-4) with a token.
pub trait Transport: Send {
    /// Sends one command APDU and returns the response APDU, including its status word.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError>;

    /// The sizes that the reader accepts.
    fn limits(&self) -> Limits;

    /// Tells the transport whether a PIN or key may stay authenticated on the token from now on.
    ///
    /// A transport that shares the token with other programs then resets the token when it is dropped. Others need not
    /// do anything, because they power the token off when they are dropped.
    fn may_stay_authorized(&mut self, _authorized: bool) {}
}

/// The APDU sizes that a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The reader exchanges extended-length APDUs (CCID `dwFeatures` 0x40000).
    pub extended: bool,
    /// The longest command APDU, in bytes.
    pub longest_command: usize,
}

/// Opens a token for one job. Dropping the [`Transport`] releases the token.
pub trait Connector: Send + Sync {
    /// Claims the token for exclusive use.
    fn open(&self) -> Result<Box<dyn Transport>, TransportError>;

    /// Blocks until it is worth trying to open the token again, for example because another program released it.
    ///
    /// Returns false if the token was unplugged or cannot be waited for. `attempts` is the number of earlier waits after
    /// which opening failed again; the wait grows with it.
    fn wait_until_free(&self, attempts: u32) -> bool {
        let _ = attempts;
        false
    }
}

/// Why no APDU could be exchanged with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The token was unplugged, or its card program ended.
    #[error("the token was unplugged")]
    Gone,
    /// Another program has claimed it.
    #[error("the token is in use by {holder}")]
    Busy {
        /// Who holds it, as far as the daemon can tell.
        holder: String,
    },
    /// Another program that shares the token reset it, which cleared every authentication.
    #[error("another program reset the token")]
    Reset,
    /// pcscd, through which the token was used, ended or is about to end.
    #[error("pcscd has ended, or has lost the token")]
    ServiceGone,
    /// The reader or token can never be used, for this reason.
    #[error("the token cannot be used: {0}")]
    Unusable(String),
    /// The token did not answer in time.
    #[error("the token did not answer in time")]
    Timeout,
    /// The reader or token violated the protocol of its transport.
    #[error("the token answered what its protocol does not allow: {0}")]
    Protocol(String),
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
