//! Files: read bounded, written whole or not at all.

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

/// Makes a directory where there is none; one that is there keeps its mode.
pub fn create_directory(path: &Path, readers: Readers) -> io::Result<()> {
    match fs::DirBuilder::new().mode(readers.directory_mode()).create(path) {
        Ok(()) => give_to_owner_of_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// What root makes by hand (`claim`, `apply`) has to stay readable for the user that the service runs as: the owner of
/// the directory.
fn give_to_owner_of_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|_| geteuid().is_root()) else { return Ok(()) };
    let owner = fs::metadata(parent)?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Replaces a file by one with these bytes: whoever reads it sees the old one or the new one, also after a power cut.
/// On an error, a full disk among them, the old one stays.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    prepare(path, bytes, readers)?.commit()?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes a file with these bytes where there is none, and answers whether it did; one that is there stays as it is. Either
/// way there is a whole one, also after a power cut.
pub fn create(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<bool> {
    let is_first = prepare(path, bytes, readers)?.commit_if_absent()?;
    // Whoever was first may not have come to that.
    path.parent().map_or(Ok(()), sync_directory)?;
    Ok(is_first)
}

/// Forces to the disk which files a directory has.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file, durably; one that is not there is removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
    }
}

/// Reads a file of at most `longest` bytes; [`io::ErrorKind::FileTooLarge`] above that, before more is read. Only a
/// regular file is read, and no symbolic link is followed: what is put in a directory must not make us wait or leave it.
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
        // A pipe that nobody writes to would be waited for.
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
