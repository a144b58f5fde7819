//! The open database: atomic, durable commits, and the detection of lost records.
//!
//! Silent loss is detected in three ways:
//!
//! - Every value has a checksum.
//! - [`Head`] counts the records of each table. Small tables are counted when the registry is opened; with 100,000 Locks,
//!   counting all of them would take half a second.
//! - The number of each acknowledged commit is written beside the database, so that a database that was cut short is
//!   refused when it is opened.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    changes::Changes,
    codec,
    directory::Files,
    engine::catch_sled_panic,
    error::RegistryError,
    layout::{Table, end_of},
    pieces::{further_pieces, piece_key, pieces},
    view::View,
};

/// The record that every commit rewrites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The number of the newest commit.
    pub(super) sequence: u64,
    /// How many records each table has.
    pub(super) counts: BTreeMap<u8, u64>,
}

/// The open database.
pub(super) struct Store {
    db: sled::Db,
    files: Files,
    head: Mutex<Head>,
    /// Held shared by every [`View`], exclusively by a commit: no record changes between two reads of one view.
    commit_lock: RwLock<()>,
    stopped: AtomicBool,
}

impl Store {
    pub(super) fn new(db: sled::Db, files: Files) -> Self {
        Self {
            db,
            files,
            head: Mutex::default(),
            commit_lock: RwLock::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Reads the head, once the format number is known to be ours. `Damaged` if acknowledged commits are missing.
    pub(super) fn load_head(&self) -> Result<(), RegistryError> {
        let head: Head = self
            .view()?
            .record(&Table::Head.key())?
            .ok_or_else(|| RegistryError::damaged("the record of counts is missing"))?;
        let acknowledged = self.files.acknowledged()?;
        if head.sequence < acknowledged {
            return Err(RegistryError::damaged(format!(
                "it ends with commit {} and {acknowledged} was acknowledged",
                head.sequence
            )));
        }
        *self.lock_head() = head;
        Ok(())
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn view(&self) -> Result<View<'_>, RegistryError> {
        self.check_running()?;
        let commit_lock = self.commit_lock.read().unwrap_or_else(PoisonError::into_inner);
        Ok(View { db: &self.db, dir: self.files.dir(), _commit_lock: commit_lock })
    }

    /// Calls `collect` for the changes and commits them, one caller at a time. They are durable when this returns.
    /// After an error none of them was written, or the store has stopped.
    pub(super) fn commit(
        &self,
        collect: impl FnOnce(&View<'_>, &mut Changes) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut head = self.lock_head();
        let mut changes = Changes::default();
        let mut next = Head { sequence: head.sequence + 1, counts: head.counts.clone() };
        let batch = {
            let view = self.view()?;
            collect(&view, &mut changes)?;
            stage(&view, changes, &mut next)?
        };
        self.files.check_room(batch.bytes)?;
        // From here on, sled may have changes in memory that are not on disk: an error stops the store.
        let written = self.write(batch.sled).and_then(|()| self.files.acknowledge(next.sequence));
        match written {
            Ok(()) => *head = next,
            Err(_) => self.stopped.store(true, Ordering::Release),
        }
        written
    }

    /// Reads and counts the records of the table with this number. Commits wait until it is done.
    pub(super) fn verify_table(&self, table: u8) -> Result<(), RegistryError> {
        let head = self.lock_head();
        let expected = head.counts.get(&table).copied().unwrap_or_default();
        let view = self.view()?;
        let mut found = 0;
        for record in view.scan(vec![table], end_of(&[table])) {
            record?;
            found += 1;
        }
        if found == expected {
            Ok(())
        } else {
            Err(RegistryError::damaged(format!(
                "table {table:#04x} has {found} records instead of {expected}"
            )))
        }
    }

    /// Flips a bit in each stored value whose key has this prefix.
    #[cfg(test)]
    pub(super) fn damage(&self, prefix: &[u8]) {
        let stored: Vec<_> = self.db.scan_prefix(prefix).map(Result::unwrap).collect();
        assert!(!stored.is_empty());
        for (key, value) in stored {
            let mut flipped = value.to_vec();
            let at = flipped.len() / 2;
            flipped[at] ^= 1;
            self.db.insert(key, flipped).unwrap();
        }
    }

    /// The lengths of all stored values.
    #[cfg(test)]
    pub(super) fn stored_sizes(&self) -> Vec<usize> {
        self.db.iter().values().map(|value| value.map_or(usize::MAX, |value| value.len())).collect()
    }

    fn write(&self, batch: sled::Batch) -> Result<(), RegistryError> {
        let dir = self.files.dir();
        {
            let _alone = self.commit_lock.write().unwrap_or_else(PoisonError::into_inner);
            catch_sled_panic(dir, || self.db.apply_batch(batch))?;
        }
        catch_sled_panic(dir, || self.db.flush())?;
        self.files.sync()
    }

    fn lock_head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_running(&self) -> Result<(), RegistryError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(RegistryError::Stopped { dir: self.files.dir().into() });
        }
        Ok(())
    }
}

struct Staged {
    sled: sled::Batch,
    bytes: usize,
}

/// Turns changes into a sled batch, with large values in pieces, and counts them in the head.
fn stage(view: &View<'_>, changes: Changes, head: &mut Head) -> Result<Staged, RegistryError> {
    let mut staged = Staged { sled: sled::Batch::default(), bytes: 0 };
    for (key, payload) in changes.payloads {
        let old = view.stored(&key)?;
        let count = head.counts.entry(key.first().copied().unwrap_or_default()).or_default();
        match (&old, &payload) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count = count.saturating_sub(1),
            _ => {}
        }
        for position in 1..=old.map_or(0, |old| further_pieces(&old)) {
            staged.sled.remove(piece_key(&key, position));
        }
        match payload {
            Some(payload) => staged.insert(&key, &payload)?,
            None => staged.sled.remove(key),
        }
    }
    staged.insert(&Table::Head.key(), &codec::encode(head)?)?;
    Ok(staged)
}

impl Staged {
    fn insert(&mut self, key: &[u8], payload: &[u8]) -> Result<(), RegistryError> {
        for (key, value) in pieces(key, payload)? {
            self.bytes += key.len() + value.len();
            self.sled.insert(key, value);
        }
        Ok(())
    }
}
