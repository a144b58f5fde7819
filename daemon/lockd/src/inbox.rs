//! Watches a directory with inotify for complete files, and removes exactly the file that was judged.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use crate::files::{self, Prepared};

/// A change in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryEvent {
    /// A file of this name is complete.
    File(OsString),
    /// The kernel's event queue overflowed: list the directory.
    Overflow,
}

/// A watched directory.
pub struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Starts to watch a directory. [`complete_files`] lists those that are already there.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        // A file is complete when its writer has closed it, or when it was moved here.
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVE_SELF;
        inotify::add_watch(&inotify, directory, flags)?;
        Ok(Self { inotify })
    }

    /// Waits for files and passes them to `tell`, until `tell` returns false.
    ///
    /// # Errors
    /// The watch has ended, because the directory was removed or renamed.
    pub fn run(&self, tell: impl Fn(DirectoryEvent) -> bool) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; 8192];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(Errno::INTR) => continue,
                event => event?,
            };
            let dropped = if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                DirectoryEvent::Overflow
            } else if event.events().intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                let gone = "the directory was removed or renamed";
                return Err(io::Error::new(io::ErrorKind::NotFound, gone));
            } else {
                match event.file_name().map(CStr::to_bytes) {
                    Some(name) if is_effective(name) => {
                        DirectoryEvent::File(OsStr::from_bytes(name).into())
                    }
                    _ => continue,
                }
            };
            if !tell(dropped) {
                return Ok(());
            }
        }
    }
}

/// Whether a file name is not hidden. Programs that copy put a dot before the name of an incomplete file.
fn is_effective(name: &[u8]) -> bool {
    !name.starts_with(b".")
}

/// The names of the complete files in the directory now.
pub fn complete_files(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| is_effective(name.as_bytes()));
    names.sort_unstable();
    Ok(names)
}

/// A file in the inbox. Another one may replace it while it is judged; inotify reports that, so [`InboxFile::remove`]
/// removes only the content that was judged.
pub struct InboxFile {
    path: PathBuf,
    seen: Option<FileVersion>,
    grant: Option<Vec<u8>>,
}

/// Identifies one version of a file.
#[derive(Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    number: u64,
    length: u64,
    written: (i64, i64),
}

impl InboxFile {
    /// Notes which file is at this path.
    pub fn at(path: PathBuf) -> Self {
        Self { seen: FileVersion::at(&path), path, grant: None }
    }

    /// Reads the file.
    pub fn read(&mut self, longest: usize) -> io::Result<&[u8]> {
        Ok(self.grant.insert(files::read(&self.path, longest)?))
    }

    /// Removes the file durably, unless it was replaced since. A directory stays.
    pub fn remove(&self) -> io::Result<()> {
        if !self.is_at(&self.path)? {
            return Ok(());
        }
        match files::set_aside(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            aside => self.remove_or_put_back(aside?),
        }
    }

    /// The file may be replaced even between the check and the rename. It is then put back, which inotify reports.
    fn remove_or_put_back(&self, aside: Prepared) -> io::Result<()> {
        let is_this = self.is_at(aside.temporary_path());
        if matches!(is_this, Ok(true)) {
            drop(aside);
        } else {
            // A file that arrived meanwhile is newer and stays.
            aside.commit_if_absent()?;
        }
        is_this?;
        self.path.parent().map_or(Ok(()), files::sync_directory)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let Some(grant) = &self.grant else {
            return Ok(self.seen.is_some() && self.seen == FileVersion::at(path));
        };
        // Compare the content, not the time: `scp -p` sets the time last, and inotify does not report that.
        match files::read(path, grant.len()) {
            Ok(now) => Ok(now == *grant),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge => Ok(false),
                _ => Err(error),
            },
        }
    }
}

impl FileVersion {
    fn at(path: &Path) -> Option<Self> {
        let about = fs::symlink_metadata(path).ok().filter(|about| !about.is_dir())?;
        Some(Self {
            device: about.dev(),
            number: about.ino(),
            length: about.len(),
            written: (about.mtime(), about.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn watch_reports_complete_files_and_ignores_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::start(dir.path()).unwrap();
        let (send, events) = mpsc::sync_channel(0);
        let thread = std::thread::spawn(move || watch.run(|dropped| send.send(dropped).is_ok()));
        fs::write(dir.path().join(".partial"), "x").unwrap();
        fs::rename(dir.path().join(".partial"), dir.path().join("moved")).unwrap();
        fs::write(dir.path().join("written"), "x").unwrap();
        for name in ["moved", "written"] {
            assert_eq!(events.recv().unwrap(), DirectoryEvent::File(name.into()));
        }
        assert_eq!(complete_files(dir.path()).unwrap(), ["moved", "written"]);
        drop(events);
        fs::write(dir.path().join("last"), "x").unwrap();
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn file_that_replaced_a_judged_one_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("bob"), dir.path().join(".bob"));
        let time = fs::metadata(dir.path()).unwrap().modified().unwrap();
        let write = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).unwrap();
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        };
        let mv = |bytes: &[u8]| {
            write(&new, bytes);
            fs::rename(&new, &path).unwrap();
        };
        let found = |readable: bool| {
            write(&path, b"allow");
            let mut found = InboxFile::at(path.clone());
            assert_eq!(found.read(if readable { 5 } else { 4 }).is_ok(), readable);
            found
        };
        for readable in [true, false] {
            let judged = found(readable);
            mv(b"deny!");
            judged.remove().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"deny!");
            let judged = found(readable);
            write(&path, b"denied");
            judged.remove().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"denied");
            found(readable).remove().unwrap();
            assert!(!path.exists());
            // Another process was faster.
            let judged = found(readable);
            fs::remove_file(&path).unwrap();
            judged.remove().unwrap();
        }
        // Replaced at the last moment, and then once more.
        let judged = found(true);
        mv(b"deny!");
        judged.remove_or_put_back(files::set_aside(&path).unwrap()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"deny!");
        let aside = files::set_aside(&path).unwrap();
        mv(b"newer");
        judged.remove_or_put_back(aside).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // Overwritten with the same length and time.
        let judged = found(true);
        write(&path, b"deny!");
        judged.remove().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"deny!");
        // Only the time differs: inotify reports nothing.
        let judged = found(true);
        fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        judged.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn watch_ends_when_its_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = dir.path().join("inbox");
        fs::create_dir(&inbox).unwrap();
        let watch = Watch::start(&inbox).unwrap();
        fs::remove_dir(&inbox).unwrap();
        assert_eq!(watch.run(|_| true).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
