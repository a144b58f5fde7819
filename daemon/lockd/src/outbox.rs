//! The outbox: confirmations as files, to be carried to a station, and refusals with their reason.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    files::{self, Readers},
};

/// The directory of answers: `NAME.confirmation` or `NAME.refused`.
pub const OUTBOX: &str = "outbox";
/// The suffix of a confirmation.
pub const CONFIRMATION: &str = "confirmation";
/// The suffix of a refusal.
pub const REFUSED: &str = "refused";
/// How many answers are kept; the oldest are then removed.
const MAX_FILES: usize = 20_000;
/// The longest file name that is repeated in its answer's name, in bytes.
const MAX_NAME: usize = 200;

/// The directory of answers.
pub struct Outbox(PathBuf);

impl Outbox {
    /// Opens the directory, or creates it.
    pub fn open(state: &Path) -> Result<Self, Error> {
        let path = state.join(OUTBOX);
        files::create_directory(&path, Readers::Everybody).map_err(Error::file(&path))?;
        Ok(Self(path))
    }

    /// Writes an answer.
    pub fn put(&self, name: &str, kind: &str, bytes: &[u8]) -> Result<(), Error> {
        self.make_room().map_err(Error::file(&self.0))?;
        let path = self.0.join(format!("{name}.{kind}"));
        files::replace(&path, bytes, Readers::Everybody).map_err(Error::file(&path))
    }

    /// Nobody may ever fetch the answers, so they must not fill the disk.
    fn make_room(&self) -> io::Result<()> {
        if fs::read_dir(&self.0)?.count() < MAX_FILES {
            return Ok(());
        }
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            all.push((entry.metadata()?.modified()?, entry.path()));
        }
        all.sort_unstable();
        all.iter().take(MAX_FILES / 4).try_for_each(|(_, path)| files::remove(path))
    }
}

/// The name of the answer to a file in the inbox.
pub fn answer_name(dropped: &OsStr) -> String {
    match dropped.to_str().filter(|name| name.len() <= MAX_NAME) {
        Some(name) => name.to_owned(),
        None => hex::encode(Sha256::digest(dropped.as_bytes())),
    }
}
