//! How many calls one user may have open at a time: each holds its file descriptors, and maybe a thread or a question that
//! polkit asks. Whoever opens more, over any number of connections, waits alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::error::Error;

/// Calls of one user that may be open.
pub const MAX_CALLS: usize = 64;
/// Of these, calls that read or write a file: each keeps a thread until the file's other end is done.
pub const MAX_FILES: usize = 4;

/// Counts what each user has open.
#[derive(Debug, Clone)]
pub struct InFlight {
    open: Arc<Mutex<BTreeMap<u32, usize>>>,
    most: usize,
    what: &'static str,
}

/// Something that a user has open, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    uid: u32,
    open: Arc<Mutex<BTreeMap<u32, usize>>>,
}

impl InFlight {
    /// At most so many of `what` for each user.
    pub fn new(most: usize, what: &'static str) -> Self {
        Self { open: Arc::default(), most, what }
    }

    /// Opens one more for this user.
    ///
    /// # Errors
    /// `LimitExceeded`: there are too many.
    pub fn enter(&self, uid: u32) -> Result<Slot, Error> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(uid).or_default();
        if *open >= self.most {
            return Err(Error::LimitExceeded(format!(
                "user {uid} has {} {} open already; wait until one of them has ended",
                self.most, self.what
            )));
        }
        *open += 1;
        Ok(Slot { uid, open: Arc::clone(&self.open) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(&self.uid) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use keywright_proto::ErrorName;

    use super::*;

    #[test]
    fn user_with_too_many_open_waits_alone() {
        let calls = InFlight::new(2, "calls");
        let (first, _second) = (calls.enter(7).unwrap(), calls.enter(7).unwrap());
        assert_eq!(calls.enter(7).unwrap_err().name(), ErrorName::LimitExceeded);
        let _other = calls.enter(8).unwrap();
        drop(first);
        let _third = calls.enter(7).unwrap();
        assert!(calls.enter(7).is_err());
        drop((_second, _third));
        assert!(!calls.open.lock().unwrap().contains_key(&7));
    }
}
