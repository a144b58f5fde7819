//! Finds out whether a token that looks blank is used by another program. Runs after the PIN and before any write.

use super::extensions::MetadataAnswer;
use super::management_key::protected_key;
use super::object::{Container, Retired, Slot, decode_key_history};
use super::pin::Pin;
use super::piv::{DataObject, SignAttempt};
use super::verbs::Token;
use super::{TokenError, tlv};

/// The "digest" that a slot is asked to sign to find out whether it holds a key. It is not the hash of any document.
const PROBE_DIGEST: &[u8; 32] = b"Keywright: is this slot in use?\0";
/// Algorithms of other keys (SP 800-78-5 table 6) and the length that they sign: P-384, RSA-2048, RSA-3072, RSA-4096.
const OTHER_KEYS: [(u8, usize); 4] = [(0x14, 48), (0x07, 256), (0x05, 384), (0x16, 512)];
/// The name at the beginning of PRINTED as piv-authenticator reports it before it is written for the first time.
const FACTORY_NAME: &[u8] = b"Nitrokey";

/// What PRINTED holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed {
    /// Nothing, or the firmware's own value.
    Factory,
    /// A management key (Yubico's PIN-protected convention).
    ManagementKey,
    /// Data of another program.
    Other,
}

/// The slots and objects in use on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Slot 9A holds a key.
    pub access_key: bool,
    /// Slot 9C holds a key.
    pub issuing_key: bool,
    /// The certificate container of slot 9D is in use.
    pub key_management: bool,
    /// The certificate container of slot 9E is in use.
    pub card_authentication: bool,
    /// What PRINTED holds.
    pub printed: Printed,
    /// The retired containers in use, with their contents.
    pub retired: Vec<(Retired, Vec<u8>)>,
}

impl Token {
    /// Finds out what is in use on the token.
    ///
    /// 6 commands directly after the PIN was verified, 20 more unless the key history says that there is no retired
    /// certificate, 1 to 9 more for a slot whose response does not tell an empty slot from another type of key.
    ///
    /// # Errors
    /// As [`Token::verify_pin`].
    pub fn read_usage(&mut self, pin: &Pin) -> Result<Usage, TokenError> {
        let issuing_key = self.holds_key(Slot::Issuing, pin)?;
        let access_key = self.holds_key(Slot::Access, pin)?;
        let key_management = self.read_certificate(Container::KeyManagementCertificate)?.is_some();
        let card_authentication =
            self.read_certificate(Container::CardAuthenticationCertificate)?.is_some();
        self.read_printed()?;
        Ok(Usage {
            access_key,
            issuing_key,
            key_management,
            card_authentication,
            printed: printed_use(self.printed.as_ref()),
            retired: self.retired_certificates()?,
        })
    }

    fn holds_key(&mut self, slot: Slot, pin: &Pin) -> Result<bool, TokenError> {
        self.verify_pin_for(slot, pin)?;
        match self.piv.sign(slot, PROBE_DIGEST)? {
            SignAttempt::Signature(_) => Ok(true),
            SignAttempt::NoKey => Ok(false),
            SignAttempt::OtherKeyOrNone => match self.piv.key_metadata(slot)? {
                MetadataAnswer::Known(_) => Ok(true),
                MetadataAnswer::Empty => Ok(false),
                MetadataAnswer::Silent => self.holds_other_key(slot, pin),
            },
        }
    }

    fn holds_other_key(&mut self, slot: Slot, pin: &Pin) -> Result<bool, TokenError> {
        for (algorithm, length) in OTHER_KEYS {
            self.verify_pin_for(slot, pin)?;
            // A number of ones is below every RSA modulus.
            match self.piv.sign_raw(slot, algorithm, &vec![1; length]) {
                Ok(SignAttempt::Signature(_)) => return Ok(true),
                // The token does not support the algorithm; the status differs between firmwares.
                Ok(_) | Err(TokenError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn retired_certificates(&mut self) -> Result<Vec<(Retired, Vec<u8>)>, TokenError> {
        let history = self.read(Container::KeyHistory)?;
        if history.and_then(|contents| decode_key_history(&contents)) == Some(0) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for retired in Retired::all() {
            if let Some(der) = self.read_certificate(Container::Retired(retired))? {
                found.push((retired, der));
            }
        }
        Ok(found)
    }
}

/// Returns what PRINTED is used for, as far as it was read.
pub(super) fn printed_use(printed: Option<&DataObject>) -> Printed {
    match printed {
        Some(DataObject::Absent) => Printed::Factory,
        Some(DataObject::Contents(contents)) if contents.is_empty() => Printed::Factory,
        Some(DataObject::Contents(contents)) if protected_key(contents).is_some() => {
            Printed::ManagementKey
        }
        Some(DataObject::Contents(contents)) => match tlv::find(0x01, contents) {
            Some(name) if name.starts_with(FACTORY_NAME) => Printed::Factory,
            _ => Printed::Other,
        },
        Some(DataObject::Locked) | None => Printed::Other,
    }
}
