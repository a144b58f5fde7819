//! The management key of a token: finding the one in force, and replacing the factory's by one kept under the PIN.

use super::TokenError;
use super::management_key::{ADMIN_DATA, KeyType, ManagementKey, protected_key};
use super::object::Container;
use super::pin::Pin;
use super::piv::DataObject;
use super::usage::{Printed, printed_use};
use super::verbs::Token;

/// Where the management key that was authenticated comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The factory's value.
    Factory,
    /// Kept in PRINTED, under the PIN.
    Protected,
}

impl Token {
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
            self.authorized = true;
            self.piv.may_stay_authorized(true);
            if self.piv.authenticate_mutually(&key, &witness)? {
                self.management = Some((key, origin));
                return Ok(origin);
            }
        }
        Err(TokenError::ForeignManagementKey)
    }

    /// Authenticates with the management key that PRINTED keeps under the PIN, and with no other; says whether there is
    /// one in force. 3 commands after a signature; needs the PIN.
    ///
    /// # Errors
    /// As [`Token::verify_pin`].
    pub fn authenticate_protected_key(&mut self, pin: &Pin) -> Result<bool, TokenError> {
        if !self.verified {
            self.verify_pin(pin)?;
        }
        self.read_printed()?;
        match self.authenticate_management() {
            Ok(KeyOrigin::Protected) => Ok(true),
            Ok(KeyOrigin::Factory) | Err(TokenError::ForeignManagementKey) => Ok(false),
            Err(error) => Err(error),
        }
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

    /// Replaces the factory's management key by a random one of the same type, which PRINTED keeps under the PIN. It
    /// is written and proven readable after the PIN only, before the old one is given up. 6 commands, 2 more where
    /// PRINTED was not read yet or a new PIN does not count as verified, 3 more where VERIFY does not clear the PIN, none
    /// where the key in force is already kept so; needs the management key. The PIN is cleared then, and was seen to be. May be repeated after an
    /// interruption at any point.
    ///
    /// A key that PRINTED keeps but that is not in force is never used: somebody else may know it.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`] where PRINTED is another program's or not under the PIN: then the old key stays.
    pub fn protect_management_key(&mut self, pin: &Pin) -> Result<(), TokenError> {
        let kind = match self.authenticated_key()? {
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

    /// PRINTED shows the key while the PIN is verified, and nothing once it is cleared: so it is under the PIN, and
    /// nothing else has to be asked about the PIN's state. 3 commands more where only a SELECT clears the PIN.
    fn prove_under_pin(&mut self, key: &ManagementKey, pin: &Pin) -> Result<(), TokenError> {
        self.read_printed()?;
        if self.printed.is_none() {
            self.verify_pin(pin)?;
            self.read_printed()?;
        }
        match self.protected(key.kind()) {
            Some(read) if read.bytes() == key.bytes() => {}
            _ => return Err(TokenError::ReadBack { what: Container::Printed.name() }),
        }
        let selected = match self.piv.clear_pin() {
            Ok(()) => false,
            // Firmware without that command forgets the PIN with a SELECT, and the management key too.
            Err(TokenError::Refused { .. }) => self.piv.select().map(|()| true)?,
            Err(error) => return Err(error),
        };
        self.verified = false;
        if self.piv.get_data(Container::Printed)? != DataObject::Locked {
            return Err(TokenError::Unsupported("its PRINTED object is readable without the PIN"));
        }
        self.pin_known_cleared = true;
        if selected { self.authenticate_again() } else { Ok(()) }
    }

    /// Authenticates with the key that was authenticated in this session before. 2 commands.
    fn authenticate_again(&mut self) -> Result<(), TokenError> {
        let key = self.authenticated_key()?.0.clone();
        let witness = self.piv.witness(key.kind())?.ok_or(TokenError::ForeignManagementKey)?;
        if self.piv.authenticate_mutually(&key, &witness)? {
            Ok(())
        } else {
            Err(TokenError::ForeignManagementKey)
        }
    }

    /// The management key, where it was authenticated in this session.
    pub(super) fn authenticated_key(&self) -> Result<&(ManagementKey, KeyOrigin), TokenError> {
        self.management.as_ref().ok_or(TokenError::NotAuthenticated)
    }

    /// Reads PRINTED where it is not known yet. 0 or 1 command.
    pub(super) fn read_printed(&mut self) -> Result<(), TokenError> {
        if self.printed.is_none() {
            let object = self.piv.get_data(Container::Printed)?;
            // Locked says nothing of what is there: ask again after the PIN.
            self.printed = Some(object).filter(|object| *object != DataObject::Locked);
        }
        Ok(())
    }

    /// The key that PRINTED is known to keep, where it fits the type.
    fn protected(&self, kind: KeyType) -> Option<ManagementKey> {
        let Some(DataObject::Contents(contents)) = &self.printed else { return None };
        ManagementKey::new(kind, &protected_key(contents)?)
    }
}
