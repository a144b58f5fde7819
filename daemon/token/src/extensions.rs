//! Commands outside SP 800-73-4: Yubico's extensions to PIV, which other firmware supports in part.
//!
//! Source: developers.yubico.com/PIV/Introduction/Yubico_extensions.html.

use iso7816::Status;
use zeroize::Zeroizing;

use super::apdu::ExpectedLength;
use super::management_key::ManagementKey;
use super::object::Slot;
use super::piv::{MANAGEMENT, PIN, PUK, Piv};
use super::{TokenError, tlv};

const SET_MANAGEMENT_KEY: u8 = 0xFF;
const GET_METADATA: u8 = 0xF7;
const GET_SERIAL: u8 = 0xF8;
const GET_VERSION: u8 = 0xFD;
/// The version and serial number that every unit with piv-authenticator reports.
const SAME_VERSION: [u8; 3] = [6, 6, 6];
const SAME_SERIAL: [u8; 4] = [0x00, 0x52, 0xF7, 0x43];

/// The response to GET METADATA for a PIN, PUK or key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// It has its factory value.
    pub factory: Option<bool>,
    /// The tries that are left.
    pub retries: Option<u8>,
    /// It names an algorithm or a public key.
    pub key: bool,
}

/// The result of GET METADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataAnswer {
    /// The token does not support the command, or its response is empty.
    Silent,
    /// The slot holds no key.
    Empty,
    /// The metadata.
    Known(Metadata),
}

impl Piv {
    /// SET MANAGEMENT KEY, without touch. P2 is FF, the only value that every firmware accepts.
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

    /// SET MANAGEMENT KEY without data: whether the token has the command. It changes nothing.
    pub fn sets_management_key(&mut self) -> Result<bool, TokenError> {
        const NAME: &str = "SET MANAGEMENT KEY (query)";
        let answer =
            self.send(NAME, SET_MANAGEMENT_KEY, 0xFF, 0xFF, &[], ExpectedLength::Nothing)?;
        let missing = [Status::InstructionNotSupportedOrInvalid, Status::ClassNotSupported];
        Ok(!missing.contains(&answer.status))
    }

    /// GET METADATA for the PIN.
    pub fn pin_metadata(&mut self) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (PIN)", PIN)
    }

    /// GET METADATA for the PUK.
    pub fn puk_metadata(&mut self) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (PUK)", PUK)
    }

    /// GET METADATA for the key in a slot. Some firmware tells policy and origin of an empty slot, too.
    pub fn key_metadata(&mut self, slot: Slot) -> Result<MetadataAnswer, TokenError> {
        self.metadata("GET METADATA (key)", slot.reference()).map(|answer| match answer {
            MetadataAnswer::Known(Metadata { key: false, .. }) => MetadataAnswer::Empty,
            answer => answer,
        })
    }

    /// GET VERSION; `None` if the token does not support it.
    pub fn version(&mut self) -> Result<Option<[u8; 3]>, TokenError> {
        let answer = self.send("GET VERSION", GET_VERSION, 0, 0, &[], ExpectedLength::Short)?;
        Ok(match answer.status {
            Status::Success => answer.data[..].try_into().ok(),
            _ => None,
        })
    }

    /// GET SERIAL: the serial number in decimal digits; `None` if the token has none or shares it with every other unit.
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

    /// Whether every unit of this product reports the same serial number.
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
                    key: [0x01, 0x04].iter().any(|tag| tlv::find(*tag, &answer.data).is_some()),
                })
            }
            Status::KeyReferenceNotFound | Status::NotFound => MetadataAnswer::Empty,
            _ => MetadataAnswer::Silent,
        })
    }
}
