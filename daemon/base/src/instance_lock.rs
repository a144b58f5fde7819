//! An exclusive lock on a file, so that one process at a time uses a directory.

use std::{
    fs::{File, TryLockError},
    io,
};

/// An exclusive lock on a file. The operating system releases it when the process ends.
#[derive(Debug)]
pub struct InstanceLock(File);

impl InstanceLock {
    /// Locks the file; returns `None` if another process holds the lock.
    pub fn take(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Unlock now: a child process that is just being started may hold a copy of the descriptor for a moment.
        // A failure can be ignored: closing the file releases the lock.
        let _ = self.0.unlock();
    }
}
