//! sled as it has to be opened and called here.

use std::{
    io,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread::{self, Thread, ThreadId},
    time::{Duration, Instant},
};

use super::{codec, error::RegistryError, layout::Table, pieces::pieces, store::Head};

/// sled's default is 1 GiB.
const CACHE: u64 = 8 * 1024 * 1024;

/// How long a database may take to let go of its file, once closed: sled's threads do that in their own time.
const CLOSING: Duration = Duration::from_secs(5);

/// Opens sled as it has to be here. It panics on some damaged files.
pub(super) fn open_sled(dir: &Path) -> Result<sled::Db, RegistryError> {
    let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(CACHE);
    let begun = Instant::now();
    loop {
        match catch_sled_panic(dir, || config.open()) {
            Err(RegistryError::InUse { .. }) if begun.elapsed() < CLOSING => {
                thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
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
    catch_sled_panic(dir, || db.apply_batch(batch).and_then(|()| db.flush()))?;
    drop(db);
    // Only a database with a snapshot notices flipped bits, and sled writes the first one when it opens again.
    open_sled(dir).map(drop)
}

/// Opens a database with `open`, without a word on stderr if sled panics, in whatever thread: the error says it,
/// in one line.
pub(super) fn without_panic_output<T>(
    open: impl FnOnce() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    static ONE: Mutex<()> = Mutex::new(());
    static HOOK: Once = Once::new();
    let _one = lock(&ONE);
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_opening_thread(&thread::current()) {
                others(info);
            }
        }));
    });
    *lock(&OPENER) = Some(thread::current().id());
    let answer = catch_unwind(AssertUnwindSafe(open));
    *lock(&OPENER) = None;
    answer.unwrap_or_else(|_| Err(RegistryError::damaged("the database cannot be read")))
}

/// The thread that opens a database right now.
static OPENER: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Whether a thread is the one that opens a database, or one of sled's meanwhile.
fn is_opening_thread(thread: &Thread) -> bool {
    let is_sleds = thread.name().is_some_and(|name| name.starts_with("sled"));
    lock(&OPENER).is_some_and(|opener| opener == thread.id() || is_sleds)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls sled, which panics on some damage that it finds.
pub(super) fn catch_sled_panic<T>(
    dir: &Path,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, RegistryError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|error| refused(dir, error)),
        Err(_) => Err(RegistryError::damaged("the database cannot be read")),
    }
}

pub(super) fn refused(dir: &Path, error: sled::Error) -> RegistryError {
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
        sled::Error::Corruption { .. } => {
            RegistryError::damaged("a page of the database does not match its checksum")
        }
        other => RegistryError::damaged(other.to_string()),
    }
}
