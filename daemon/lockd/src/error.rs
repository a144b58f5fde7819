//! Errors: what failed, on which file, and what to do next.

use std::{
    io,
    path::{Path, PathBuf},
};

use keywright_proto::grant::GrantError;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}; mend that and try again", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file of this program is damaged.
    #[error("{} is damaged ({what}); {next}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// The Lock is not claimed by a family yet.
    #[error(
        "this Lock has no family yet; give the output of `keywright-lockd request` to `keywrightctl lock add`, and \
         the file that this writes to `keywright-lockd claim`"
    )]
    Unclaimed,
    /// The Lock is pinned to another family.
    #[error(
        "this Lock belongs to family {0} and stays with it; to give it to another one, remove its state directory and \
         start again"
    )]
    OtherFamily(String),
    /// A certificate chain that is not for this Lock.
    #[error(
        "not a certificate chain of this Lock: {0}; give the file that `keywrightctl lock add` wrote for it"
    )]
    NotOurChain(String),
    /// Another process uses the state directory.
    #[error("{} is in use by another keywright-lockd; stop that one first", .0.display())]
    InUse(PathBuf),
    /// The system failed: no randomness, no thread, no signature.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// Adds the file's path to an error of the operating system.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Why a grant, or a certificate of this Lock, was refused and changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The grant does not verify.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The file cannot be read, or is too long.
    #[error("cannot be read: {0}; bring the file once more")]
    Unreadable(io::Error),
    /// The same signer has signed a newer statement, or a denial of the same version.
    #[error("older than what this Lock knows (version {known}); there is nothing to do")]
    Older {
        /// The known version.
        known: u64,
    },
    /// The signer's issuing key was revoked, or every chain to it leads through a revoked one.
    #[error("its signer was revoked; let a Master or Backup Key that is trusted give this right")]
    RevokedSigner,
    /// The limit of Keys is reached.
    #[error(
        "this Lock keeps {0} Keys of the Backup that signed this, or of those below it, which is its limit; raise `max_keys` \
         in lockd.toml, or take rights away"
    )]
    TooManyKeys(usize),
    /// The record of this Key is full, and nothing in it may be evicted for this statement.
    #[error(
        "too many Master and Backup Keys have signed statements about this Key; revoke some of them"
    )]
    TooManySigners,
    /// The record of this Key is damaged, so the grant cannot be compared with it.
    #[error("the record of this Key is damaged: {}; remove that file to start again with this Key", .0.display())]
    DamagedKey(PathBuf),
    /// A chain from the link that is not accepted.
    #[error("not a new certificate of this Lock: {0}")]
    Chain(String),
    /// The change could not be saved.
    #[error("could not be saved, so nothing changes: {0}")]
    NotSaved(Box<Error>),
}
