//! One process at a time uses a directory: a lock on a file in or beside it.

use std::{
    fs::{File, TryLockError},
    io,
};

/// The right to use what a lock file stands for. The operating system takes it back with the process, however that ends.
#[derive(Debug)]
pub struct InstanceLock(File);

impl InstanceLock {
    /// Locks this file; `None` where another process has locked it.
    ///
    /// # Errors
    /// The operating system refuses.
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
        // Not left to the closing of the file: a process that is just being started may have it open too.
        // There is nothing to be done about a failure, and closing releases the lock a moment later.
        let _ = self.0.unlock();
    }
}
