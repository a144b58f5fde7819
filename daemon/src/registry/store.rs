//! sled behind typed bytes: checked values, one atomic and durable commit, counts that betray a lost record.
//!
//! Silent loss is noticed in three ways: every value has a checksum; [`Head`] counts the records of each table
//! (small tables are counted at opening, all of them by [`Store::verify`], which takes too long before the bus
//! name is requested); and a commit's number is noted beside the database when it is acknowledged, so that a
//! database cut short is refused at opening.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::IVec;

use super::{
    codec,
    directory::Files,
    error::RegistryError,
    layout::{Table, end_of},
};

/// The longest piece of a value, in bytes: from 16 KB on sled makes blob files, which it never syncs.
const PIECE: usize = 7 * 1024;

/// sled's default is 1 GiB.
const CACHE: u64 = 32 * 1024 * 1024;

/// First byte of a stored value: it is whole.
const WHOLE: u8 = 0;
/// First byte of a stored value: two bytes with the number of further pieces follow.
const SPLIT: u8 = 1;

/// What every commit renews.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// How many commits there were.
    pub(super) sequence: u64,
    /// How many records each table has.
    pub(super) counts: BTreeMap<u8, u64>,
}

/// Records to be written, by key; `None` removes.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

/// The open database.
pub(super) struct Store {
    db: sled::Db,
    files: Files,
    head: Mutex<Head>,
    /// Held to read while several records are read that belong together, to write while a commit changes them.
    together: RwLock<()>,
    stopped: AtomicBool,
}

/// A consistent look at the records. Never take a second one on the same thread.
pub(super) struct View<'a> {
    db: &'a sled::Db,
    dir: &'a Path,
    _together: RwLockReadGuard<'a, ()>,
}

/// A key and a stored value.
type Stored = (Vec<u8>, Vec<u8>);

/// Opens sled as it has to be here. It panics on some damaged files.
pub(super) fn open_sled(dir: &Path) -> Result<sled::Db, RegistryError> {
    let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(CACHE);
    guarded(dir, || config.open())
}

/// Flushes the first records of a new database.
pub(super) fn initialize(dir: &Path, schema: u32) -> Result<(), RegistryError> {
    let db = open_sled(dir)?;
    let mut batch = sled::Batch::default();
    let head = codec::encode(&Head::default())?;
    let schema = schema.to_be_bytes().to_vec();
    for (table, payload) in [(Table::Schema, schema), (Table::Head, head)] {
        for (key, value) in pieces(&table.key(), &payload)? {
            batch.insert(key, value);
        }
    }
    guarded(dir, || db.apply_batch(batch).and_then(|()| db.flush()))?;
    drop(db);
    // Only a database with a snapshot notices flipped bits, and sled writes the first one when it opens again.
    open_sled(dir).map(drop)
}

