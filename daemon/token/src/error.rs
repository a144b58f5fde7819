//! Why a job on a token stopped.

use super::TransportError;

/// Why a verb did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing could be exchanged with the token.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// SELECT found no PIV application.
    #[error("the token has no PIV application")]
    NoPiv,
    /// The token refused the PIN; a person has to give it again.
    #[error("the token refused the PIN; {retries} tries are left")]
    PinRefused {
        /// Tries that are left; never 0, which is [`TokenError::PinBlocked`].
        retries: u8,
    },
    /// No PIN try is left: only the recovery code (PUK) helps.
    #[error("the PIN is blocked; unblock it with the recovery code")]
    PinBlocked,
    /// The token does not take such a PIN or code. This costs no try.
    #[error("the token does not accept a PIN or code of this form; use 6 to 8 digits")]
    PinFormat,
    /// The token refused the recovery code (PUK).
    #[error("the token refused the recovery code{}", left(*.retries))]
    CodeRefused {
        /// Tries that are left, where the token says so.
        retries: Option<u8>,
    },
    /// No try of the recovery code is left.
    #[error("the recovery code is blocked; only a reset of the PIV application helps")]
    CodeBlocked,
    /// The token refused a command.
    #[error("the token refused {command} with status {status:04X}")]
    Refused {
        /// The command's name in SP 800-73-4.
        command: &'static str,
        /// The status word.
        status: u16,
    },
    /// The token's answer is not what SP 800-73-4 describes.
    #[error("the token's answer to {command} could not be understood")]
    Malformed {
        /// The command's name.
        command: &'static str,
    },
    /// What was written does not read back.
    #[error("what was written to the token's {what} does not read back")]
    ReadBack {
        /// The object.
        what: &'static str,
    },
    /// The management key is neither the factory's nor kept under the PIN.
    #[error(
        "the token's management key is neither the factory's nor kept under the PIN; \
         set it back with the program that changed it"
    )]
    ForeignManagementKey,
    /// A command needs the management key, and nobody has authenticated with it.
    #[error("the management key was not authenticated in this session")]
    NotAuthenticated,
    /// The token cannot do what the product needs.
    #[error("the token cannot be used for this: {0}")]
    Unsupported(&'static str),
    /// The operating system gave no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
    /// The session's thread could not be started or has ended.
    #[error("the session with the token has ended")]
    SessionEnded,
}

fn left(retries: Option<u8>) -> String {
    retries.map(|n| format!("; {n} tries are left")).unwrap_or_default()
}

impl From<getrandom::Error> for TokenError {
    fn from(_: getrandom::Error) -> Self {
        TokenError::NoRandomness
    }
}
