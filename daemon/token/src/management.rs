//! Authenticates with a token's management key, and replaces the factory's by a random one that is stored under the PIN.
//!
//! The random key is stored in the data object PRINTED, which is readable only after the PIN: the "PIN-protected"
//! convention of Yubico's tools. The order of the writes leaves the token with a usable key at any interruption.

use super::TokenError;
use super::management_key::{ADMIN_DATA, KeyType, ManagementKey, protected_key};
use super::object::Container;
use super::pin::Pin;
use super::piv::DataObject;
use super::usage::{Printed, printed_use};
use super::verbs::Token;

/// The origin of the authenticated management key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The factory value.
    Factory,
    /// Stored in PRINTED, under the PIN.
    Protected,
}

impl Token {
    /// Authenticates with the management key: the factory's, or the one that is stored in PRINTED. Costs no try.
    ///
    /// 2 commands on a token with a 3DES key, 1 more for each key type that is tried in vain, 2 more if the first key is
    /// refused, 1 more if PRINTED was not read yet.
    ///
    /// # Errors
    /// [`TokenError::ForeignManagementKey`] if neither key is accepted. Nothing was changed then.
    pub fn authenticate_management(&mut self) -> Result<KeyOrigin, TokenError> {
        self.management = None;
        let (kind, witness) = self.witness_of_any_kind()?;
        let mut witness = Some(witness);
        // If PRINTED holds a key, that one is more likely.
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

    /// Authenticates with the management key that is stored in PRINTED, and with no other; returns whether that worked.
    /// 3 commands after a signature; needs the PIN.
    ///
    /// # Errors
    /// As [`Token::verify_pin`].
    pub(crate) fn authenticate_protected_key(&mut self, pin: &Pin) -> Result<bool, TokenError> {
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

    /// Checks that the token lets its management key be replaced, before anything is written. 1 command, which changes
    /// nothing.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`].
    pub fn check_management_key_can_change(&mut self) -> Result<(), TokenError> {
        if self.piv.sets_management_key()? {
            return Ok(());
        }
        Err(TokenError::Unsupported(
            "it cannot change its management key, which everybody knows; nothing was written; take another token",
        ))
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

    /// Replaces the factory's management key by a random one of the same type, which is stored in PRINTED under the PIN.
    ///
    /// The new key is written to PRINTED, and shown to be readable only after the PIN, before it replaces the old one. So
    /// an interruption at any point leaves a usable key, and the call may be repeated. A key in PRINTED that is not the
    /// token's management key is never set, because another person may know it. Afterwards the PIN is known to be cleared.
    ///
    /// 6 commands, 2 more if PRINTED was not read yet or the token does not count a new PIN as verified, 3 more if VERIFY
    /// cannot clear the PIN, none if the management key is stored there already. Needs the management key.
    ///
    /// # Errors
    /// [`TokenError::Unsupported`] if PRINTED holds another program's data or is readable without the PIN. The old key
    /// stays then.
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
        // Even if this command fails, the contents of PRINTED are unknown now.
        self.printed = None;
        self.piv.put_data(Container::Printed, &key.protected())?;
        self.prove_under_pin(&key, pin)?;
        self.piv.set_management_key(&key)?;
        self.management = Some((key, KeyOrigin::Protected));
        match self.piv.put_data(Container::AdminData, &ADMIN_DATA) {
            // A note for other programs. Not every token can store it.
            Ok(()) | Err(TokenError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks that PRINTED holds the key while the PIN is verified and is locked once the PIN is cleared. This also proves
    /// that the PIN is cleared. 3 commands more if only SELECT clears the PIN.
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
            // Firmware without that command clears the PIN at SELECT, and with it the management key's authentication.
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

    /// Authenticates again with the management key that was authenticated earlier in this session. 2 commands.
    fn authenticate_again(&mut self) -> Result<(), TokenError> {
        let key = self.authenticated_key()?.0.clone();
        let witness = self.piv.witness(key.kind())?.ok_or(TokenError::ForeignManagementKey)?;
        if self.piv.authenticate_mutually(&key, &witness)? {
            Ok(())
        } else {
            Err(TokenError::ForeignManagementKey)
        }
    }

    /// Returns the management key that was authenticated in this session.
    pub(super) fn authenticated_key(&self) -> Result<&(ManagementKey, KeyOrigin), TokenError> {
        self.management.as_ref().ok_or(TokenError::NotAuthenticated)
    }

    /// Reads PRINTED if its contents are unknown. 0 or 1 command.
    pub(super) fn read_printed(&mut self) -> Result<(), TokenError> {
        if self.printed.is_none() {
            let object = self.piv.get_data(Container::Printed)?;
            // A locked object is read again after the PIN.
            self.printed = Some(object).filter(|object| *object != DataObject::Locked);
        }
        Ok(())
    }

    /// Returns the key in PRINTED, if one was read and it has the length of this type.
    fn protected(&self, kind: KeyType) -> Option<ManagementKey> {
        let Some(DataObject::Contents(contents)) = &self.printed else { return None };
        ManagementKey::new(kind, &protected_key(contents)?)
    }
}