impl Store {
    pub(super) fn new(db: sled::Db, files: Files) -> Self {
        Self {
            db,
            files,
            head: Mutex::default(),
            together: RwLock::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Reads the head, once the schema is known to be ours.
    pub(super) fn load_head(&self) -> Result<(), RegistryError> {
        let head: Head = self
            .view()?
            .record(&Table::Head.key())?
            .ok_or_else(|| RegistryError::damaged("the record of counts is missing"))?;
        let marked = self.files.marked()?;
        if head.sequence < marked {
            return Err(RegistryError::damaged(format!(
                "it ends with commit {} and {marked} was acknowledged",
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
        let together = self.together.read().unwrap_or_else(PoisonError::into_inner);
        Ok(View { db: &self.db, dir: self.files.dir(), _together: together })
    }

    /// Collects changes and commits them, one caller at a time. Durable when it returns; after an error
    /// nothing of it is there, or the store has stopped.
    pub(super) fn commit(
        &self,
        collect: impl FnOnce(&View<'_>, &mut Changes) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut head = self.lock_head();
        let mut changes = Changes::default();
        let view = self.view()?;
        collect(&view, &mut changes)?;
        let mut next = Head { sequence: head.sequence + 1, counts: head.counts.clone() };
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (key, payload) in changes.0 {
            let old = view.stored(&key)?;
            let values = payload.map(|payload| pieces(&key, &payload)).transpose()?;
            let count = next.counts.entry(key.first().copied().unwrap_or_default()).or_default();
            match (&old, &values) {
                (None, Some(_)) => *count += 1,
                (Some(_), None) => *count = count.saturating_sub(1),
                _ => {}
            }
            for position in 1..=old.map_or(0, |old| further_pieces(&old)) {
                batch.remove(piece_key(&key, position));
            }
            if values.is_none() {
                batch.remove(key);
            }
            for (key, value) in values.into_iter().flatten() {
                bytes += key.len() + value.len();
                batch.insert(key, value);
            }
        }
        drop(view);
        for (key, value) in pieces(&Table::Head.key(), &codec::encode(&next)?)? {
            batch.insert(key, value);
        }
        self.files.check_room(bytes)?;
        // From here on sled may hold what the disk does not: an error ends the use of this store.
        let written = self.write(batch).and_then(|()| self.files.mark(next.sequence));
        match written {
            Ok(()) => *head = next,
            Err(_) => self.stopped.store(true, Ordering::Release),
        }
        written
    }

    /// Reads every record and counts them. Takes about a second for a million.
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

    fn write(&self, batch: sled::Batch) -> Result<(), RegistryError> {
        let dir = self.files.dir();
        {
            let _alone = self.together.write().unwrap_or_else(PoisonError::into_inner);
            guarded(dir, || self.db.apply_batch(batch))?;
        }
        guarded(dir, || self.db.flush())?;
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

impl View<'_> {
    /// The payload under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, RegistryError> {
        self.stored(key)?.map(|stored| self.payload(key, stored)).transpose()
    }

    /// The record under a key.
    pub(super) fn record<T: DeserializeOwned>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, RegistryError> {
        self.get(key)?.map(|payload| codec::decode(&payload)).transpose()
    }

    /// Keys and payloads from `start` on, before `end`, in the order of keys.
    pub(super) fn scan(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
    ) -> impl Iterator<Item = Result<(IVec, IVec), RegistryError>> {
        let mut range = (start < end).then(|| self.db.range(start..end));
        std::iter::from_fn(move || {
            let next = guarded(self.dir, || Ok(range.as_mut().and_then(Iterator::next)));
            let next = match next {
                Ok(Some(Ok((key, stored)))) => {
                    Some(self.payload(&key, stored).map(|payload| (key, payload)))
                }
                Ok(Some(Err(error))) => Some(Err(refused(self.dir, error))),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            };
            // An iterator that failed once is not asked again.
            if !matches!(next, Some(Ok(_))) {
                range = None;
            }
            next
        })
    }

    /// All keys and payloads with a prefix.
    pub(super) fn all(
        &self,
        prefix: Vec<u8>,
    ) -> impl Iterator<Item = Result<(IVec, IVec), RegistryError>> {
        let end = end_of(&prefix);
        self.scan(prefix, end)
    }

    /// The last key and payload from `start` on, before `end`.
    pub(super) fn last(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
    ) -> Result<Option<(IVec, IVec)>, RegistryError> {
        let last = guarded(self.dir, || self.db.range(start..end).next_back().transpose())?;
        last.map(|(key, stored)| Ok((key.clone(), self.payload(&key, stored)?))).transpose()
    }

    fn stored(&self, key: &[u8]) -> Result<Option<IVec>, RegistryError> {
        guarded(self.dir, || self.db.get(key))
    }

    fn payload(&self, key: &[u8], stored: IVec) -> Result<IVec, RegistryError> {
        let missing =
            || RegistryError::damaged(format!("record {} is cut short", hex::encode(key)));
        match stored.split_first() {
            Some((&WHOLE, rest)) => codec::unseal(key, &stored.subslice(1, rest.len())),
            Some((&SPLIT, _)) => {
                let mut sealed = stored.get(3..).ok_or_else(missing)?.to_vec();
                for position in 1..=further_pieces(&stored) {
                    sealed.extend(
                        self.stored(&piece_key(key, position))?.ok_or_else(missing)?.iter(),
                    );
                }
                codec::unseal(key, &sealed.into())
            }
            _ => Err(missing()),
        }
    }
}

impl Changes {
    pub(super) fn put<T: Serialize>(
        &mut self,
        key: Vec<u8>,
        record: &T,
    ) -> Result<(), RegistryError> {
        self.put_bytes(key, codec::encode(record)?);
        Ok(())
    }

    pub(super) fn put_bytes(&mut self, key: Vec<u8>, payload: Vec<u8>) {
        self.0.insert(key, Some(payload));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// Removes every record with a prefix, those just put too.
    pub(super) fn remove_all(
        &mut self,
        view: &View<'_>,
        prefix: Vec<u8>,
    ) -> Result<(), RegistryError> {
        let put: Vec<_> =
            self.0.range(prefix.clone()..end_of(&prefix)).map(|(key, _)| key.clone()).collect();
        put.into_iter().for_each(|key| self.remove(key));
        for record in view.all(prefix) {
            self.remove(record?.0.to_vec());
        }
        Ok(())
    }

    /// The payload that will be under a key.
    pub(super) fn get(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.0.get(key) {
            Some(payload) => Ok(payload.clone()),
            None => Ok(view.get(key)?.map(|payload| payload.to_vec())),
        }
    }

    /// The record that will be under a key.
    pub(super) fn record<T: DeserializeOwned>(
        &self,
        view: &View<'_>,
        key: &[u8],
    ) -> Result<Option<T>, RegistryError> {
        self.get(view, key)?.map(|payload| codec::decode(&payload)).transpose()
    }
}

/// The stored values of a payload: its own, and those of further pieces.
fn pieces(key: &[u8], payload: &[u8]) -> Result<Vec<Stored>, RegistryError> {
    let sealed = codec::seal(key, payload);
    if sealed.len() <= PIECE {
        return Ok(vec![(key.to_vec(), [&[WHOLE], &*sealed].concat())]);
    }
    let chunks: Vec<_> = sealed.chunks(PIECE).collect();
    let further = u16::try_from(chunks.len() - 1)
        .map_err(|_| RegistryError::Unstorable { what: "too many pieces".into() })?;
    let [high, low] = further.to_be_bytes();
    let values = chunks.into_iter().zip(0..).map(|(chunk, position)| match position {
        0 => (key.to_vec(), [&[SPLIT, high, low], chunk].concat()),
        _ => (piece_key(key, position), chunk.to_vec()),
    });
    Ok(values.collect())
}

fn further_pieces(stored: &[u8]) -> u16 {
    match stored {
        [SPLIT, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

fn piece_key(key: &[u8], position: u16) -> Vec<u8> {
    Table::Pieces.with(&[key, &position.to_be_bytes()])
}

/// Calls sled, which panics on some damage that it finds.
fn guarded<T>(dir: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, RegistryError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|error| refused(dir, error)),
        Err(_) => Err(RegistryError::damaged("the database cannot be read")),
    }
}

fn refused(dir: &Path, error: sled::Error) -> RegistryError {
    match error {
        sled::Error::Io(e)
            if e.kind() == io::ErrorKind::Other && e.to_string().contains("lock") =>
        {
            RegistryError::InUse { dir: dir.into() }
        }
        sled::Error::Io(e)
            if matches!(
                e.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            RegistryError::damaged(e.to_string())
        }
        sled::Error::Io(e) => RegistryError::io("use", dir, e),
        other => RegistryError::damaged(other.to_string()),
    }
}
