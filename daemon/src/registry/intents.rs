//! Jobs whose write has begun, and what rolled-back ones left on tokens.

use super::{
    Registry, codec,
    error::RegistryError,
    layout::Table,
    records::{Intent, Leftover, LockEntry},
    statements::read_entries,
};

impl Registry {
    /// All jobs begun and not ended, by number.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn intents(&self) -> Result<Vec<Intent>, RegistryError> {
        let view = self.view()?;
        view.all(Table::Intents.key()).map(|record| codec::decode(&record?.1)).collect()
    }

    /// The job with a number.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn intent(&self, number: u64) -> Result<Option<Intent>, RegistryError> {
        self.view()?.record(&Table::Intents.at(number))
    }

    /// The Locks listed for a job, by id.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn intent_entries(&self, number: u64) -> Result<Vec<LockEntry>, RegistryError> {
        read_entries(&self.view()?, &Table::IntentEntries.at(number))
    }

    /// What a job left on the token with this CHUID GUID.
    ///
    /// # Errors
    /// `Damaged` or `Io`, as for every read.
    pub fn leftover(&self, guid: [u8; 16]) -> Result<Option<Leftover>, RegistryError> {
        self.view()?.record(&Table::Leftovers.with(&[&guid]))
    }
}
