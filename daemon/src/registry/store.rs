//! sled behind typed bytes: checked values, one atomic and durable commit, counts that betray a lost record.
//!
//! Silent loss is noticed in three ways: every value has a checksum; [`Head`] counts the records of each table
//! (small tables are counted at opening, all of them by [`Store::verify`], which takes too long before the bus
//! name is requested); and a commit's number is noted beside the database when it is acknowledged, so that a
//! database cut short is refused at opening.

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

/// What every commit renews.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// How many commits there were.
    pub(super) sequence: u64,
    /// How many records each table has.
    pub(super) counts: BTreeMap<u8, u64>,
}

/// The open database.
pub(super) struct Store {
    db: sled::Db,
    files: Files,
    head: Mutex<Head>,
    /// Held to read while several records are read that belong read_lock, to write while a commit changes them.
    read_lock: RwLock<()>,
    stopped: AtomicBool,
}

impl Store {
    pub(super) fn new(db: sled::Db, files: Files) -> Self {
        Self {
            db,
            files,
            head: Mutex::default(),
            read_lock: RwLock::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Reads the head, once the schema is known to be ours.
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
        let read_lock = self.read_lock.read().unwrap_or_else(PoisonError::into_inner);
        Ok(View { db: &self.db, dir: self.files.dir(), _read_lock: read_lock })
    }

    /// Collects changes and commits them, one caller at a time. Durable when it returns; after an error
    /// nothing of it was written, or the store has stopped.
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
        // From here on sled may hold what the disk does not: an error ends the use of this store.
        let written = self.write(batch.sled).and_then(|()| self.files.acknowledge(next.sequence));
        match written {
            Ok(()) => *head = next,
            Err(_) => self.stopped.store(true, Ordering::Release),
        }
        written
    }

    /// Reads every record and counts them. With 100,000 Locks it takes half a second.
    pub(super) fn verify(&self) -> Result<(), RegistryError> {
        (Table::Numbers as u8..Table::Pieces as u8).try_for_each(|table| self.verify_table(table))
    }

    /// The same for one table, given by its number. Commits wait for it.
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

    /// The lengths of all values, as sled has them.
    #[cfg(test)]
    pub(super) fn stored_sizes(&self) -> Vec<usize> {
        self.db.iter().values().map(|value| value.map_or(usize::MAX, |value| value.len())).collect()
    }

    fn write(&self, batch: sled::Batch) -> Result<(), RegistryError> {
        let dir = self.files.dir();
        {
            let _alone = self.read_lock.write().unwrap_or_else(PoisonError::into_inner);
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

/// Changes as sled takes them, pieces and the head's counts included.
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
