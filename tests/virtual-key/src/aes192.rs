//! A management key of type AES-192, which this firmware does not have: the factory value of newer YubiKeys.

use aes::{
    Aes192,
    cipher::{Array, BlockCipherEncrypt, KeyInit},
};
use des::TdesEde3;
use iso7816::Status;

use crate::habits::Firmware;

/// The value that every vendor's tokens leave the factory with.
const FACTORY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// An AES-192 management key.
pub struct Aes192Key(Aes192);

impl Aes192Key {
    /// Its algorithm (SP 800-78-4, table 6-2).
    pub const ALGORITHM: u8 = 0x0A;

    /// Makes a key of a value; without one, of the factory's.
    pub fn new(value: Option<[u8; 24]>) -> Self {
        Self(Aes192::new(&Array::from(value.unwrap_or(FACTORY))))
    }

    /// Encrypts a block.
    pub fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        self.0.encrypt_block(&mut block);
        block.into()
    }
}

/// Authenticates at the firmware with its factory key, which is of type 3DES (SP 800-73-4 part 2, A.1: single
/// authentication).
///
/// # Errors
/// The status with which the firmware refused it.
pub fn authenticate_with_factory_key(firmware: &mut Firmware<'_>) -> Result<(), Status> {
    let answer = firmware(&[0, 0x87, 3, 0x9B, 4, 0x7C, 2, 0x81, 0, 0])?;
    let challenge: [u8; 8] = answer
        .strip_prefix(&[0x7C, 10, 0x81, 8])
        .and_then(|challenge| challenge.try_into().ok())
        .ok_or(Status::UnspecifiedCheckingError)?;
    let mut block = Array::from(challenge);
    TdesEde3::new(&Array::from(FACTORY)).encrypt_block(&mut block);
    let header = [0, 0x87, 3, 0x9B, 12, 0x7C, 10, 0x82, 8];
    firmware(&[&header[..], &block[..]].concat()).map(drop)
}
