//! What the product asks of a token, each with the number of commands it costs.
//!
//! A [`Token`] lives for one job. It remembers what it has learnt, so that no verb asks again.

use zeroize::Zeroizing;

use super::management_key::{ADMIN_DATA, KeyType, ManagementKey, protected_key};
use super::object::{
    Container, Slot, decode_certificate, decode_guid, encode_certificate, encode_chuid,
};
use super::pin::{Pin, RecoveryCode};
use super::piv::{Attempt, MetadataAnswer, Object, PinStatus, Piv, PublicPoint};
use super::usage::{Printed, printed_use};
use super::{TokenError, Transport};

/// What tells one token from another. Readable without the PIN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The CHUID's GUID, where there is one.
    pub guid: Option<[u8; 16]>,
    /// What the certificate container of 9A holds; not checked.
    pub access_certificate: Option<Vec<u8>>,
    /// What the certificate container of 9C holds; not checked.
    pub issuing_certificate: Option<Vec<u8>>,
}

/// What the token says of its PIN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PinState {
    /// Still the factory's.
    Default,
    /// A person's.
    Set,
    /// No try is left.
    Blocked,
    /// The token does not say.
    #[default]
    Unknown,
}

/// What is shown of a token beside its identity. Readable without the PIN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The PIN's state.
    pub pin: PinState,
    /// PIN tries that are left.
    pub retries: Option<u8>,
    /// No try of the recovery code (PUK) is left.
    pub puk_blocked: Option<bool>,
    /// The recovery code is still the factory's.
    pub puk_is_factory: Option<bool>,
    /// Slot 9A holds a key.
    pub has_access_key: Option<bool>,
    /// Slot 9C holds a key.
    pub has_issuing_key: Option<bool>,
    /// The serial number, in decimal digits, where it is the unit's own.
    pub serial: Option<String>,
}

/// What became of the offer of the factory recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PukOffer {
    /// It was the factory's; the new one is in force.
    Replaced,
    /// It is not the factory's, and stays.
    Left {
        /// Tries that are left, where the token says so.
        retries: Option<u8>,
    },
}

/// Where the management key that was authenticated comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The factory's value.
    Factory,
    /// Kept in PRINTED, under the PIN.
    Protected,
}

/// What still counts as authenticated on the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorized(pub bool);

/// A token that is open for one job.
pub struct Token {
    pub(super) piv: Piv,
    /// The PIN was verified in this session and not cleared since.
    pub(super) verified: bool,
    /// PRINTED, once it was read after the PIN or written.
    pub(super) printed: Option<Object>,
    management: Option<(ManagementKey, KeyOrigin)>,
}

