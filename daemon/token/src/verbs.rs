//! The operations that Keywright needs of a token, each documented with the number of commands that it sends.
//!
//! A [`Token`] lives for one job. It remembers what it has read, so that no operation reads it again.

use zeroize::Zeroizing;

use super::management::KeyOrigin;
use super::management_key::ManagementKey;
use super::object::{
    Container, Retired, Slot, decode_card, decode_certificate, decode_guid, encode_card,
    encode_certificate, encode_chuid,
};
use super::pin::{Pin, RecoveryCode};
use super::piv::{DataObject, PinStatus, Piv, PublicPoint, SignAttempt};
use super::{TokenError, Transport};

/// The container of the family's card.
const CARD: Container = Container::Retired(Retired::FAMILY_CARD);

/// What identifies a token. Readable without the PIN, and not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The GUID of the CHUID, if there is one.
    pub guid: Option<[u8; 16]>,
    /// The contents of the certificate container of slot 9A.
    pub access_certificate: Option<Vec<u8>>,
    /// The contents of the certificate container of slot 9C.
    pub issuing_certificate: Option<Vec<u8>>,
    /// The family's card, if it was read.
    pub card: Option<Vec<u8>>,
}

/// The contents of the container of the family's card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardSlot {
    /// Nothing.
    Empty,
    /// A card.
    Card(Vec<u8>),
    /// Other data.
    Other,
}

/// The result of replacing a factory recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PukReplacement {
    /// The code had its factory value and was replaced.
    Replaced,
    /// The token does not let its code be changed.
    Fixed,
    /// The code does not have its factory value and was kept.
    Kept {
        /// The tries that are left, if the token reports them.
        retries: Option<u8>,
    },
}

/// The state of a token after it was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// The PIN or the management key is still authenticated.
    pub authorized: bool,
    /// The PIN tries that are left, if the token reports them.
    pub retries: Option<u8>,
}

/// A token that is open for one job.
pub struct Token {
    pub(super) piv: Piv,
    /// The PIN was verified in this session and not cleared since then.
    pub(super) verified: bool,
    /// The token showed that the PIN is cleared, and no PIN was sent since then.
    pub(super) pin_known_cleared: bool,
    /// The contents of PRINTED, if they are known.
    pub(super) printed: Option<DataObject>,
    /// The management key that was authenticated in this session, and its origin.
    pub(super) management: Option<(ManagementKey, KeyOrigin)>,
    /// The token may count a management key as authenticated, whatever became of the answer.
    pub(super) authorized: bool,
}

impl Token {
    /// Selects the PIV application. 1 command.
    ///
    /// # Errors
    /// [`TokenError::NoPiv`].
    pub fn open(transport: Box<dyn Transport>) -> Result<Self, TokenError> {
        let mut piv = Piv::new(transport);
        piv.select()?;
        Ok(Token {
            piv,
            verified: false,
            pin_known_cleared: false,
            printed: None,
            management: None,
            authorized: false,
        })
    }

    /// Returns the number of commands sent in this session. A chain and its GET RESPONSE commands count as one.
    pub fn commands(&self) -> u32 {
        self.piv.commands()
    }

    /// Reads the certificates of 9A and 9C and the GUID of the CHUID. 3 commands.
    pub fn read_identity(&mut self) -> Result<Identity, TokenError> {
        let access = self.read(Container::AccessCertificate)?;
        let issuing = self.read(Container::IssuingCertificate)?;
        let chuid = self.read(Container::Chuid)?;
        Ok(Identity {
            guid: chuid.and_then(|contents| decode_guid(&contents)),
            access_certificate: access.and_then(|contents| decode_certificate(&contents)),
            issuing_certificate: issuing.and_then(|contents| decode_certificate(&contents)),
            card: None,
        })
    }

    /// Reads the container of the family's card. 1 command.
    pub fn read_card(&mut self) -> Result<CardSlot, TokenError> {
        Ok(match self.piv.get_data(CARD)? {
            DataObject::Absent => CardSlot::Empty,
            DataObject::Locked => CardSlot::Other,
            DataObject::Contents(contents) if contents.is_empty() => CardSlot::Empty,
            DataObject::Contents(contents) => match decode_card(&contents) {
                Some(card) => CardSlot::Card(card.to_vec()),
                None => CardSlot::Other,
            },
        })
    }

