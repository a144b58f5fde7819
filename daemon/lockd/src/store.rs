//! The records on disk: one file for each Key, named by the SHA-256 of its access key, and replaced as a whole.
//!
//! Revocations are kept a second time, in a directory of their own: where a failing disk takes the record of a revoked Backup,
//! its CA must not be trusted again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use keywright_proto::tree::Hash;

use crate::{
    error::Error,
    files::{self, Readers},
    record::{MAX_RECORD, Record},
};

/// The directory of the records in the state directory.
pub const DIRECTORY: &str = "keys";
/// The directory of the revocations' second copies: records, too.
pub const REVOCATIONS: &str = "revocations";
const SUFFIX: &str = ".cbor";

/// The directory of the records.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the directory, or creates it.
    pub fn open(state: &Path, directory: &str) -> Result<Self, Error> {
        let directory = state.join(directory);
        files::create_directory(&directory, Readers::Owner).map_err(Error::file(&directory))?;
        Ok(Self { directory })
    }

    /// The path of a Key's record.
    pub fn path(&self, key: &Hash) -> PathBuf {
        self.directory.join(format!("{}{SUFFIX}", hex::encode(key)))
    }

    /// The Keys that have a record.
    pub fn keys(&self) -> Result<Vec<Hash>, Error> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(Error::file(&self.directory))? {
            let name = entry.map_err(Error::file(&self.directory))?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let mut key = [0; 32];
            if digits.is_some_and(|digits| hex::decode_to_slice(digits, &mut key).is_ok()) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Reads a Key's record; an empty one if there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`], or the operating system refuses.
    pub fn read(&self, key: &Hash) -> Result<Record, Error> {
        let path = self.path(key);
        match files::read_if_exists(&path, MAX_RECORD) {
            Ok(None) => Ok(Record::default()),
            Ok(Some(bytes)) => Record::decode(&bytes).map_err(|what| damaged(path, what.into())),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(damaged(path, error.to_string()))
            }
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    /// Replaces a Key's record durably.
    ///
    /// # Errors
    /// The operating system refuses; the old record stays.
    pub fn write(&self, key: &Hash, record: &Record) -> Result<(), Error> {
        let path = self.path(key);
        files::replace(&path, &record.encode(), Readers::Owner).map_err(Error::file(&path))
    }

    /// Deletes a Key's record, if there is one, durably.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn delete(&self, key: &Hash) -> Result<(), Error> {
        let path = self.path(key);
        files::remove(&path).map_err(Error::file(&path))
    }
}

/// The error for a damaged record.
pub fn damaged(path: PathBuf, what: String) -> Error {
    let next = "the Key is not admitted; remove that file to start again with this Key";
    Error::Damaged { path, what, next }
}
