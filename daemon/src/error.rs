//! Errors that the daemon reports to its callers.

use keywright_proto::{
    ErrorName, Id,
    words::{Step, Who},
};
use keywright_rules::{decision::Reason, wizard::Refusal};
use keywright_token::TokenError;

use crate::{registry::RegistryError, serialization::order::Failure};

/// Why a request was not done: which object it concerns, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller is not authorized.
    #[error(
        "you are not allowed to do this ({action}); ask an administrator, or log in at the machine itself"
    )]
    NotAuthorized {
        /// The polkit action.
        action: &'static str,
    },
    /// An argument is not valid.
    #[error("{0}")]
    InvalidArgument(String),
    /// The wizard does not accept this call in its current step.
    #[error("{refusal}; {next}")]
    Wizard {
        /// Why the wizard does not accept it.
        #[source]
        refusal: Refusal,
        /// What the caller can do instead.
        next: &'static str,
    },
    /// No such object.
    #[error("there is no {0}; list what there is and choose again")]
    NotFound(String),
    /// Another front-end drives the serialization.
    #[error("another front-end ({owner}) drives this serialization; it has to release it first")]
    NotOwner {
        /// Its unique bus name.
        owner: String,
    },
    /// Another user saved the serialization.
    #[error(
        "user {uid} saved this serialization; only that user, or root, can take its recovery code"
    )]
    NotSaver {
        /// The user.
        uid: u32,
    },
    /// Another program holds the token.
    #[error("{key} is in use by {holder}; close what uses it and try again")]
    KeyBusy {
        /// The Key, as people know it.
        key: String,
        /// The program.
        holder: String,
    },
    /// It has to be plugged in.
    #[error("{0} is not plugged in; plug it in and try again")]
    KeyAbsent(String),
    /// The two Keys do not fit together.
    #[error("{}", .0.text())]
    Pair(Reason),
    /// The closer look found that another program uses the candidate.
    #[error("{key} is in use: {what} was not made here; nothing was written, take another token")]
    Foreign {
        /// The Key, as people know it.
        key: String,
        /// What is in use.
        what: &'static str,
    },
    /// The root is not pinned here, and this job cannot pin it.
    #[error(
        "family {0} is not verified on this station; add a Lock with its Master Key here, which proves it"
    )]
    Unverified(Id),
    /// The Key's issuers were revoked.
    #[error(
        "{0} has to be certified anew, because the Key that made it was revoked; another Master or Backup Key does that when it revokes that Key once more"
    )]
    Orphaned(String),
    /// Another call changed it first.
    #[error("{0} were changed meanwhile; look at them again and repeat what is still wanted")]
    Stale(String),
    /// A file or object does not verify.
    #[error("{0}")]
    Forged(String),
    /// The token does not hold the keys that its certificates claim.
    #[error("{0} could not prove that it is what its certificates say; do not use it")]
    NotGenuine(String),
    /// The request is not possible on this system or in this state.
    #[error("{0}")]
    Unsupported(String),
    /// A PIN is missing.
    #[error("the {} PIN is needed first", .0.as_str())]
    PinRequired(Who),
    /// A token refused a PIN.
    #[error("{key} refused the PIN; {}", tries(*.retries))]
    PinInvalid {
        /// The Key, as people know it.
        key: String,
        /// The tries that are left.
        retries: u8,
    },
    /// One try is left. It is used only after a re-plug.
    #[error(
        "the PIN was not sent: {key} has one try left; unplug it, plug it in again, and then give the PIN once more"
    )]
    LastTry {
        /// The Key, as people know it.
        key: String,
    },
    /// No PIN tries are left.
    #[error("{0} takes no PIN any more; unblock it with its recovery code")]
    PinBlocked(String),
    /// A token refused its recovery code.
    #[error("{key} refused the recovery code{}; look it up and give it once more", code_tries(*.retries))]
    CodeInvalid {
        /// The Key, as people know it.
        key: String,
        /// The tries that are left, if the token tells.
        retries: Option<u8>,
    },
    /// No tries of the recovery code are left.
    #[error("{0} takes no recovery code any more; only a reset of its PIV application helps")]
    CodeBlocked(String),
    /// A limit was exceeded.
    #[error("{0}")]
    LimitExceeded(String),
    /// The job was given up.
    #[error("this serialization was cancelled; start a new one")]
    Cancelled,
    /// A token failed.
    #[error("{key}: {source}; unplug it, plug it in again and try once more")]
    Token {
        /// The Key, as people know it.
        key: String,
        /// The error of the token.
        source: TokenError,
    },
    /// The registry failed.
    #[error(transparent)]
    Store(#[from] RegistryError),
    /// The job's thread ended without a result.
    #[error("the job broke off inside the daemon; its log says why; try once more")]
    JobLost,
    /// The daemon is shutting down.
    #[error("the daemon is stopping; try again in a moment")]
    Stopping,
}

