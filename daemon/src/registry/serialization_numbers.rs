//! Serialization numbers, never used twice: whole blocks of them are reserved on disk, so that most cost no write.

use std::sync::PoisonError;

use super::{Registry, error::RegistryError, layout::Table};

const BLOCK: u64 = 64;

/// Numbers reserved on disk and not yet given out: `next..end`.
#[derive(Default)]
pub(super) struct ReservedNumbers {
    next: u64,
    end: u64,
}

impl Registry {
    /// The next serialization number, from 1 up. Numbers are skipped when the daemon ends, and never reused.
    ///
    /// # Errors
    /// As [`Registry::commit`], once in 64 calls.
    pub fn take_serialization_number(&self) -> Result<u64, RegistryError> {
        let mut reserved = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.next == reserved.end {
            *reserved = self.reserve()?;
        }
        let number = reserved.next;
        reserved.next += 1;
        Ok(number)
    }

    fn reserve(&self) -> Result<ReservedNumbers, RegistryError> {
        let mut block = ReservedNumbers::default();
        self.0.store.commit(|view, changes| {
            let next = view.record(&Table::Numbers.key())?.unwrap_or(1);
            block = ReservedNumbers { next, end: next + BLOCK };
            changes.put(Table::Numbers.key(), &block.end)
        })?;
        Ok(block)
    }
}
