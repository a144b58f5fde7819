//! Opens and calls sled, and turns its errors and panics into [`RegistryError`]s.

use std::{
    io,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread::{self, Thread, ThreadId},
    time::{Duration, Instant},
};

use super::{codec, error::RegistryError, layout::Table, pieces::pieces, store::Head};

/// Size of sled's page cache in bytes; its default is 1 GiB.
const CACHE: u64 = 8 * 1024 * 1024;

/// How long opening waits for a database that was just closed: sled's threads release its file with a delay.
const CLOSING: Duration = Duration::from_secs(5);

/// Opens the database. A panic of sled, as some damaged files cause, becomes `Damaged`.
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

/// Creates a database and writes its first records.
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
    // sled detects flipped bits only with a snapshot, and it writes the first one when it opens the database again.
    open_sled(dir).map(drop)
}

/// Runs `open` and turns a panic into `Damaged`. What the panic would print to stderr, in this thread or in sled's, is
/// suppressed: the error says it in one line.
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

/// The thread that is opening a database.
static OPENER: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Whether a database is being opened and this is the thread that opens it, or one of sled's.
fn is_opening_thread(thread: &Thread) -> bool {
    let is_sleds = thread.name().is_some_and(|name| name.starts_with("sled"));
    lock(&OPENER).is_some_and(|opener| opener == thread.id() || is_sleds)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls sled and turns its errors into ours. A panic, as some damage causes, becomes `Damaged`.
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
