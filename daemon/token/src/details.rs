//! Reads the PIN state, the keys and the serial number of a token, for display.

pub use keywright_proto::words::PinState;

use super::TokenError;
use super::extensions::MetadataAnswer;
use super::object::{Container, Slot};
use super::piv::PinStatus;
use super::verbs::Token;

/// What is displayed of a token besides its identity. Readable without the PIN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The PIN's state.
    pub pin: PinState,
    /// The PIN tries that are left.
    pub retries: Option<u8>,
    /// The recovery code (PUK) has no tries left.
    pub puk_blocked: Option<bool>,
    /// The recovery code has its factory value.
    pub puk_is_factory: Option<bool>,
    /// Slot 9A holds a key. Not read from a blank token.
    pub has_access_key: Option<bool>,
    /// Slot 9C holds a key. Not read from a blank token.
    pub has_issuing_key: Option<bool>,
    /// The other slots that hold a certificate. Read from a blank token only.
    pub other_slots: Vec<&'static str>,
    /// The serial number in decimal digits, if it identifies the unit.
    pub serial: Option<String>,
}

impl Token {
    /// Reads the state of the PIN and of the recovery code, the keys and the serial number. At most 5 commands.
    ///
    /// A token with GET METADATA is asked for the PIN, the PUK, 9A, 9C and its serial number; any other for its try
    /// counter, version and serial number. If `blank`, the certificates of 9D and 9E are read instead of the keys in 9A
    /// and 9C.
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

    /// Names the slots 9D and 9E that hold a certificate. 2 commands for a blank token, none for others.
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
