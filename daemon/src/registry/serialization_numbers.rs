//! Serialization numbers, which are never used twice. They are reserved on disk in blocks, so that most cost no write.

use std::sync::PoisonError;

use super::{Registry, error::RegistryError, layout::Table};

/// How many numbers are reserved at once.
const BLOCK: u64 = 64;

/// Numbers that are reserved on disk and not used yet: `next..end`.
#[derive(Default)]
pub(super) struct ReservedNumbers {
    next: u64,
    end: u64,
}

impl Registry {
    /// The next serialization number, from 1 up. The unused rest of a block is skipped when the daemon ends.
    ///
    /// # Errors
    /// Those of [`Registry::commit`], in one of 64 calls.
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
