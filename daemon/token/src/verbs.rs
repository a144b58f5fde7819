//! What the product asks of a token, each with the number of commands it costs.
//!
//! A [`Token`] lives for one job. It remembers what it has learnt, so that no verb asks again.

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

/// Where the family's card is.
const CARD: Container = Container::Retired(Retired::FAMILY_CARD);

/// What tells one token from another. Readable without the PIN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The CHUID's GUID, where there is one.
    pub guid: Option<[u8; 16]>,
    /// What the certificate container of 9A holds; not checked.
    pub access_certificate: Option<Vec<u8>>,
    /// What the certificate container of 9C holds; not checked.
    pub issuing_certificate: Option<Vec<u8>>,
    /// The family's card, where it was asked for; not checked.
    pub card: Option<Vec<u8>>,
}

/// What the container of the family's card holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardSlot {
    /// Nothing.
    Empty,
    /// A card.
    Card(Vec<u8>),
    /// Something else.
    Other,
}

/// What became of the offer of the factory recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PukReplacement {
    /// It was the factory's; the new one is in force.
    Replaced,
    /// It is not the factory's, and stays.
    Kept {
        /// Tries that are left, where the token says so.
        retries: Option<u8>,
    },
}

/// What a token answers when it is asked whether it was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// Something still counts as authenticated.
    pub authorized: bool,
    /// PIN tries that are left, where the token says so.
    pub retries: Option<u8>,
}

/// A token that is open for one job.
pub struct Token {
    pub(super) piv: Piv,
    /// The PIN was verified in this session and not cleared since.
    pub(super) verified: bool,
    /// The PIN was cleared, the token showed that, and no PIN was presented since.
    pub(super) pin_known_cleared: bool,
    /// PRINTED, once it was read after the PIN or written.
    pub(super) printed: Option<DataObject>,
    /// The management key that was authenticated in this session, and where it comes from.
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

    /// How many commands this session has sent; GET RESPONSE and chained pieces apart.
    pub fn commands(&self) -> u32 {
        self.piv.commands()
    }

    /// Certificates of 9A and 9C, and the CHUID's GUID. 3 commands.
    ///
    /// # Errors
    /// As [`Piv::get_data`].
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

    /// What the container of the family's card holds. 1 command.
    ///
    /// # Errors
    /// As [`Piv::get_data`].
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

    /// Writes the family's card and reads it back. 2 commands; needs the management key.
    ///
    /// # Errors
    /// As [`Token::write_certificate`].
    pub fn write_card(&mut self, card: &[u8]) -> Result<(), TokenError> {
        self.write(CARD, &encode_card(card))
    }

    /// Presents the PIN. 1 command (3 where a refusal does not tell the tries that are left).
    ///
    /// # Errors
    /// [`TokenError::PinRefused`], [`TokenError::PinBlocked`], [`TokenError::PinFormat`].
    pub fn verify_pin(&mut self, pin: &Pin) -> Result<(), TokenError> {
        self.forget_pin_state();
        self.piv.verify(pin)?;
        self.verified = true;
        Ok(())
    }

    /// Sets a new PIN. 1 command (3 where a refusal does not tell the tries that are left).
    ///
    /// # Errors
    /// As [`Token::verify_pin`], about the old PIN.
    pub fn change_pin(&mut self, old: &Pin, new: &Pin) -> Result<(), TokenError> {
        // Tokens differ on whether the new PIN counts as verified.
        self.forget_pin_state();
        self.piv.change_pin(old, new)
    }

    /// Sets a new recovery code. 1 command.
    ///
    /// # Errors
    /// [`TokenError::CodeRefused`], [`TokenError::CodeBlocked`].
    pub fn change_puk(&mut self, old: &RecoveryCode, new: &RecoveryCode) -> Result<(), TokenError> {
        self.piv.change_puk(old, new)
    }

    /// Sets a new PIN by the recovery code. 1 command.
    ///
    /// # Errors
    /// As [`Token::change_puk`].
    pub fn unblock_pin(&mut self, code: &RecoveryCode, new: &Pin) -> Result<(), TokenError> {
        self.forget_pin_state();
        self.piv.unblock(code, new)
    }

