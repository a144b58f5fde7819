//! The PIV client: one function for each command of SP 800-73-4 part 2.
//!
//! What a token supports is learned from its responses, never from its product name or version. "Part" and section
//! numbers refer to SP 800-73-4.

use iso7816::Status;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::apdu::{Command, ExpectedLength, Response, exchange};
use super::management_key::{KeyType, ManagementKey};
use super::object::{Container, Slot};
use super::pin::{Pin, RecoveryCode};
use super::{Limits, TokenError, Transport, tlv};

/// The full application identifier (part 1, 2.2); some firmware refuses a shorter one.
const AID: [u8; 11] = [0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0];
pub(super) const PIN: u8 = 0x80;
pub(super) const PUK: u8 = 0x81;
pub(super) const MANAGEMENT: u8 = 0x9B;
const ECC_P256: u8 = 0x11;
const SIGN: &str = "GENERAL AUTHENTICATE (sign)";
/// A P-256 public key in the uncompressed form of SEC 1: 04, x, y.
pub type PublicPoint = [u8; 65];

/// The state of the PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinStatus {
    /// It is verified.
    Verified,
    /// It is not verified, and has this many tries left.
    Retries(u8),
    /// It has no tries left.
    Blocked,
}

/// The result of GET DATA.
#[derive(Debug, PartialEq, Eq)]
pub enum DataObject {
    /// The object was never written, or the token does not support it.
    Absent,
    /// The object is readable only after the PIN.
    Locked,
    /// Its contents, without the outer tag 53.
    Contents(Zeroizing<Vec<u8>>),
}

/// The result of a signature attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignAttempt {
    /// The signature, in DER.
    Signature(Vec<u8>),
    /// The slot holds no key (6985, 6400).
    NoKey,
    /// The slot holds no key, or one of another type (6A80).
    OtherKeyOrNone,
}

/// A token with the PIV application.
pub struct Piv {
    transport: Box<dyn Transport>,
    /// The reader's, or less, where the token accepts less.
    limits: Limits,
    commands: u32,
    just_verified: bool,
}