impl Token {
    /// Selects the PIV application. 1 command.
    ///
    /// # Errors
    /// [`TokenError::NoPiv`].
    pub fn open(transport: Box<dyn Transport>) -> Result<Self, TokenError> {
        let mut piv = Piv::new(transport);
        piv.select()?;
        Ok(Token { piv, verified: false, printed: None, management: None })
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
        })
    }

    /// PIN and recovery code state, keys and serial number. At most 5 commands: a token that answers GET METADATA is
    /// asked for the PIN, the PUK, 9A, 9C and its serial number; any other for its try counter, version and serial
    /// number.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn read_details(&mut self) -> Result<Details, TokenError> {
        let MetadataAnswer::Known(pin) = self.piv.pin_metadata()? else {
            return self.read_details_without_metadata();
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
            has_access_key: has_key(self.piv.key_metadata(Slot::Access)?),
            has_issuing_key: has_key(self.piv.key_metadata(Slot::Issuing)?),
            serial: self.piv.serial()?,
        })
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

    /// Presents the PIN. 1 command (2 where a refusal does not tell the tries that are left).
    ///
    /// # Errors
    /// [`TokenError::PinRefused`], [`TokenError::PinBlocked`], [`TokenError::PinFormat`].
    pub fn verify_pin(&mut self, pin: &Pin) -> Result<(), TokenError> {
        self.verified = false;
        self.piv.verify(pin)?;
        self.verified = true;
        Ok(())
    }

    /// Sets a new PIN. 1 command (2 where a refusal does not tell the tries that are left).
    ///
    /// # Errors
    /// As [`Token::verify_pin`], about the old PIN.
    pub fn change_pin(&mut self, old: &Pin, new: &Pin) -> Result<(), TokenError> {
        // Tokens differ on whether the new PIN counts as verified.
        self.verified = false;
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
        self.verified = false;
        self.piv.unblock(code, new)
    }

    /// Replaces the recovery code where it is the factory's. 1 command, and one try of the code where it is not: the
    /// caller records the offer before making it.
    ///
    /// # Errors
    /// [`TokenError::Transport`], [`TokenError::Refused`].
    pub fn offer_factory_puk(&mut self, new: &RecoveryCode) -> Result<PukOffer, TokenError> {
        match self.piv.change_puk(&RecoveryCode::factory(), new) {
            Ok(()) => Ok(PukOffer::Replaced),
            Err(TokenError::CodeRefused { retries }) => Ok(PukOffer::Left { retries }),
            Err(TokenError::CodeBlocked) => Ok(PukOffer::Left { retries: Some(0) }),
            Err(error) => Err(error),
        }
    }

    /// Authenticates with the management key: the factory's, or the one that PRINTED keeps under the PIN. 2 commands
    /// on a token with a 3DES key, 1 more for each type that is tried in vain, 2 more where the first key was refused,
    /// 1 more where PRINTED was not read yet. Costs no try.
    ///
    /// # Errors
    /// [`TokenError::ForeignManagementKey`]; before any write, so nothing was changed.
    pub fn authenticate_management(&mut self) -> Result<KeyOrigin, TokenError> {
        self.management = None;
        let (kind, witness) = self.witness_of_any_kind()?;
        let mut witness = Some(witness);
        // Where PRINTED is known to keep a key it is the likelier one.
        let order = if self.protected(kind).is_some() {
            [KeyOrigin::Protected, KeyOrigin::Factory]
        } else {
            [KeyOrigin::Factory, KeyOrigin::Protected]
        };
        for origin in order {
            let Some(key) = self.candidate(origin, kind)? else { continue };
            let witness = match witness.take() {
                Some(witness) => witness,
                None => self.piv.witness(kind)?.ok_or(TokenError::ForeignManagementKey)?,
            };
            if self.piv.answer_witness(&key, &witness)? {
                self.management = Some((key, origin));
                return Ok(origin);
            }
        }
        Err(TokenError::ForeignManagementKey)
    }

    fn candidate(
        &mut self,
        origin: KeyOrigin,
        kind: KeyType,
    ) -> Result<Option<ManagementKey>, TokenError> {
        Ok(match origin {
            KeyOrigin::Factory => Some(ManagementKey::factory(kind)),
            KeyOrigin::Protected => {
                self.read_printed()?;
                self.protected(kind)
            }
        })
    }

    fn witness_of_any_kind(&mut self) -> Result<(KeyType, Vec<u8>), TokenError> {
        for kind in KeyType::ALL {
            if let Some(witness) = self.piv.witness(kind)? {
                return Ok((kind, witness));
            }
        }
        Err(TokenError::Unsupported("its management key is of no type that PIV defines"))
    }

    /// Gives the token this GUID, and reads it back. 2 commands; needs the management key.
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
        self.managed()?;
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
        self.present_for(slot, pin)?;
        match self.piv.sign(slot, digest)? {
            Attempt::Signature(signature) => Ok(signature),
            Attempt::NoKey | Attempt::OtherKeyOrNone => {
                Err(TokenError::Unsupported("its slot holds no P-256 key"))
            }
        }
    }

    /// Presents the PIN where a signature of this slot needs it.
    pub(super) fn present_for(&mut self, slot: Slot, pin: &Pin) -> Result<(), TokenError> {
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

    /// Replaces the factory's management key by a random one of the same type, which PRINTED keeps under the PIN. It
    /// is written and proven readable after the PIN only, before the old one is given up. 7 commands, 2 more where
    /// PRINTED was not read yet, none where the key in force is already kept so; needs the management key. May be
    /// repeated after an interruption at any point.
    ///
    /// A key that PRINTED keeps but that is not in force is never used: somebody else may know it.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`] where PRINTED is another program's or not under the PIN: then the old key stays.
    pub fn protect_management_key(&mut self, pin: &Pin) -> Result<(), TokenError> {
        let kind = match self.managed()? {
            (_, KeyOrigin::Protected) => return Ok(()),
            (key, KeyOrigin::Factory) => key.kind(),
        };
        if self.printed.is_none() {
            if !self.verified {
                self.verify_pin(pin)?;
            }
            self.read_printed()?;
        }
        if printed_use(self.printed.as_ref()) == Printed::Other {
            return Err(TokenError::Unsupported("PRINTED holds another program's data"));
        }
        let key = ManagementKey::random(kind)?;
        // Whatever becomes of this command, what PRINTED holds is not known any more.
        self.printed = None;
        self.piv.put_data(Container::Printed, &key.protected())?;
        self.prove_under_pin(&key, pin)?;
        self.piv.set_management_key(&key)?;
        self.management = Some((key, KeyOrigin::Protected));
        match self.piv.put_data(Container::AdminData, &ADMIN_DATA) {
            // A note for other programs: not every token has a place for it.
            Ok(()) | Err(TokenError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn prove_under_pin(&mut self, key: &ManagementKey, pin: &Pin) -> Result<(), TokenError> {
        self.piv.clear_pin()?;
        self.verified = false;
        if self.piv.get_data(Container::Printed)? != Object::Locked {
            return Err(TokenError::Unsupported("its PRINTED object is readable without the PIN"));
        }
        self.verify_pin(pin)?;
        self.read_printed()?;
        match self.protected(key.kind()) {
            Some(read) if read.bytes() == key.bytes() => Ok(()),
            _ => Err(TokenError::ReadBack { what: Container::Printed.name() }),
        }
    }

    /// Takes back every authorization and asks the token whether that worked. 2 commands, 4 where the management key
    /// was authenticated in this session (1 more where the token cannot clear the PIN by VERIFY).
    ///
    /// # Errors
    /// [`TokenError::Transport`]: whether anything stays authorized is then not known.
    pub fn clear(&mut self) -> Result<Authorized, TokenError> {
        let cleared = match self.piv.clear_pin() {
            Ok(()) => true,
            Err(TokenError::Refused { .. }) => false,
            Err(error) => return Err(error),
        };
        let managed = self.management.take().is_some();
        if managed || !cleared {
            self.piv.select()?;
        }
        self.verified = false;
        self.printed = None;
        let pin = match self.piv.pin_status() {
            Ok(status) => status == PinStatus::Verified,
            // It cannot be asked: assume the worst.
            Err(TokenError::Refused { .. }) => true,
            Err(error) => return Err(error),
        };
        let management = managed && self.piv.management_authorized()?;
        Ok(Authorized(pin || management))
    }

    fn managed(&self) -> Result<&(ManagementKey, KeyOrigin), TokenError> {
        self.management.as_ref().ok_or(TokenError::NotAuthenticated)
    }

    /// Reads PRINTED where it is not known yet. 0 or 1 command.
    pub(super) fn read_printed(&mut self) -> Result<(), TokenError> {
        if self.printed.is_none() {
            let object = self.piv.get_data(Container::Printed)?;
            // Locked says nothing of what is there: ask again after the PIN.
            self.printed = Some(object).filter(|object| *object != Object::Locked);
        }
        Ok(())
    }

    /// The key that PRINTED is known to keep, where it fits the type.
    fn protected(&self, kind: KeyType) -> Option<ManagementKey> {
        let Some(Object::Contents(contents)) = &self.printed else { return None };
        ManagementKey::new(kind, &protected_key(contents)?)
    }

    /// The contents of an object that needs no PIN; `None` where there are none.
    pub(super) fn read(
        &mut self,
        container: Container,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, TokenError> {
        match self.piv.get_data(container)? {
            Object::Absent => Ok(None),
            Object::Contents(contents) => Ok(Some(contents)),
            Object::Locked => {
                Err(TokenError::Unsupported("an object that PIV makes public wants the PIN"))
            }
        }
    }

    fn write(&mut self, container: Container, contents: &[u8]) -> Result<(), TokenError> {
        self.managed()?;
        self.piv.put_data(container, contents)?;
        match self.read(container)? {
            Some(read) if *read == contents => Ok(()),
            _ => Err(TokenError::ReadBack { what: container.name() }),
        }
    }
}

fn has_key(answer: MetadataAnswer) -> Option<bool> {
    match answer {
        MetadataAnswer::Known(_) => Some(true),
        MetadataAnswer::Empty => Some(false),
        MetadataAnswer::Silent => None,
    }
}
