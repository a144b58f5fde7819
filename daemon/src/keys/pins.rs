//! When a Key may be given a PIN, and what is logged where it refuses one.

use keywright_rules::decision::Plugged;
use keywright_token::TokenError;
use keywright_token::hotplug::Device;

use super::Keys;
use crate::{
    audit::{AuditEvent, Token},
    error::Error,
    view::Label,
};

impl Keys {
    /// The token of a Key that may be given a PIN: it is plugged in and not blocked, and its last try is spent only if it was
    /// re-plugged since the last refusal.
    ///
    /// # Errors
    /// [`Error::KeyAbsent`], [`Error::PinBlocked`], [`Error::LastTry`].
    pub fn may_try(&self, label: &Label) -> Result<&Device, Error> {
        let (key, device) = self.present_key(label)?;
        match key.details.retries {
            Some(0) => Err(Error::PinBlocked(key.called())),
            // Of a Key that was there at the start nobody knows when it was refused.
            Some(1) if key.refused || key.plugged == Plugged::AtStart => {
                Err(Error::LastTry { key: key.called() })
            }
            _ => Ok(device),
        }
    }
}

/// The event of the log for a token that refused a PIN or a recovery code, where that is what its error says.
pub fn refusal(token: Token, error: &TokenError) -> Option<AuditEvent> {
    Some(match error {
        TokenError::PinRefused { retries: 0 } | TokenError::PinBlocked => {
            AuditEvent::PinBlocked { token }
        }
        TokenError::PinRefused { retries } => AuditEvent::PinRefused { token, retries: *retries },
        TokenError::CodeRefused { retries } => AuditEvent::CodeRefused { token, retries: *retries },
        TokenError::CodeBlocked => AuditEvent::CodeBlocked { token },
        _ => return None,
    })
}