impl Piv {
    /// Creates a client. It sends nothing yet.
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Piv { limits: transport.limits(), transport, commands: 0, just_verified: false }
    }

    /// Returns the number of commands sent. A chain and its GET RESPONSE commands count as one.
    pub fn commands(&self) -> u32 {
        self.commands
    }

    /// Whether the last command was a successful VERIFY, which slot 9C requires before each signature.
    pub fn just_verified(&self) -> bool {
        self.just_verified
    }

    /// SELECT (part 2, 3.1.1).
    ///
    /// # Errors
    /// [`TokenError::NoPiv`].
    pub fn select(&mut self) -> Result<(), TokenError> {
        let answer = self.send("SELECT", 0xA4, 0x04, 0, &AID, ExpectedLength::Short)?;
        match answer.status {
            Status::Success => Ok(()),
            _ => Err(TokenError::NoPiv),
        }
    }

    /// VERIFY (part 2, 3.2.1).
    ///
    /// # Errors
    /// [`TokenError::PinRefused`], [`TokenError::PinBlocked`], [`TokenError::PinFormat`].
    pub fn verify(&mut self, pin: &Pin) -> Result<(), TokenError> {
        let answer = self.send("VERIFY", 0x20, 0, PIN, pin.padded(), ExpectedLength::Nothing)?;
        self.just_verified = answer.status == Status::Success;
        self.pin_answer("VERIFY", answer.status)
    }

    /// VERIFY without data: reads the state of the PIN. Costs no try.
    ///
    /// # Errors
    /// [`TokenError::Refused`] if the token does not support it.
    pub fn pin_status(&mut self) -> Result<PinStatus, TokenError> {
        let answer = self.send("VERIFY (query)", 0x20, 0, PIN, &[], ExpectedLength::Nothing)?;
        match answer.status {
            Status::Success => Ok(PinStatus::Verified),
            status => match tries_left(status) {
                Some(0) => Ok(PinStatus::Blocked),
                Some(retries) => Ok(PinStatus::Retries(retries)),
                None => Err(refused("VERIFY (query)", status)),
            },
        }
    }

    /// VERIFY with P1 = FF: clears the verification of the PIN.
    ///
    /// # Errors
    /// [`TokenError::Refused`] if the token does not support it.
    pub fn clear_pin(&mut self) -> Result<(), TokenError> {
        self.send("VERIFY (clear)", 0x20, 0xFF, PIN, &[], ExpectedLength::Nothing)?
            .ok("VERIFY (clear)")
            .map(drop)
    }

    /// CHANGE REFERENCE DATA for the PIN (part 2, 3.2.2).
    ///
    /// # Errors
    /// As [`Piv::verify`], for the old PIN; [`TokenError::NewPinRefused`].
    pub fn change_pin(&mut self, old: &Pin, new: &Pin) -> Result<(), TokenError> {
        let data = concatenate(old.padded(), new.padded());
        let answer = self.send("CHANGE PIN", 0x24, 0, PIN, &*data, ExpectedLength::Nothing)?;
        match answer.status {
            status if refuses_new_value(status) => Err(TokenError::NewPinRefused),
            status => self.pin_answer("CHANGE PIN", status),
        }
    }

    /// CHANGE REFERENCE DATA for the PUK.
    ///
    /// # Errors
    /// [`TokenError::CodeRefused`], [`TokenError::CodeBlocked`].
    pub fn change_puk(&mut self, old: &RecoveryCode, new: &RecoveryCode) -> Result<(), TokenError> {
        let data = concatenate(old.padded(), new.padded());
        let answer = self.send("CHANGE PUK", 0x24, 0, PUK, &*data, ExpectedLength::Nothing)?;
        code_answer("CHANGE PUK", answer.status)
    }

    /// RESET RETRY COUNTER: sets a new PIN with the PUK (part 2, 3.2.3).
    ///
    /// # Errors
    /// As [`Piv::change_puk`]; [`TokenError::NewPinRefused`].
    pub fn unblock(&mut self, code: &RecoveryCode, new: &Pin) -> Result<(), TokenError> {
        let data = concatenate(code.padded(), new.padded());
        let answer =
            self.send("RESET RETRY COUNTER", 0x2C, 0, PIN, &*data, ExpectedLength::Nothing)?;
        match answer.status {
            status if refuses_new_value(status) => Err(TokenError::NewPinRefused),
            status => code_answer("RESET RETRY COUNTER", status),
        }
    }

    /// GENERAL AUTHENTICATE, first half of the mutual authentication (part 2, A.1): requests a witness. Costs no try.
    ///
    /// Returns `None` if the token's management key has another type.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn witness(&mut self, kind: KeyType) -> Result<Option<Vec<u8>>, TokenError> {
        const NAME: &str = "GENERAL AUTHENTICATE (witness)";
        let answer = self.authenticate(NAME, kind.algorithm(), MANAGEMENT, &[(0x80, &[])])?;
        if answer.status != Status::Success {
            return Ok(None);
        }
        let witness = tlv::only(0x7C, &answer.data).and_then(|t| tlv::find(0x80, t));
        match witness {
            Some(witness) if witness.len() == kind.block() => Ok(Some(witness.to_vec())),
            _ => Err(TokenError::Malformed { command: NAME }),
        }
    }

    /// GENERAL AUTHENTICATE, second half: host and token prove to each other that they have this key. Costs no try.
    ///
    /// Returns false if the token has another key.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] if the token accepts the key but cannot prove that it has it.
    pub fn authenticate_mutually(
        &mut self,
        key: &ManagementKey,
        witness: &[u8],
    ) -> Result<bool, TokenError> {
        const NAME: &str = "GENERAL AUTHENTICATE (mutual)";
        let malformed = TokenError::Malformed { command: NAME };
        let mut challenge = vec![0; key.kind().block()];
        getrandom::fill(&mut challenge)?;
        let plain = key.decrypt(witness).ok_or(malformed.clone())?;
        let fields = [(0x80, &plain[..]), (0x81, &challenge)];
        let answer = self.authenticate(NAME, key.kind().algorithm(), MANAGEMENT, &fields)?;
        if answer.status != Status::Success {
            return Ok(false);
        }
        let response = tlv::only(0x7C, &answer.data).and_then(|t| tlv::find(0x82, t));
        let expected = key.encrypt(&challenge).ok_or(malformed.clone())?;
        match response {
            Some(response) if bool::from(response.ct_eq(&expected)) => Ok(true),
            _ => Err(malformed),
        }
    }

    /// GENERATE ASYMMETRIC KEY PAIR on P-256 (part 2, 3.3.2), with Yubico's PIN policy: once for 9A, always for 9C.
    ///
    /// The command is repeated without the policy if the token refuses it.
    pub fn generate(&mut self, slot: Slot) -> Result<PublicPoint, TokenError> {
        const NAME: &str = "GENERATE ASYMMETRIC KEY PAIR";
        let policy = match slot {
            Slot::Access => 2,
            Slot::Issuing => 3,
        };
        let with_policy = [0xAC, 6, 0x80, 1, ECC_P256, 0xAA, 1, policy];
        let mut answer =
            self.send(NAME, 0x47, 0, slot.reference(), &with_policy, ExpectedLength::Short)?;
        if matches!(answer.status, Status::IncorrectDataParameter | Status::WrongLength) {
            let plain = [0xAC, 3, 0x80, 1, ECC_P256];
            answer = self.send(NAME, 0x47, 0, slot.reference(), &plain, ExpectedLength::Short)?;
        }
        let data = answer.ok(NAME)?;
        // 7F49 { 86 point }, with a tag of two bytes.
        data.strip_prefix(&[0x7F])
            .and_then(|data| tlv::only(0x49, data))
            .and_then(|template| tlv::find(0x86, template))
            .and_then(|point| point.try_into().ok())
            .filter(|point: &PublicPoint| point[0] == 0x04)
            .ok_or(TokenError::Malformed { command: NAME })
    }

    /// GENERATE without an algorithm: tests whether the management key is authenticated. It changes nothing.
    pub fn management_authorized(&mut self) -> Result<bool, TokenError> {
        let reference = Slot::Access.reference();
        let answer =
            self.send("GENERATE (query)", 0x47, 0, reference, &[0xAC, 0], ExpectedLength::Nothing)?;
        Ok(answer.status != Status::SecurityStatusNotSatisfied)
    }

    /// GENERAL AUTHENTICATE: signs 32 bytes with a P-256 key (part 2, A.4).
    ///
    /// # Errors
    /// [`TokenError::Refused`] with status 6982 if the PIN is not verified.
    pub fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<SignAttempt, TokenError> {
        match self.sign_raw(slot, ECC_P256, digest)? {
            SignAttempt::Signature(signature) if tlv::only(0x30, &signature).is_none() => {
                Err(TokenError::Malformed { command: SIGN })
            }
            attempt => Ok(attempt),
        }
    }

    /// As [`Piv::sign`], with any algorithm of SP 800-78-5 table 6, for keys that Keywright did not make.
    ///
    /// # Errors
    /// As [`Piv::sign`].
    pub fn sign_raw(
        &mut self,
        slot: Slot,
        algorithm: u8,
        data: &[u8],
    ) -> Result<SignAttempt, TokenError> {
        let fields = [(0x82, &[][..]), (0x81, data)];
        let answer = self.authenticate(SIGN, algorithm, slot.reference(), &fields)?;
        match answer.status {
            Status::Success => tlv::only(0x7C, &answer.data)
                .and_then(|template| tlv::find(0x82, template))
                .map(|signature| SignAttempt::Signature(signature.to_vec()))
                .ok_or(TokenError::Malformed { command: SIGN }),
            Status::ConditionsOfUseNotSatisfied
            | Status::UnspecifiedNonpersistentExecutionError
            | Status::KeyReferenceNotFound
            | Status::NotFound => Ok(SignAttempt::NoKey),
            Status::IncorrectDataParameter | Status::IncorrectP1OrP2Parameter => {
                Ok(SignAttempt::OtherKeyOrNone)
            }
            status => Err(refused(SIGN, status)),
        }
    }

    /// GET DATA (part 2, 3.1.2).
    pub fn get_data(&mut self, container: Container) -> Result<DataObject, TokenError> {
        const NAME: &str = "GET DATA";
        let data = tlv::encode(0x5C, &container.tag());
        let answer = self.send(NAME, 0xCB, 0x3F, 0xFF, &data, ExpectedLength::Object)?;
        match answer.status {
            Status::Success if answer.data.is_empty() => Ok(DataObject::Absent),
            Status::Success => tlv::only(0x53, &answer.data)
                .map(|contents| DataObject::Contents(contents.to_vec().into()))
                .ok_or(TokenError::Malformed { command: NAME }),
            Status::NotFound
            | Status::IncorrectDataParameter
            | Status::FunctionNotSupported
            | Status::IncorrectP1OrP2Parameter
            | Status::KeyReferenceNotFound => Ok(DataObject::Absent),
            Status::SecurityStatusNotSatisfied => Ok(DataObject::Locked),
            status => Err(refused(NAME, status)),
        }
    }

    /// PUT DATA (part 2, 3.3.1). Some tokens encode the object anew, so only its contents read back unchanged.
    pub fn put_data(&mut self, container: Container, contents: &[u8]) -> Result<(), TokenError> {
        let tag = tlv::encode(0x5C, &container.tag());
        let data = Zeroizing::new([&tag[..], &tlv::encode(0x53, contents)].concat());
        self.send("PUT DATA", 0xDB, 0x3F, 0xFF, &data, ExpectedLength::Nothing)?
            .ok("PUT DATA")
            .map(drop)
    }

    fn authenticate(
        &mut self,
        name: &'static str,
        algorithm: u8,
        reference: u8,
        fields: &[(u8, &[u8])],
    ) -> Result<Response, TokenError> {
        // Allocated at once, because a growing vector would leave copies that are not zeroized.
        let room = fields.iter().map(|(_, value)| value.len() + 10).sum();
        let mut template = Zeroizing::new(Vec::with_capacity(room));
        for (tag, value) in fields {
            tlv::push(&mut template, *tag, value);
        }
        let data = tlv::encode(0x7C, &template);
        self.send(name, 0x87, algorithm, reference, &data, ExpectedLength::Object)
    }

    /// Interprets the status of a command with the PIN.
    fn pin_answer(&mut self, command: &'static str, status: Status) -> Result<(), TokenError> {
        match status {
            Status::Success => Ok(()),
            // Some firmware does not report the tries left. They can be queried only while the PIN is not verified.
            Status::VerificationFailed => {
                match self.clear_pin() {
                    Ok(()) | Err(TokenError::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
                match self.pin_status()? {
                    PinStatus::Retries(retries) => Err(TokenError::PinRefused { retries }),
                    PinStatus::Blocked => Err(TokenError::PinBlocked),
                    PinStatus::Verified => Err(refused(command, status)),
                }
            }
            Status::IncorrectDataParameter => Err(TokenError::PinFormat),
            status => match tries_left(status) {
                Some(0) => Err(TokenError::PinBlocked),
                Some(retries) => Err(TokenError::PinRefused { retries }),
                None => Err(refused(command, status)),
            },
        }
    }

    /// Tells the transport whether a PIN or key may stay authenticated from now on.
    pub(super) fn may_stay_authorized(&mut self, authorized: bool) {
        self.transport.may_stay_authorized(authorized);
    }

    pub(super) fn send(
        &mut self,
        name: &'static str,
        instruction: u8,
        p1: u8,
        p2: u8,
        data: &[u8],
        expected: ExpectedLength,
    ) -> Result<Response, TokenError> {
        self.commands += 1;
        self.just_verified = false;
        let command = Command { instruction, p1, p2, data, expected };
        let answer = exchange(&mut *self.transport, &mut self.limits, &command);
        match &answer {
            Ok(answer) => {
                tracing::debug!(command = name, status = %format_args!("{:04X}", answer.status.to_u16()));
            }
            Err(error) => tracing::debug!(command = name, %error),
        }
        answer
    }
}

fn concatenate(first: &[u8; 8], second: &[u8; 8]) -> Zeroizing<[u8; 16]> {
    let mut data = Zeroizing::new([0; 16]);
    data[..8].copy_from_slice(first);
    data[8..].copy_from_slice(second);
    data
}

/// The tries that a status tells: 63CX, 6983, or 630X of some older firmware, whose 6300 tells nothing.
fn tries_left(status: Status) -> Option<u8> {
    match status.to_u16() {
        0x6983 => Some(0),
        status @ (0x6301..=0x630F | 0x63C0..=0x63CF) => Some(status.to_be_bytes()[1] & 0x0F),
        _ => None,
    }
}

/// Whether the status says that a new PIN breaks a rule of the token: its length or form (6A80), its complexity (6985).
fn refuses_new_value(status: Status) -> bool {
    matches!(status, Status::IncorrectDataParameter | Status::ConditionsOfUseNotSatisfied)
}

fn refused(command: &'static str, status: Status) -> TokenError {
    TokenError::Refused { command, status: status.into() }
}

/// Interprets the status of a command with the PUK.
fn code_answer(command: &'static str, status: Status) -> Result<(), TokenError> {
    match status {
        Status::Success => Ok(()),
        Status::VerificationFailed => Err(TokenError::CodeRefused { retries: None }),
        Status::IncorrectDataParameter => Err(TokenError::PinFormat),
        status => match tries_left(status) {
            Some(0) => Err(TokenError::CodeBlocked),
            retries @ Some(_) => Err(TokenError::CodeRefused { retries }),
            None => Err(refused(command, status)),
        },
    }
}