    /// Writes the family's card and reads it back; needs the management key. 2 commands.
    ///
    /// # Errors
    /// As [`Token::write_certificate`].
    pub(crate) fn write_card(&mut self, card: &[u8]) -> Result<(), TokenError> {
        self.write(CARD, &encode_card(card))
    }

    /// Verifies the PIN. 1 command (3 if a refusal does not report the tries left).
    ///
    /// # Errors
    /// [`TokenError::PinRefused`], [`TokenError::PinBlocked`], [`TokenError::PinFormat`].
    pub fn verify_pin(&mut self, pin: &Pin) -> Result<(), TokenError> {
        self.forget_pin_state();
        self.piv.verify(pin)?;
        self.verified = true;
        Ok(())
    }

    /// Changes the PIN. 1 command (3 if a refusal does not report the tries left).
    ///
    /// # Errors
    /// As [`Token::verify_pin`], for the old PIN; [`TokenError::NewPinRefused`].
    pub fn change_pin(&mut self, old: &Pin, new: &Pin) -> Result<(), TokenError> {
        // Tokens differ in whether the new PIN counts as verified.
        self.forget_pin_state();
        self.piv.change_pin(old, new)
    }

    /// Sets a new PIN with the recovery code. 1 command.
    ///
    /// # Errors
    /// [`TokenError::CodeRefused`], [`TokenError::CodeBlocked`], [`TokenError::NewPinRefused`].
    pub fn unblock_pin(&mut self, code: &RecoveryCode, new: &Pin) -> Result<(), TokenError> {
        self.forget_pin_state();
        self.piv.unblock(code, new)
    }

    /// Marks the state of the PIN as unknown, before a command with the PIN, which may or may not take effect.
    fn forget_pin_state(&mut self) {
        (self.verified, self.pin_known_cleared) = (false, false);
        self.piv.may_stay_authorized(true);
    }

    /// Replaces the recovery code if it has its factory value. 1 command.
    ///
    /// This costs one try of the code if it has another value, so the caller records the attempt first and makes it only
    /// once.
    pub fn replace_factory_puk(
        &mut self,
        new: &RecoveryCode,
    ) -> Result<PukReplacement, TokenError> {
        match self.piv.change_puk(&RecoveryCode::factory(), new) {
            Ok(()) => Ok(PukReplacement::Replaced),
            Err(TokenError::CodeRefused { retries }) => Ok(PukReplacement::Kept { retries }),
            Err(TokenError::CodeBlocked) => Ok(PukReplacement::Kept { retries: Some(0) }),
            Err(TokenError::Refused { .. } | TokenError::PinFormat) => Ok(PukReplacement::Fixed),
            Err(error) => Err(error),
        }
    }

    /// Writes a CHUID with this GUID (see [`random_guid`](super::random_guid)) and reads it back; needs the management key.
    /// 2 commands.
    ///
    /// # Errors
    /// [`TokenError::ReadBack`], [`TokenError::NotAuthenticated`].
    pub fn write_guid(&mut self, guid: &[u8; 16]) -> Result<(), TokenError> {
        self.write(Container::Chuid, &encode_chuid(guid))
    }

    /// Generates a P-256 key on the token and replaces any key in the slot; needs the management key. 1 command (2 if the
    /// token does not support a PIN policy).
    ///
    /// # Errors
    /// [`TokenError::NotAuthenticated`]. After any other error, the new key may have replaced the old one.
    pub fn generate(&mut self, slot: Slot) -> Result<PublicPoint, TokenError> {
        self.authenticated_key()?;
        self.piv.generate(slot)
    }

