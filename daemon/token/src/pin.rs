//! PINs and recovery codes (PUKs): their form, their factory values, and random codes.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The length in a command (SP 800-73-4 part 2, 2.4.3); shorter values are padded with FF. No PIV PIN can be longer.
const PADDED: usize = 8;
/// Factory PINs: the first on YubiKey, Nitrokey and CanoKey, the others on other PIV cards.
const FACTORY_PINS: [&[u8]; 4] = [b"123456", b"12345678", b"000000", b"00000000"];
const FACTORY_CODE: &[u8; PADDED] = b"12345678";

/// Why a value is not accepted as a PIN or recovery code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinFormat {
    /// Shorter than 6 or longer than 8 bytes.
    #[error("it must have {} to {} characters", Pin::MIN_LENGTH, Pin::MAX_LENGTH)]
    Length,
    /// It contains FF, which is the padding.
    #[error("it must not contain the byte FF")]
    Padding,
    /// A new PIN has other characters than digits, which some tokens refuse.
    #[error("a new PIN must consist of decimal digits")]
    NotDigits,
    /// A new PIN is a known factory value.
    #[error("a new PIN must not be a factory value")]
    Factory,
}

/// A PIN that a person entered. It is zeroized when dropped, and `Debug` does not print it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Pin(Secret);

/// The code that unblocks a PIN (PIV: PUK). It is zeroized when dropped, and `Debug` does not print it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryCode(Secret);

impl Pin {
    /// The shortest PIN or recovery code, in bytes.
    pub const MIN_LENGTH: usize = 6;
    /// The longest one.
    pub const MAX_LENGTH: usize = PADDED;

    /// Creates a PIN of any characters, for a token that already has it.
    ///
    /// # Errors
    /// [`PinFormat::Length`], [`PinFormat::Padding`].
    pub fn new(bytes: &[u8]) -> Result<Self, PinFormat> {
        Secret::new(bytes).map(Pin)
    }

    /// Whether this is a factory PIN.
    pub fn is_factory(&self) -> bool {
        FACTORY_PINS.contains(&self.0.bytes())
    }

    /// Checks whether this may become the new PIN of a token: only digits, which every token accepts, and no factory value.
    ///
    /// # Errors
    /// [`PinFormat::NotDigits`], [`PinFormat::Factory`].
    pub fn check_new(&self) -> Result<(), PinFormat> {
        if !self.0.bytes().iter().all(u8::is_ascii_digit) {
            return Err(PinFormat::NotDigits);
        }
        if self.is_factory() { Err(PinFormat::Factory) } else { Ok(()) }
    }

    pub(super) fn padded(&self) -> &[u8; PADDED] {
        &self.0.padded
    }
}

impl RecoveryCode {
    /// Creates a recovery code that a person entered.
    ///
    /// # Errors
    /// [`PinFormat::Length`], [`PinFormat::Padding`].
    pub fn new(bytes: &[u8]) -> Result<Self, PinFormat> {
        Secret::new(bytes).map(RecoveryCode)
    }

    /// Returns the factory value.
    pub(crate) fn factory() -> Self {
        RecoveryCode(Secret { padded: *FACTORY_CODE, length: PADDED })
    }

    /// Creates a code of eight random digits that is not the factory value.
    pub fn random() -> Result<Self, getrandom::Error> {
        loop {
            let mut digits = Zeroizing::new([0; PADDED]);
            for digit in digits.iter_mut() {
                *digit = b'0' + random_below_ten()?;
            }
            if *digits != *FACTORY_CODE {
                return Ok(RecoveryCode(Secret { padded: *digits, length: PADDED }));
            }
        }
    }

    /// Returns the characters, for showing them once to a person.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    pub(super) fn padded(&self) -> &[u8; PADDED] {
        &self.0.padded
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode")
    }
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Secret {
    padded: [u8; PADDED],
    length: usize,
}

impl Secret {
    fn new(bytes: &[u8]) -> Result<Self, PinFormat> {
        if !(Pin::MIN_LENGTH..=PADDED).contains(&bytes.len()) {
            return Err(PinFormat::Length);
        }
        if bytes.contains(&0xFF) {
            return Err(PinFormat::Padding);
        }
        let mut padded = [0xFF; PADDED];
        padded[..bytes.len()].copy_from_slice(bytes);
        Ok(Secret { padded, length: bytes.len() })
    }

    fn bytes(&self) -> &[u8] {
        &self.padded[..self.length]
    }
}

fn random_below_ten() -> Result<u8, getrandom::Error> {
    loop {
        let mut byte = [0];
        getrandom::fill(&mut byte)?;
        // 250 is a multiple of ten, so every digit is equally likely.
        if byte[0] < 250 {
            return Ok(byte[0] % 10);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_checked() {
        for (bytes, expected) in [
            (&b""[..], Err(PinFormat::Length)),
            (b"12345", Err(PinFormat::Length)),
            (b"123456789", Err(PinFormat::Length)),
            (b"12345\xFF", Err(PinFormat::Padding)),
            (b"246810", Ok(*b"246810\xFF\xFF")),
            (b"2468101", Ok(*b"2468101\xFF")),
            (b"24681012", Ok(*b"24681012")),
            (b"pass-1", Ok(*b"pass-1\xFF\xFF")),
        ] {
            assert_eq!(Pin::new(bytes).map(|pin| *pin.padded()), expected, "{bytes:?}");
            assert_eq!(RecoveryCode::new(bytes).map(|code| *code.padded()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn new_pins_are_digits_and_not_factory_values() {
        for (bytes, expected) in [
            (&b"246810"[..], Ok(())),
            (b"24681012", Ok(())),
            (b"24681a", Err(PinFormat::NotDigits)),
            (b"123456", Err(PinFormat::Factory)),
            (b"12345678", Err(PinFormat::Factory)),
            (b"000000", Err(PinFormat::Factory)),
            (b"1234567", Ok(())),
        ] {
            assert_eq!(Pin::new(bytes).unwrap().check_new(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn random_codes_are_digits_and_differ() {
        let codes: Vec<_> = (0..50).map(|_| RecoveryCode::random().unwrap()).collect();
        assert!(codes.iter().all(|c| c.as_bytes().len() == 8));
        assert!(codes.iter().all(|c| c.as_bytes().iter().all(u8::is_ascii_digit)));
        let different: std::collections::HashSet<_> = codes.iter().map(|c| *c.padded()).collect();
        assert!(different.len() > 45);
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert_eq!(format!("{:?}", Pin::new(b"246810").unwrap()), "Pin");
        assert_eq!(format!("{:?}", RecoveryCode::factory()), "RecoveryCode");
    }
}
