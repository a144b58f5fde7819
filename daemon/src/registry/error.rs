//! Errors of the registry. Each says what happened and what to do.

use std::{fmt::Display, io, path::PathBuf};

/// A registry that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The operating system refused.
    #[error("cannot {what} {}: {source}; mend that and start again", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `write`.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk is too full for a change. What was committed before is intact.
    #[error("the disk that holds {} is full: free some space, then try again", dir.display())]
    DiskFull {
        /// The registry's directory.
        dir: PathBuf,
    },
    /// A record is lost or altered. While the registry is being opened this becomes `Quarantined`.
    #[error(
        "the registry is damaged ({what}): stop the daemon and move the registry's directory away, \
         start again for an empty registry, and import what another station exported"
    )]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// A damaged registry was set aside.
    #[error(
        "the registry was damaged ({what}) and has been moved to {}: start again for an empty registry, \
         and import what another station exported", moved_to.display()
    )]
    Quarantined {
        /// What is wrong.
        what: String,
        /// Where its files are now.
        moved_to: PathBuf,
    },
    /// An earlier registry was damaged and set aside, and nobody has acknowledged that.
    #[error(
        "an earlier registry was damaged and is in {}, so revocations may be unknown here: import what another \
         station exported (keywrightctl family import), then: keywrightctl registry acknowledge",
        moved_to.display()
    )]
    Lost {
        /// Where its files are.
        moved_to: PathBuf,
    },
    /// Written by a newer version of the program.
    #[error(
        "the registry in {} has format {found} and this program knows formats up to {known}: \
         install the newer program again", dir.display()
    )]
    NewerSchema {
        /// The registry's directory.
        dir: PathBuf,
        /// The number found.
        found: u32,
        /// The newest number known.
        known: u32,
    },
    /// Another process has it open.
    #[error(
        "the registry in {} is in use by another process: stop the other daemon, \
         or give this one another state directory", dir.display()
    )]
    InUse {
        /// The registry's directory.
        dir: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not a registry ({what}); nothing was changed: give another state directory", dir.display())]
    NotARegistry {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// An earlier commit failed half-way. What is on disk is known only after the registry is opened again.
    #[error("the registry in {} stopped after a failed write: start the daemon again", dir.display())]
    Stopped {
        /// The registry's directory.
        dir: PathBuf,
    },
    /// A record is larger than 4 MiB or cannot be encoded.
    #[error("a record cannot be stored ({what}): make it smaller")]
    Unstorable {
        /// Why not.
        what: String,
    },
}

impl RegistryError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    /// Takes a record that is lost or altered for one that is not there, after logging it. Whoever calls this must not
    /// decide anything by the record, only do without what it belongs to.
    ///
    /// # Errors
    /// Every error but `Damaged`.
    pub fn skip_damaged<T>(read: Result<T, Self>, what: impl Display) -> Result<Option<T>, Self> {
        match read {
            Err(error @ Self::Damaged { .. }) => {
                tracing::error!(%error, "{what} is left out");
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// What the operating system refused, with the verb and path of [`RegistryError::Io`]. A full disk is `DiskFull`.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { dir: path }
            }
            _ => Self::Io { what, path, source },
        }
    }
}

/// Turns an I/O error into a [`RegistryError`] that says what was tried on which path.
pub(super) trait IoContext<T> {
    /// Adds a verb, such as `open` or `write`, and the path.
    fn context(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, RegistryError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, what: &'static str, path: impl Into<PathBuf>) -> Result<T, RegistryError> {
        self.map_err(|error| RegistryError::io(what, path, error))
    }
}
