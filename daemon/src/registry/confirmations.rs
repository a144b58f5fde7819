//! What each Lock last confirmed about each Key: what it does now, and the confirmation as the Lock signed it.

use keywright_proto::Id;

use super::{
    Batch, Registry,
    error::RegistryError,
    layout::Table,
    records::{Confirmation, SignedConfirmation},
};

impl Registry {
    /// What every Lock last confirmed about a Key, by Lock.
    pub fn confirmations(&self, key: Id) -> Result<Vec<(Id, Confirmation)>, RegistryError> {
        self.view()?.records_by_id(Table::Confirmations.of(key))
    }

    /// What one Lock last confirmed about a Key.
    pub fn confirmation(&self, key: Id, lock: Id) -> Result<Option<Confirmation>, RegistryError> {
        self.view()?.record(&Table::Confirmations.of_two(key, lock))
    }

    /// The newest confirmation of one Lock about a Key, as the Lock signed it.
    pub fn signed_confirmation(
        &self,
        key: Id,
        lock: Id,
    ) -> Result<Option<SignedConfirmation>, RegistryError> {
        self.view()?.record(&Table::SignedConfirmations.of_two(key, lock))
    }

    /// The newest confirmation of every Lock about a Key, as the Lock signed it, by Lock.
    pub fn signed_confirmations(
        &self,
        key: Id,
    ) -> Result<Vec<(Id, SignedConfirmation)>, RegistryError> {
        self.view()?.records_by_id(Table::SignedConfirmations.of(key))
    }
}

impl Batch {
    /// Puts what a Lock confirmed about a Key.
    pub fn put_confirmation(&mut self, key: Id, lock: Id, confirmation: Confirmation) -> &mut Self {
        self.put(Table::Confirmations.of_two(key, lock), confirmation)
    }

    /// Puts a confirmation of a Lock about a Key, as the Lock signed it.
    pub fn put_signed_confirmation(
        &mut self,
        key: Id,
        lock: Id,
        confirmation: SignedConfirmation,
    ) -> &mut Self {
        self.exchanged().put(Table::SignedConfirmations.of_two(key, lock), confirmation)
    }
}
