//! What is shown of a token beside its identity: PIN state, keys, serial number.

pub use keywright_proto::words::PinState;

use super::TokenError;
use super::extensions::MetadataAnswer;
use super::object::{Container, Slot};
use super::piv::PinStatus;
use super::verbs::Token;

/// What is shown of a token beside its identity. Readable without the PIN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The PIN's state.
    pub pin: PinState,
    /// PIN tries that are left.
    pub retries: Option<u8>,
    /// No try of the recovery code (PUK) is left.
    pub puk_blocked: Option<bool>,
    /// The recovery code is still the factory's.
    pub puk_is_factory: Option<bool>,
    /// Slot 9A holds a key. Not asked of a blank token.
    pub has_access_key: Option<bool>,
    /// Slot 9C holds a key. Not asked of a blank token.
    pub has_issuing_key: Option<bool>,
    /// Of a blank token: which other slots hold a certificate.
    pub other_slots: Vec<&'static str>,
    /// The serial number, in decimal digits, where it is the unit's own.
    pub serial: Option<String>,
}

impl Token {
    /// PIN and recovery code state, keys and serial number. At most 5 commands: a token that answers GET METADATA is
    /// asked for the PIN, the PUK, 9A, 9C and its serial number; any other for its try counter, version and serial
    /// number. One that looks blank is asked for the certificates of 9D and 9E in place of keys in 9A and 9C.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn read_details(&mut self, blank: bool) -> Result<Details, TokenError> {
        let MetadataAnswer::Known(pin) = self.piv.pin_metadata()? else {
            let details = self.read_details_without_metadata()?;
            return Ok(Details { other_slots: self.other_slots(blank)?, ..details });
        };
        let puk = match self.piv.puk_metadata()? {
            MetadataAnswer::Known(puk) => puk,
            _ => Default::default(),
        };
        Ok(Details {
            pin: match (pin.retries, pin.factory) {
                (Some(0), _) => PinState::Blocked,
                (_, Some(true)) => PinState::Default,
                (_, Some(false)) => PinState::Set,
                (_, None) => PinState::Unknown,
            },
            retries: pin.retries,
            puk_blocked: puk.retries.map(|retries| retries == 0),
            puk_is_factory: puk.factory,
            has_access_key: self.has_key(Slot::Access, blank)?,
            has_issuing_key: self.has_key(Slot::Issuing, blank)?,
            other_slots: self.other_slots(blank)?,
            serial: self.piv.serial()?,
        })
    }

    fn has_key(&mut self, slot: Slot, blank: bool) -> Result<Option<bool>, TokenError> {
        if blank {
            return Ok(None);
        }
        Ok(match self.piv.key_metadata(slot)? {
            MetadataAnswer::Known(_) => Some(true),
            MetadataAnswer::Empty => Some(false),
            MetadataAnswer::Silent => None,
        })
    }

    /// Certificates that need no PIN to be seen. 2 commands of a blank token, none of others.
    fn other_slots(&mut self, blank: bool) -> Result<Vec<&'static str>, TokenError> {
        let mut used = Vec::new();
        for (name, container) in [
            ("slot 9D", Container::KeyManagementCertificate),
            ("slot 9E", Container::CardAuthenticationCertificate),
        ] {
            if !blank {
                continue;
            }
            match self.read_certificate(container) {
                Ok(Some(_)) => used.push(name),
                Ok(None) | Err(TokenError::Refused { .. } | TokenError::Unsupported(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }

    fn read_details_without_metadata(&mut self) -> Result<Details, TokenError> {
        let (pin, retries) = match self.piv.pin_status() {
            Ok(PinStatus::Blocked) => (PinState::Blocked, Some(0)),
            Ok(PinStatus::Retries(retries)) => (PinState::Unknown, Some(retries)),
            Ok(PinStatus::Verified) | Err(TokenError::Refused { .. }) => (PinState::Unknown, None),
            Err(error) => return Err(error),
        };
        let serial = if self.piv.serial_is_shared()? { None } else { self.piv.serial()? };
        Ok(Details { pin, retries, serial, ..Details::default() })
    }
}
