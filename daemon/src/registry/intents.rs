//! Jobs whose write has begun, and what rolled-back jobs left on tokens.

use super::{
    Batch, Registry,
    chunks::read_list,
    error::RegistryError,
    layout::Table,
    records::{Intent, Leftover, LockEntry},
    statements::put_entries,
};

impl Registry {
    /// All jobs that have begun and not ended, by number.
    pub fn intents(&self) -> Result<Vec<Intent>, RegistryError> {
        self.view()?.records(Table::Intents.key())
    }

    /// The job with this number.
    pub fn intent(&self, number: u64) -> Result<Option<Intent>, RegistryError> {
        self.view()?.record(&Table::Intents.at(number))
    }

    /// The Locks listed for a job, by id.
    pub fn intent_entries(&self, number: u64) -> Result<Vec<LockEntry>, RegistryError> {
        read_list(&self.view()?, Table::IntentEntries.at(number))
    }

    /// What a job left on the token with this CHUID GUID.
    pub fn leftover(&self, guid: [u8; 16]) -> Result<Option<Leftover>, RegistryError> {
        self.view()?.record(&Table::Leftovers.with(&[&guid]))
    }
}

impl Batch {
    /// Puts a job, under its number. Its Locks stay as they are.
    pub fn put_intent(&mut self, intent: Intent) -> &mut Self {
        self.put(Table::Intents.at(intent.number), intent)
    }

    /// Puts the Locks listed for a job (each at most once); they replace those that are there.
    pub fn put_intent_entries(&mut self, number: u64, entries: Vec<LockEntry>) -> &mut Self {
        self.write(move |view, changes| {
            put_entries(view, changes, Table::IntentEntries.at(number), entries)
        })
    }

    /// Removes a job with its Locks.
    pub fn remove_intent(&mut self, number: u64) -> &mut Self {
        self.write(move |view, changes| {
            changes.remove(Table::Intents.at(number));
            changes.remove_all(view, Table::IntentEntries.at(number))
        })
    }

    /// Puts what a job left on the token with this CHUID GUID.
    pub fn put_leftover(&mut self, guid: [u8; 16], leftover: Leftover) -> &mut Self {
        self.put(Table::Leftovers.with(&[&guid]), leftover)
    }

    /// Removes what a job left on the token with this CHUID GUID.
    pub fn remove_leftover(&mut self, guid: [u8; 16]) -> &mut Self {
        self.write(move |_, changes| {
            changes.remove(Table::Leftovers.with(&[&guid]));
            Ok(())
        })
    }
}
