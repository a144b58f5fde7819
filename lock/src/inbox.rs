//! The directory that grants are dropped into, watched with inotify.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// What was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// The file of this name.
    File(OsString),
    /// So many that the kernel does not tell which: look at all of them.
    Many,
}

/// A watched directory.
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches a directory. What is in it already is for [`waiting`].
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        // A file counts when it is complete: closed by whoever wrote it, or moved here.
        inotify::add_watch(&inotify, directory, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO)?;
        Ok(Self { inotify })
    }

    /// Waits for files and tells of them, until `tell` says that nobody listens any more.
    ///
    /// # Errors
    /// The watch has ended.
    pub fn run(&self, tell: impl Fn(Dropped) -> bool) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; 8192];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(Errno::INTR) => continue,
                event => event?,
            };
            let dropped = if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                Dropped::Many
            } else {
                match event.file_name().map(CStr::to_bytes) {
                    Some(name) if counts(name) => Dropped::File(OsStr::from_bytes(name).into()),
                    _ => continue,
                }
            };
            if !tell(dropped) {
                return Ok(());
            }
        }
    }
}

/// Whether a file of this name is meant for us. Programs that copy put a dot before a name that is not complete.
fn counts(name: &[u8]) -> bool {
    !name.starts_with(b".")
}

/// What is in the directory now.
///
/// # Errors
/// It cannot be read.
pub fn waiting(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| counts(name.as_bytes()));
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn complete_files_are_told_of_and_hidden_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::start(dir.path()).unwrap();
        let (send, told) = mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || watch.run(|dropped| send.send(dropped).is_ok()));
        fs::write(dir.path().join(".partial"), "x").unwrap();
        fs::rename(dir.path().join(".partial"), dir.path().join("moved")).unwrap();
        fs::write(dir.path().join("written"), "x").unwrap();
        for name in ["moved", "written"] {
            assert_eq!(told.recv().unwrap(), Dropped::File(name.into()));
        }
        assert_eq!(waiting(dir.path()).unwrap(), ["moved", "written"]);
        drop(told);
        fs::write(dir.path().join("last"), "x").unwrap();
        thread.join().unwrap().unwrap();
    }
}
