//! What went wrong, to what, and what to do next.

use std::{
    io,
    path::{Path, PathBuf},
};

use keywright_proto::grant::GrantError;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that this program wrote is not as it wrote it.
    #[error("{} is damaged ({what}); {next}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// No family yet.
    #[error(
        "this Lock has no family yet; give `keywright-lockd request` to `keywrightctl lock add`, and what that \
         answers to `keywright-lockd claim`"
    )]
    Unclaimed,
    /// Another family than the one that is pinned.
    #[error(
        "this Lock belongs to family {0} and stays with it; to give it to another one, remove its state directory and \
         start anew"
    )]
    OtherFamily(String),
    /// A chain that is not for this Lock.
    #[error("not the certificates of this Lock: {0}")]
    NotOurChain(String),
    /// Another process uses the state directory.
    #[error("{} is in use by another keywright-lockd", .0.display())]
    InUse(PathBuf),
    /// No randomness, no signature: the machine is broken.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// Names the file in an error of the operating system.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Why a grant, or a certificate of this Lock, changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not believed.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// Not a file that can be read, or one that is too long.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The same signer has said something newer, or the same thing as new.
    #[error("older than what this Lock knows (version {known})")]
    Older {
        /// The version that is known.
        known: u64,
    },
    /// Its signer's issuing key was revoked, or leads to the root through one that was.
    #[error("its signer was revoked")]
    RevokedSigner,
    /// No room.
    #[error("this Lock keeps {0} Keys already, which is its limit (`max_keys`)")]
    TooManyKeys(usize),
    /// No room for what one more signer says of a Key.
    #[error("too many Master and Backup Keys have said something of this Key; revoke some of them")]
    TooManySigners,
    /// What is known of the Key cannot be read, so nothing can be compared with it.
    #[error("what is known of this Key is damaged: {}; remove that file to start anew with it", .0.display())]
    DamagedKey(PathBuf),
    /// A chain from the link that is not taken.
    #[error("not a new certificate of this Lock: {0}")]
    Chain(String),
    /// It could not be saved.
    #[error("could not be saved, so nothing changes: {0}")]
    NotSaved(Box<Error>),
}
