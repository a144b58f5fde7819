//! The closer look: what a token that looks blank is used for already. After the PIN, before any write.

use super::extensions::MetadataAnswer;
use super::management_key::protected_key;
use super::object::{Container, Retired, Slot, decode_key_history};
use super::pin::Pin;
use super::piv::{DataObject, SignAttempt};
use super::verbs::Token;
use super::{TokenError, tlv};

/// What is signed to learn whether a slot holds a key: no hash of anything.
const PROBE_DIGEST: &[u8; 32] = b"Keywright: is this slot in use?\0";
/// Keys of other types (SP 800-78-5 table 6) and how much they sign: P-384, RSA-2048, RSA-3072, RSA-4096.
const OTHER_KEYS: [(u8, usize); 4] = [(0x14, 48), (0x07, 256), (0x05, 384), (0x16, 512)];
/// What piv-authenticator answers for PRINTED before anything was written there begins with this name.
const FACTORY_NAME: &[u8] = b"Nitrokey";

/// What PRINTED holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed {
    /// Nothing, or what the firmware answers by itself.
    Factory,
    /// A management key, by the PIN-protected convention.
    ManagementKey,
    /// Something of another program.
    Other,
}

/// What is in use on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Slot 9A holds a key.
    pub access_key: bool,
    /// Slot 9C holds a key.
    pub issuing_key: bool,
    /// The certificate container of 9D is in use.
    pub key_management: bool,
    /// The certificate container of 9E is in use.
    pub card_authentication: bool,
    /// What PRINTED holds.
    pub printed: Printed,
    /// The retired containers in use, with what is in them.
    pub retired: Vec<(Retired, Vec<u8>)>,
}

impl Token {
    /// Looks what is in use. 6 commands directly after the PIN was verified, 20 more where the token has no key
    /// history that counts no retired certificate, 1 to 9 more for a slot where its firmware's answer fits an empty
    /// slot and another type of key alike.
    ///
    /// # Errors
    /// As [`Token::verify_pin`]; [`TokenError::Refused`].
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
            // Ones are below every modulus.
            match self.piv.sign_raw(slot, algorithm, &vec![1; length]) {
                Ok(SignAttempt::Signature(_)) => return Ok(true),
                // An algorithm that the token does not know, in whatever words it says so.
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

/// What PRINTED, as far as it is known, is used for.
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