impl Error {
    /// Translates the failure of a job into an error about a Key.
    pub fn failed(key: &str, failure: Failure) -> Self {
        match failure {
            Failure::Foreign(what) => Self::Foreign { key: key.into(), what },
            Failure::NotGenuine(_) => Self::NotGenuine(key.into()),
            Failure::NoRoom => Self::LimitExceeded(format!("{key}: {failure}")),
            Failure::Token { error: TokenError::ForeignManagementKey, .. } => {
                Self::Unsupported(format!("{key}: {}", TokenError::ForeignManagementKey))
            }
            Failure::Token { error: error @ TokenError::Unsupported(_), .. } => {
                Self::Unsupported(format!("{key}: {error}"))
            }
            Failure::Token { error, .. } => Self::Token { key: key.into(), source: error },
            Failure::Profile(text) => Self::Unsupported(text),
        }
    }

    /// The D-Bus error name.
    pub fn name(&self) -> ErrorName {
        match self {
            Self::NotAuthorized { .. } => ErrorName::NotAuthorized,
            Self::InvalidArgument(_) => ErrorName::InvalidArgument,
            Self::Wizard { refusal, .. } => match refusal {
                Refusal::Step { .. } => ErrorName::InvalidStep,
                Refusal::Kind(_) => ErrorName::InvalidArgument,
                Refusal::Revision { .. } => ErrorName::StaleRevision,
            },
            Self::NotFound(_) => ErrorName::NotFound,
            Self::NotOwner { .. } | Self::NotSaver { .. } => ErrorName::NotOwner,
            Self::KeyBusy { .. } => ErrorName::KeyBusy,
            Self::KeyAbsent(_) => ErrorName::KeyAbsent,
            Self::Pair(reason) => match reason {
                Reason::NoLock => ErrorName::NoLock,
                Reason::AmbiguousIssuer => ErrorName::AmbiguousIssuer,
                Reason::ForeignCredentials => ErrorName::ForeignCredentials,
                Reason::Revoked => ErrorName::Revoked,
                Reason::Unusable => ErrorName::Unsupported,
                Reason::SameFamily => ErrorName::InvalidArgument,
                Reason::Cancelled => ErrorName::Cancelled,
                Reason::NotAnIssuer | Reason::NoIssuer | Reason::Done => ErrorName::NotAnIssuer,
            },
            Self::Foreign { .. } => ErrorName::ForeignCredentials,
            Self::Unverified(_) | Self::NotGenuine(_) | Self::Forged(_) => ErrorName::Unverified,
            Self::Orphaned(_) => ErrorName::NotAnIssuer,
            Self::Stale(_) => ErrorName::StaleRevision,
            Self::Unsupported(_) => ErrorName::Unsupported,
            Self::PinRequired(_) => ErrorName::PinRequired,
            Self::PinInvalid { .. } | Self::LastTry { .. } | Self::CodeInvalid { .. } => {
                ErrorName::PinInvalid
            }
            Self::PinBlocked(_) | Self::CodeBlocked(_) => ErrorName::PinBlocked,
            Self::LimitExceeded(_) => ErrorName::LimitExceeded,
            Self::Cancelled => ErrorName::Cancelled,
            Self::Token { .. } => ErrorName::TokenFailed,
            Self::Store(_) => ErrorName::StoreFailed,
            Self::JobLost | Self::Stopping => ErrorName::Interrupted,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let next = match refusal {
            Refusal::Step { at: Step::AwaitingKey } => "plug the missing Key in again",
            Refusal::Step { at } if at.is_end() => "start a new one",
            Refusal::Step { .. } => "look at the Step property for what comes next",
            Refusal::Kind(_) => "choose one of the Kinds property",
            Refusal::Revision { .. } => "call Review again",
        };
        Self::Wizard { refusal, next }
    }
}

fn tries(retries: u8) -> String {
    match retries {
        0 => "no tries are left".into(),
        1 => "1 try is left".into(),
        n => format!("{n} tries are left"),
    }
}

fn code_tries(retries: Option<u8>) -> String {
    retries.map(|retries| format!("; {}", tries(retries))).unwrap_or_default()
}
