//! What a write is given to work with, and how it can end.

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
    /// Opens it.
    pub connector: Arc<dyn Connector>,
    /// Where it is, for the name of its thread.
    pub port: String,
    /// Its PIN, accepted before.
    pub pin: Pin,
}

/// A whole write, as reviewed.
pub struct Order {
    /// What is to be made, and what of it exists already.
    pub intent: Intent,
    /// The Locks of the statement, sorted.
    pub locks: Arc<[LockEntry]>,
    /// The issuing token; none for a Master, or once its signatures are saved.
    pub issuer: Option<Side>,
    /// The issuer's CA certificates, its own first, the root last; empty for a Master.
    pub chain: Vec<Certificate>,
    /// The token that is written.
    pub candidate: Side,
    /// The access certificate that the candidate has of this family already.
    pub membership: Option<Certificate>,
    /// The container and the certificate (DER) that it has, but from somebody who was revoked since: a new one takes
    /// its place.
    pub renews: Option<(u32, Vec<u8>)>,
    /// The GUID that is on the candidate now.
    pub guid: Option<[u8; 16]>,
    /// A rolled-back job left its keys there: they are ours to replace.
    pub leftover: bool,
    /// The PIN that replaces a factory PIN.
    pub new_pin: Option<Pin>,
    /// The PUK that replaces a factory PUK.
    pub recovery_code: Option<RecoveryCode>,
    /// Whether the PUK is the factory's, where the token says so.
    pub factory_puk: Option<bool>,
    /// The factory PUK was offered to this token once, which is never done again.
    pub puk_tried: bool,
    /// The newest version of a statement on this Key that is known here.
    pub newest_version: Option<u64>,
    /// For how many years certificates are valid.
    pub certificate_years: u32,
    /// For how many years a CRL is.
    pub crl_years: u32,
    /// The user who gave the last PIN, for the log.
    pub asked_by: Option<u32>,
}

/// What a write reports while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it is doing.
    pub stage: Stage,
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// What a write uses beside its order.
pub struct Tools {
    /// Where it is kept.
    pub registry: Registry,
    /// Told what is being done.
    pub report: Box<dyn Fn(Report) + Send>,
    /// Set when a person cancels.
    pub stop: Arc<AtomicBool>,
}

/// What became of the PUK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PukOutcome {
    /// It was not the factory's, or nobody asked.
    #[default]
    Left,
    /// The recovery code is in force.
    Replaced,
    /// An interruption hides whether the recovery code is in force.
    Unknown,
}

/// A finished write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedWrite {
    /// The Key.
    pub key: Id,
    /// The issuer stays authorized until it is re-plugged.
    pub issuer_authorized: bool,
    /// The new Key does.
    pub candidate_authorized: bool,
    /// What became of the PUK.
    pub puk: PukOutcome,
    /// What became of the family's card.
    pub card: CardOutcome,
}

/// Why a write ended before it was done.
#[derive(Debug)]
pub enum Stop {
    /// A person cancelled; it can be rolled back.
    Cancelled,
    /// A token refused a PIN that it had accepted before.
    Pin {
        /// Whose.
        who: Who,
        /// What it said.
        error: TokenError,
    },
    /// A token cannot be reached any more; the job can be taken up again.
    Interrupted {
        /// Whose.
        who: Who,
        /// What was noticed.
        error: TokenError,
    },
    /// The disk failed; what was saved before stands, and the job can be taken up again.
    Store(RegistryError),
    /// It cannot be done.
    Failed(Failure),
}

/// Why a write cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The candidate is used by somebody else.
    #[error(
        "{0} on the token is in use, and was not made here; nothing was written; take another token"
    )]
    Foreign(&'static str),
    /// A signature is not by the key that the token's certificates name.
    #[error("the token could not prove that it holds the key its certificates name; do not use it")]
    NotGenuine(Who),
    /// No container is free for another certificate.
    #[error("the token has no room for a certificate of one more family; take another token")]
    NoRoom,
    /// A token refused something.
    #[error("the token of the {} failed: {error}; plug it in again and start once more", .who.as_str())]
    Token {
        /// Whose.
        who: Who,
        /// What it said.
        error: TokenError,
    },
    /// Something could not be built.
    #[error("{0}")]
    Profile(String),
}

/// A write that stopped, and what stays authorized until it is re-plugged.
#[derive(Debug)]
pub struct Stopped {
    /// Why.
    pub stop: Stop,
    /// The issuer does.
    pub issuer_authorized: bool,
    /// The candidate does.
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
    /// Only an issuer signs outside of a write.
    fn from(why: NotSigned) -> Self {
        match why {
            NotSigned::NotGenuine => Self::NotGenuine(Who::Issuer),
            NotSigned::Profile(text) => Self::Profile(text),
        }
    }
}

impl Stop {
    /// What an error of this token means for the job.
    pub fn of(who: Who, error: TokenError) -> Self {
        match error {
            TokenError::Transport(_) | TokenError::SessionEnded => Self::Interrupted { who, error },
            TokenError::PinRefused { .. } | TokenError::PinBlocked => Self::Pin { who, error },
            error => Self::Failed(Failure::Token { who, error }),
        }
    }
}
