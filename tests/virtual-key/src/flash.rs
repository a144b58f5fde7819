//! The token's flash memory: two littlefs partitions in one file.
//!
//! littlefs survives a power cut at any write, so the program may be killed at any time, as a token may
//! be pulled out at any time.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Error, ErrorKind, Result},
    os::unix::fs::FileExt,
    path::Path,
};

use littlefs2::{
    consts::{U8, U512},
    driver::Storage,
    io,
};
use trussed::virt::{StorageConfig, Store, StoreConfig};

const BLOCK: usize = 512;
const BLOCKS: usize = 512;
const PARTITION: usize = BLOCK * BLOCKS;

/// The memory of one token.
pub struct Flash(StoreConfig<'static>);

impl Flash {
    /// Opens the memory in this file; creates it if the file does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let fresh = !path.exists();
        if fresh {
            make(path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != 2 * PARTITION as u64 {
            return Err(Error::new(ErrorKind::InvalidData, "it is not a virtual Key's memory"));
        }
        Ok(Self(StoreConfig {
            internal: partition(&file, 0, false)?,
            external: partition(&file, 1, false)?,
            volatile: StorageConfig::ram(),
        }))
    }

    /// Runs the token on it.
    pub fn with_store<T>(&mut self, run: impl FnOnce(Store<'_>) -> T) -> T {
        self.0.with_store(run)
    }
}

/// Formats a new memory under a temporary name and renames it, so that the path never has a half-formatted one.
fn make(path: &Path) -> Result<()> {
    let mut name = OsString::from(path);
    name.push(".new");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&name)?;
    file.set_len(2 * PARTITION as u64)?;
    for index in 0..2 {
        let formatted = partition(&file, index, true)?.with_fs(|_| ());
        formatted.map_err(|error| Error::other(format!("littlefs: {error:?}")))?;
    }
    fs::rename(name, path)
}

fn partition(file: &File, index: u64, format: bool) -> Result<StorageConfig<'static>> {
    let partition = Partition { file: file.try_clone()?, start: index * PARTITION as u64 };
    Ok(StorageConfig { storage: Box::new(partition), format })
}

struct Partition {
    file: File,
    start: u64,
}

impl Storage for Partition {
    const READ_SIZE: usize = 16;
    const WRITE_SIZE: usize = 16;
    const BLOCK_SIZE: usize = BLOCK;
    const BLOCK_COUNT: usize = BLOCKS;
    type CACHE_SIZE = U512;
    type LOOKAHEAD_SIZE = U8;

    fn read(&mut self, offset: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.start + offset as u64;
        self.file.read_exact_at(buffer, at).map_err(|_| io::Error::IO)?;
        Ok(buffer.len())
    }

    fn write(&mut self, offset: usize, data: &[u8]) -> io::Result<usize> {
        let at = self.start + offset as u64;
        self.file.write_all_at(data, at).map_err(|_| io::Error::IO)?;
        Ok(data.len())
    }

    fn erase(&mut self, offset: usize, length: usize) -> io::Result<usize> {
        self.write(offset, &vec![0xFF; length])
    }
}
