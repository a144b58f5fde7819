//! Reads files up to a limit, and writes them atomically.
//!
//! Functions that return `io::Result` fail only as the operating system does, unless they say otherwise.

mod prepared;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

pub use prepared::{Prepared, Writers, prepare, remove_leftovers, set_aside};

use rustix::{fs::OFlags, process::geteuid};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The program's own user.
    Owner,
    /// Everybody on the machine.
    Everybody,
}

impl Readers {
    const fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everybody => 0o644,
        }
    }

    const fn directory_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Everybody => 0o755,
        }
    }
}

/// Creates a directory; one that exists keeps its mode.
pub fn create_directory(path: &Path, readers: Readers) -> io::Result<()> {
    match fs::DirBuilder::new().mode(readers.directory_mode()).create(path) {
        Ok(()) => give_to_owner_of_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a file made by root (`claim`, `apply`) to the owner of its directory, so that the service's user can read
/// it.
fn give_to_owner_of_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|_| geteuid().is_root()) else { return Ok(()) };
    let owner = fs::metadata(parent)?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Replaces a file atomically and durably: readers see the old content or the new one, also after a power cut. On an
/// error, for example a full disk, the old file stays.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    prepare(path, bytes, readers)?.commit()?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Creates a file atomically and durably, and returns true; an existing file stays, and false is returned.
pub fn create(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<bool> {
    let is_first = prepare(path, bytes, readers)?.commit_if_absent()?;
    // The process that created it may not have synced the directory yet.
    path.parent().map_or(Ok(()), sync_directory)?;
    Ok(is_first)
}

/// Forces a directory's entries to the disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file durably. A missing file is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
    }
}

/// Reads a regular file of at most `longest` bytes. A longer one is [`io::ErrorKind::FileTooLarge`]. Symbolic links
/// are not followed and pipes are not opened: a file that somebody puts into a directory must not block the program
/// or lead out of the directory.
pub fn read(path: &Path, longest: usize) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let limit = longest as u64;
    let mut bytes = Vec::new();
    if about.len() <= limit {
        file.take(limit + 1).read_to_end(&mut bytes)?;
    }
    if about.len() > limit || bytes.len() > longest {
        let text = format!("longer than {longest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Reads a file like [`read`]; `None` if there is none.
pub fn read_if_exists(path: &Path, longest: usize) -> io::Result<Option<Vec<u8>>> {
    match read(path, longest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_whole_and_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        replace(&path, b"old", Readers::Owner).unwrap();
        replace(&path, b"new one", Readers::Everybody).unwrap();
        assert_eq!(read(&path, 7).unwrap(), b"new one");
        assert_eq!(read(&path, 6).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(read(&link, 1 << 20).is_err());
        assert!(read(dir.path(), 1 << 20).is_err());
        // Opening a pipe without a writer would block.
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert!(read(&pipe, 10).is_err());
    }

    #[test]
    fn too_long_file_is_not_read() {
        // Sparse: 1 GB without taking any room.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(read(&path, 65_536).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
