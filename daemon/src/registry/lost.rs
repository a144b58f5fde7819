//! A damaged registry that was set aside. What only it knew is lost, revocations above all; so the daemon signs and offers
//! nothing until somebody has acknowledged that.
//!
//! The directory that was set aside says it itself, so that no crash can forget it: it counts until it has a file
//! `acknowledged`, or is moved away.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use super::{
    Registry,
    directory::{DAMAGED, beside, parent, sync},
    error::{IoContext, RegistryError},
};

const ACKNOWLEDGED: &str = "acknowledged";

impl Registry {
    /// The registry that was set aside last, if nobody has acknowledged that.
    pub fn lost(&self) -> Option<PathBuf> {
        self.0.lost.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Checks that nothing is lost, before something is decided by what is known here.
    ///
    /// # Errors
    /// `Lost`.
    pub fn check_nothing_is_lost(&self) -> Result<(), RegistryError> {
        self.lost().map_or(Ok(()), |moved_to| Err(RegistryError::Lost { moved_to }))
    }

    /// Notes that somebody knows of every loss. A directory that is not there any more needs no note.
    ///
    /// # Errors
    /// `Io`.
    pub fn acknowledge_loss(&self) -> Result<(), RegistryError> {
        let mut lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for dir in lost.iter().filter(|dir| dir.is_dir()) {
            let note = dir.join(ACKNOWLEDGED);
            fs::write(&note, "").context("write", &note)?;
            sync(dir)?;
        }
        lost.clear();
        Ok(())
    }
}

/// The registries beside `dir` that were set aside and are not acknowledged, the last one last.
pub(super) fn find(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let parent = parent(dir);
    let begin = beside(dir, DAMAGED);
    let begin = begin.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).context("read", parent)? {
        let path = entry.context("read", parent)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(begin) && path.is_dir() && is_missing(&path.join(ACKNOWLEDGED)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
