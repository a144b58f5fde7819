//! One process at a time changes a state directory.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    error::Error,
    files::{self, Readers},
};

const LOCK: &str = "lockd.lock";

/// Takes the right to change a state directory. The operating system takes it back with the process.
///
/// # Errors
/// [`Error::InUse`].
pub fn exclusive(state: &Path) -> Result<File, Error> {
    files::directory(state, Readers::Everybody).map_err(Error::file(state))?;
    let path = state.join(LOCK);
    make(&path).map_err(Error::file(&path))?;
    let file = File::open(&path).map_err(Error::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(state.to_owned())),
        Err(TryLockError::Error(error)) => Err(Error::file(&path)(error)),
    }
}

/// Makes the file where there is none. One that is there is never replaced: somebody may have locked it just now, and the
/// next one would lock another.
fn make(path: &Path) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if path.exists() {
        return Ok(());
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let new = path.with_file_name(format!(".{LOCK}.{}.{number}", process::id()));
    files::replace(&new, b"", Readers::Owner)?;
    let moved = match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(&new, path),
        moved => moved.map_err(io::Error::from),
    };
    files::remove(&new)?;
    match moved {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn of_several_first_starts_at_once_one_goes_on() {
        for _ in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path().join("state");
            let at_once = Barrier::new(4);
            let start = || {
                at_once.wait();
                let got = exclusive(&state);
                // Nobody lets go before everybody has tried.
                at_once.wait();
                match got {
                    Ok(_) => true,
                    Err(Error::InUse(_)) => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let went_on: usize = thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|start| usize::from(start.join().unwrap())).sum()
            });
            assert_eq!(went_on, 1);
            assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        }
    }
}
