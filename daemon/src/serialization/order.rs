//! Input and results of a write: the order, the progress reports, and how a write can end.

use std::sync::{Arc, atomic::AtomicBool};

use keywright_proto::{
    Certificate, Id,
    words::{Stage, Who},
};
use keywright_token::{CardOutcome, Connector, NotSigned, Pin, RecoveryCode, TokenError};

use crate::registry::{
    Registry, RegistryError,
    records::{Intent, LockEntry},
};

/// One token of a write.
pub struct Side {
    /// Opens sessions on the token.
    pub connector: Arc<dyn Connector>,
    /// The port it is plugged into; part of the name of the session's thread.
    pub port: String,
    /// Its PIN, which the token has accepted.
    pub pin: Pin,
}

/// The order for one write, as reviewed.
pub struct Order {
    /// What to make, and how far the job has come. The copy on disk is updated as the job advances.
    pub intent: Intent,
    /// The Locks of the statement, sorted.
    pub locks: Arc<[LockEntry]>,
    /// The issuing token. `None` for a Master, or once all of the issuer's signatures are saved.
    pub issuer: Option<Side>,
    /// The issuer's CA certificates, its own first, the root last; empty for a Master.
    pub chain: Vec<Certificate>,
    /// The token to write.
    pub candidate: Side,
    /// The candidate's existing access certificate of this family.
    pub membership: Option<Certificate>,
    /// The container and the certificate (DER) to replace, because its issuer was revoked.
    pub renews: Option<(u32, Vec<u8>)>,
    /// The GUID that is on the candidate now.
    pub guid: Option<[u8; 16]>,
    /// A rolled-back job of this station left its keys on the candidate: they may be overwritten.
    pub leftover: bool,
    /// The PIN that replaces a factory PIN.
    pub new_pin: Option<Pin>,
    /// The PUK that replaces a factory PUK.
    pub recovery_code: Option<RecoveryCode>,
    /// Whether the PUK is the factory's, if the token tells.
    pub factory_puk: Option<bool>,
    /// The factory PUK was offered to this token before. It is offered only once.
    pub puk_tried: bool,
    /// The newest version of a statement on this Key in the registry.
    pub newest_version: Option<u64>,
    /// Validity of certificates, in years.
    pub certificate_years: u32,
    /// Validity of a CRL, in years.
    pub crl_years: u32,
    /// The user who gave the last PIN, for the audit log.
    pub asked_by: Option<u32>,
}

/// Progress of a running write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The current stage.
    pub stage: Stage,
    /// Steps done.
    pub done: u32,
    /// Steps in total.
    pub total: u32,
}

/// The parts of the daemon that a write uses.
pub struct Tools {
    /// Stores the intent and the result.
    pub registry: Registry,
    /// Called with the progress before each step.
    pub report: Box<dyn Fn(Report) + Send>,
    /// Set when a person cancels. The write checks it before each step.
    pub stop: Arc<AtomicBool>,
}

/// Outcome for the PUK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PukOutcome {
    /// The PUK was not the factory's, or no recovery code was requested.
    #[default]
    Left,
    /// The token does not let its PUK be changed.
    Fixed,
    /// The recovery code is the PUK now.
    Replaced,
    /// The write was interrupted while it replaced the PUK: the recovery code may be the PUK.
    Unknown,
}

/// A finished write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedWrite {
    /// The Key.
    pub key: Id,
    /// The issuer could not be cleared: it stays authorized until it is re-plugged.
    pub issuer_authorized: bool,
    /// The new Key could not be cleared: it stays authorized until it is re-plugged.
    pub candidate_authorized: bool,
    /// Outcome for the PUK.
    pub puk: PukOutcome,
    /// Outcome for the family's card.
    pub card: CardOutcome,
}

/// Why a write stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// A person cancelled; the job can be rolled back.
    Cancelled,
    /// A token refused a PIN that it had accepted before, or its new PIN.
    Pin {
        /// Which of the two tokens.
        who: Who,
        /// The token's answer.
        error: TokenError,
    },
    /// A token cannot be reached any more; the job can be resumed.
    Interrupted {
        /// Which of the two tokens.
        who: Who,
        /// The error of the transport.
        error: TokenError,
    },
    /// The registry failed. Everything saved before is kept, and the job can be resumed.
    Store(RegistryError),
    /// The job cannot be completed.
    Failed(Failure),
}

/// Why a job cannot be completed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another program uses the candidate.
    #[error(
        "{0} on the token is in use, and was not made here; nothing was written; take another token"
    )]
    Foreign(&'static str),
    /// A signature was not made by the key that the token's certificates name.
    #[error("the token could not prove that it holds the key its certificates name; do not use it")]
    NotGenuine(Who),
    /// Every container for certificates is taken.
    #[error("the token has no room for a certificate of one more family; take another token")]
    NoRoom,
    /// A token refused a command.
    #[error("the token of the {} failed: {error}; plug it in again and start once more", .who.as_str())]
    Token {
        /// Which of the two tokens.
        who: Who,
        /// The token's answer.
        error: TokenError,
    },
    /// An object could not be built.
    #[error("{0}")]
    Profile(String),
}

/// A write that stopped, and which tokens stay authorized until they are re-plugged.
#[derive(Debug)]
pub struct Stopped {
    /// Why it stopped.
    pub stop: Stop,
    /// The issuer stays authorized.
    pub issuer_authorized: bool,
    /// The candidate stays authorized.
    pub candidate_authorized: bool,
}

impl From<Stop> for Stopped {
    fn from(stop: Stop) -> Self {
        Self { stop, issuer_authorized: false, candidate_authorized: false }
    }
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<NotSigned> for Failure {
    /// Signing outside of a write concerns the issuer only.
    fn from(why: NotSigned) -> Self {
        match why {
            NotSigned::NotGenuine => Self::NotGenuine(Who::Issuer),
            NotSigned::Profile(text) => Self::Profile(text),
        }
    }
}

impl Stop {
    /// Classifies an error of this token by its effect on the job.
    pub fn of(who: Who, error: TokenError) -> Self {
        match error {
            TokenError::Transport(_) | TokenError::SessionEnded => Self::Interrupted { who, error },
            TokenError::PinRefused { .. } | TokenError::PinBlocked => Self::Pin { who, error },
            TokenError::NewPinRefused => Self::Pin { who: Who::CandidateNew, error },
            error => Self::Failed(Failure::Token { who, error }),
        }
    }
}
