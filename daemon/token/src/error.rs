//! Why an operation on a token failed.

use super::TransportError;

/// Why an operation on a token failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No APDU could be exchanged with the token.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// SELECT found no PIV application.
    #[error("the token has no PIV application")]
    NoPiv,
    /// The token refused the PIN. Only a person may enter it again, because each refusal costs a try.
    #[error("the token refused the PIN; {retries} tries are left")]
    PinRefused {
        /// The tries that are left; never 0, which is [`TokenError::PinBlocked`].
        retries: u8,
    },
    /// The PIN has no tries left; only the recovery code (PUK) can unblock it.
    #[error("the PIN is blocked; unblock it with the recovery code")]
    PinBlocked,
    /// The token does not accept a PIN or code of this form. This costs no try.
    #[error("the token does not accept a PIN or code of this form; use 6 to 8 digits")]
    PinFormat,
    /// The token does not accept this new PIN, by a rule of its own. This costs no try.
    #[error(
        "the token does not take this new PIN; choose another one: up to 8 digits, neither repeated nor in a row"
    )]
    NewPinRefused,
    /// The token refused the recovery code (PUK).
    #[error("the token refused the recovery code{}", left(*.retries))]
    CodeRefused {
        /// The tries that are left, if the token reports them.
        retries: Option<u8>,
    },
    /// The recovery code has no tries left.
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
    /// The token's response does not follow SP 800-73-4.
    #[error("the token's answer to {command} could not be understood")]
    Malformed {
        /// The command's name.
        command: &'static str,
    },
    /// A written object did not read back unchanged.
    #[error("what was written to the token's {what} does not read back")]
    ReadBack {
        /// The object.
        what: &'static str,
    },
    /// The management key has neither the factory value nor is it stored under the PIN.
    #[error(
        "the token's management key is neither the factory's nor kept under the PIN; \
         set it back with the program that changed it"
    )]
    ForeignManagementKey,
    /// The command needs the management key, which was not authenticated in this session.
    #[error("the management key was not authenticated in this session")]
    NotAuthenticated,
    /// The token lacks something that Keywright needs.
    #[error("the token cannot be used for this: {0}")]
    Unsupported(&'static str),
    /// The operating system returned no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
    /// The session's thread could not be started, or it has ended.
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