    /// Signs a SHA-256 digest and returns the signature in DER, after verifying the PIN if the slot requires that.
    ///
    /// 9A: 1 command, 2 if the PIN was not verified yet. 9C: 2 commands, 1 directly after the PIN was verified.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`] if the slot holds no P-256 key; as [`Token::verify_pin`].
    pub fn sign_with(
        &mut self,
        slot: Slot,
        pin: &Pin,
        digest: &[u8; 32],
    ) -> Result<Vec<u8>, TokenError> {
        self.verify_pin_for(slot, pin)?;
        match self.piv.sign(slot, digest)? {
            SignAttempt::Signature(signature) => Ok(signature),
            SignAttempt::NoKey | SignAttempt::OtherKeyOrNone => {
                Err(TokenError::Unsupported("its slot holds no P-256 key"))
            }
        }
    }

    /// Verifies the PIN if a signature with this slot requires it now.
    pub(super) fn verify_pin_for(&mut self, slot: Slot, pin: &Pin) -> Result<(), TokenError> {
        let ready = match slot {
            Slot::Access => self.verified,
            Slot::Issuing => self.piv.just_verified(),
        };
        if ready { Ok(()) } else { self.verify_pin(pin) }
    }

    /// Writes a certificate and reads it back; needs the management key. 2 commands.
    ///
    /// # Errors
    /// [`TokenError::ReadBack`], [`TokenError::NotAuthenticated`], [`TokenError::Refused`] if the token has no room.
    pub fn write_certificate(
        &mut self,
        container: Container,
        der: &[u8],
    ) -> Result<(), TokenError> {
        self.write(container, &encode_certificate(der))
    }

    /// Reads a certificate container. 1 command.
    pub fn read_certificate(
        &mut self,
        container: Container,
    ) -> Result<Option<Vec<u8>>, TokenError> {
        Ok(self.read(container)?.and_then(|contents| decode_certificate(&contents)))
    }

    /// Clears the authentication of PIN and management key, and checks that they are cleared.
    ///
    /// 2 commands (1 more if the token cannot clear the PIN with VERIFY), none if the PIN is known to be cleared; 2 more if
    /// the management key was authenticated. The management key is not checked if only an earlier session authenticated it.
    ///
    /// # Errors
    /// [`TokenError::Transport`]. It is unknown then whether anything is still authenticated.
    pub fn clear(&mut self) -> Result<Cleared, TokenError> {
        let cleared = self.pin_known_cleared
            || match self.piv.clear_pin() {
                Ok(()) => true,
                Err(TokenError::Refused { .. }) => false,
                Err(error) => return Err(error),
            };
        self.management = None;
        let managed = std::mem::take(&mut self.authorized);
        if managed || !cleared {
            self.piv.select()?;
        }
        self.verified = false;
        self.printed = None;
        let (pin, retries) =
            if self.pin_known_cleared { (false, None) } else { self.pin_is_verified()? };
        let management = managed && self.piv.management_authorized()?;
        let authorized = pin || management;
        self.piv.may_stay_authorized(authorized);
        Ok(Cleared { authorized, retries })
    }

    /// Reads whether the PIN is verified, and the tries that are left.
    fn pin_is_verified(&mut self) -> Result<(bool, Option<u8>), TokenError> {
        match self.piv.pin_status() {
            Ok(PinStatus::Verified) => Ok((true, None)),
            Ok(PinStatus::Retries(retries)) => Ok((false, Some(retries))),
            Ok(PinStatus::Blocked) => Ok((false, Some(0))),
            // The token does not report it, so assume that it is verified.
            Err(TokenError::Refused { .. }) => Ok((true, None)),
            Err(error) => Err(error),
        }
    }

    /// Reads an object that needs no PIN; `None` if it is absent.
    pub(super) fn read(
        &mut self,
        container: Container,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, TokenError> {
        match self.piv.get_data(container)? {
            DataObject::Absent => Ok(None),
            DataObject::Contents(contents) => Ok(Some(contents)),
            DataObject::Locked => {
                Err(TokenError::Unsupported("an object that PIV makes public wants the PIN"))
            }
        }
    }

    fn write(&mut self, container: Container, contents: &[u8]) -> Result<(), TokenError> {
        self.authenticated_key()?;
        self.piv.put_data(container, contents)?;
        match self.read(container)? {
            Some(read) if *read == contents => Ok(()),
            _ => Err(TokenError::ReadBack { what: container.name() }),
        }
    }
}