    /// A PIN is about to be presented: whatever becomes of that, nothing is known of the PIN's state.
    fn forget_pin_state(&mut self) {
        (self.verified, self.pin_known_cleared) = (false, false);
        self.piv.may_stay_authorized(true);
    }

    /// Replaces the recovery code where it is the factory's. 1 command, and one try of the code where it is not: the
    /// caller records the offer before making it.
    ///
    /// # Errors
    /// [`TokenError::Transport`], [`TokenError::Refused`].
    pub fn replace_factory_puk(
        &mut self,
        new: &RecoveryCode,
    ) -> Result<PukReplacement, TokenError> {
        match self.piv.change_puk(&RecoveryCode::factory(), new) {
            Ok(()) => Ok(PukReplacement::Replaced),
            Err(TokenError::CodeRefused { retries }) => Ok(PukReplacement::Kept { retries }),
            Err(TokenError::CodeBlocked) => Ok(PukReplacement::Kept { retries: Some(0) }),
            Err(error) => Err(error),
        }
    }

    /// Gives the token this GUID (see [`random_guid`](super::random_guid)), and reads it back. 2 commands; needs the
    /// management key.
    ///
    /// # Errors
    /// [`TokenError::ReadBack`], [`TokenError::NotAuthenticated`].
    pub fn write_guid(&mut self, guid: &[u8; 16]) -> Result<(), TokenError> {
        self.write(Container::Chuid, &encode_chuid(guid))
    }

    /// Makes a P-256 key on the token, in place of the one that the slot may hold. 1 command (2 where the token knows
    /// no PIN policy); needs the management key.
    ///
    /// # Errors
    /// [`TokenError::Refused`], [`TokenError::NotAuthenticated`]. After a failed command the new key may be in force.
    pub fn generate(&mut self, slot: Slot) -> Result<PublicPoint, TokenError> {
        self.authenticated_key()?;
        self.piv.generate(slot)
    }

    /// Signs a SHA-256 digest; the signature is DER. 9A: 1 command, 2 where the PIN was not verified yet. 9C: 2
    /// commands, 1 directly after the PIN was verified.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`] where the slot holds no P-256 key; as [`Token::verify_pin`].
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

    /// Presents the PIN where a signature of this slot needs it.
    pub(super) fn verify_pin_for(&mut self, slot: Slot, pin: &Pin) -> Result<(), TokenError> {
        let ready = match slot {
            Slot::Access => self.verified,
            Slot::Issuing => self.piv.just_verified(),
        };
        if ready { Ok(()) } else { self.verify_pin(pin) }
    }

    /// Writes a certificate and reads it back. 2 commands; needs the management key.
    ///
    /// # Errors
    /// [`TokenError::ReadBack`], [`TokenError::NotAuthenticated`], [`TokenError::Refused`] where the token has no
    /// room.
    pub fn write_certificate(
        &mut self,
        container: Container,
        der: &[u8],
    ) -> Result<(), TokenError> {
        self.write(container, &encode_certificate(der))
    }

    /// What a certificate container holds. 1 command.
    ///
    /// # Errors
    /// As [`Piv::get_data`].
    pub fn read_certificate(
        &mut self,
        container: Container,
    ) -> Result<Option<Vec<u8>>, TokenError> {
        Ok(self.read(container)?.and_then(|contents| decode_certificate(&contents)))
    }

    /// Takes back every authorization of this session and asks the token whether that worked. 2 commands (1 more where
    /// the token cannot clear the PIN by VERIFY), none where it was seen to be cleared already; 2 more where the
    /// management key was authenticated. What an earlier session left authorized is not asked for.
    ///
    /// # Errors
    /// [`TokenError::Transport`]: whether anything stays authorized is then not known.
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

    /// Whether the PIN counts as verified, and the tries that are left.
    fn pin_is_verified(&mut self) -> Result<(bool, Option<u8>), TokenError> {
        match self.piv.pin_status() {
            Ok(PinStatus::Verified) => Ok((true, None)),
            Ok(PinStatus::Retries(retries)) => Ok((false, Some(retries))),
            Ok(PinStatus::Blocked) => Ok((false, Some(0))),
            // It cannot be asked: assume the worst.
            Err(TokenError::Refused { .. }) => Ok((true, None)),
            Err(error) => Err(error),
        }
    }

    /// The contents of an object that needs no PIN; `None` where there are none.
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
