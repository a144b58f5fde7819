//! When a Key may be sent a PIN, and how a refusal is logged.

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
    /// The token of a Key that may be sent a PIN: it is plugged in and not blocked. The last try is used only if the
    /// Key was re-plugged since the last refusal.
    ///
    /// # Errors
    /// [`Error::KeyAbsent`], [`Error::PinBlocked`], [`Error::LastTry`].
    pub fn may_try(&self, label: &Label) -> Result<&Device, Error> {
        let (key, device) = self.present_key(label)?;
        match key.details.retries {
            Some(0) => Err(Error::PinBlocked(key.called())),
            // A Key that was plugged in before the start may have refused a PIN since its plug.
            Some(1) if key.refused || key.plugged == Plugged::AtStart => {
                Err(Error::LastTry { key: key.called() })
            }
            _ => Ok(device),
        }
    }
}

/// The audit event for the refusal of a PIN or a recovery code, if the error is one.
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
