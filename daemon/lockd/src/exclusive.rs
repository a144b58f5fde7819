//! Locks a state directory, so that one process at a time changes it.

use std::{fs::File, path::Path};

use keywright_base::{
    InstanceLock,
    files::{self, Readers},
};

use crate::error::Error;

const LOCK: &str = "lockd.lock";

/// Locks a state directory until the returned lock is dropped.
///
/// # Errors
/// [`Error::InUse`].
pub fn exclusive(state: &Path) -> Result<InstanceLock, Error> {
    files::create_directory(state, Readers::Everybody).map_err(Error::file(state))?;
    let path = state.join(LOCK);
    if !path.exists() {
        // The lock file is never replaced: two processes could then hold locks on two different files.
        files::create(&path, b"", Readers::Owner).map_err(Error::file(&path))?;
    }
    let file = File::open(&path).map_err(Error::file(&path))?;
    let taken = InstanceLock::take(file).map_err(Error::file(&path))?;
    taken.ok_or_else(|| Error::InUse(state.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Barrier, thread};

    use super::*;

    #[test]
    fn one_of_several_concurrent_starts_gets_the_state_directory() {
        for _ in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path().join("state");
            let at_once = Barrier::new(4);
            let start = || {
                at_once.wait();
                let got = exclusive(&state);
                // Nobody releases the lock before everybody has tried.
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
