//! Commands outside SP 800-73-4 that Yubico introduced and other firmware shares in part.

use iso7816::Status;
use zeroize::Zeroizing;

use super::apdu::ExpectedLength;
use super::management_key::ManagementKey;
use super::object::Slot;
use super::piv::{MANAGEMENT, PIN, PUK, Piv};
use super::{TokenError, tlv};

/// Instructions outside the standard (developers.yubico.com/PIV/Introduction/Yubico_extensions.html).
const SET_MANAGEMENT_KEY: u8 = 0xFF;
const GET_METADATA: u8 = 0xF7;
const GET_SERIAL: u8 = 0xF8;
const GET_VERSION: u8 = 0xFD;
/// Version and serial number that piv-authenticator answers on every unit.
const SAME_VERSION: [u8; 3] = [6, 6, 6];
const SAME_SERIAL: [u8; 4] = [0x00, 0x52, 0xF7, 0x43];

/// What GET METADATA says of a PIN, code or key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Still the factory's value.
    pub factory: Option<bool>,
    /// Tries that are left.
    pub retries: Option<u8>,
}

/// The answer to GET METADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataAnswer {
    /// The token has no such command, or answers it with nothing.
    Silent,
    /// There is no key in this slot.
    Empty,
    /// What it says.
    Known(Metadata),
}

impl Piv {
    /// SET MANAGEMENT KEY, without touch. P2 = FF: the one value that every firmware takes.
    ///
    /// # Errors
    /// [`TokenError::Refused`].
    pub fn set_management_key(&mut self, key: &ManagementKey) -> Result<(), TokenError> {
        const NAME: &str = "SET MANAGEMENT KEY";
        let kind = key.kind();
        // At most 32 bytes: the cast is exact.
        let header = [kind.algorithm(), MANAGEMENT, kind.length() as u8];
        let data = Zeroizing::new([&header[..], key.bytes()].concat());
        self.send(NAME, SET_MANAGEMENT_KEY, 0xFF, 0xFF, &data, ExpectedLength::Nothing)?
            .ok(NAME)
            .map(drop)
    }

    /// GET METADATA of the PIN.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn pin_metadata(&mut self) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (PIN)", PIN)
    }

    /// GET METADATA of the PUK.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn puk_metadata(&mut self) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (PUK)", PUK)
    }

    /// GET METADATA of a key.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn key_metadata(&mut self, slot: Slot) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (key)", slot.reference())
    }

    /// GET VERSION; `None` where the token has no such command.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn version(&mut self) -> Result<Option<[u8; 3]>, TokenError> {
        let answer = self.send("GET VERSION", GET_VERSION, 0, 0, &[], ExpectedLength::Short)?;
        Ok(match answer.status {
            Status::Success => answer.data[..].try_into().ok(),
            _ => None,
        })
    }

    /// GET SERIAL: the token's serial number in decimal digits; `None` where it has none, or one that every unit has.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn serial(&mut self) -> Result<Option<String>, TokenError> {
        let answer = self.send("GET SERIAL", GET_SERIAL, 0, 0, &[], ExpectedLength::Short)?;
        let serial = <[u8; 4]>::try_from(&answer.data[..]);
        Ok(match (answer.status, serial) {
            (Status::Success, Ok(serial)) if serial != SAME_SERIAL && serial != [0; 4] => {
                Some(u32::from_be_bytes(serial).to_string())
            }
            _ => None,
        })
    }

    /// Whether every unit of this product has the same serial number.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn serial_is_shared(&mut self) -> Result<bool, TokenError> {
        Ok(self.version()? == Some(SAME_VERSION))
    }

    fn metadata(
        &mut self,
        name: &'static str,
        reference: u8,
    ) -> Result<MetadataAnswer, TokenError> {
        let answer = self.send(name, GET_METADATA, 0, reference, &[], ExpectedLength::Object)?;
        Ok(match answer.status {
            Status::Success if !answer.data.is_empty() => {
                let one = |bytes: Option<&[u8]>| bytes.and_then(|b| b.last().copied());
                MetadataAnswer::Known(Metadata {
                    factory: one(tlv::find(0x05, &answer.data)).map(|flag| flag != 0),
                    retries: one(tlv::find(0x06, &answer.data)),
                })
            }
            Status::KeyReferenceNotFound | Status::NotFound => MetadataAnswer::Empty,
            _ => MetadataAnswer::Silent,
        })
    }
}
