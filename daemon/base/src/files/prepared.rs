//! Files that are written under a temporary name and then renamed into place. The temporary name is unique to the
//! process, because two processes, such as `request` and the service, may write the same file at once.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
    process::{Pid, geteuid, test_kill_process},
};

use super::Readers;

/// The suffix of a temporary name; before it stand the process id and a counter.
const SUFFIX: &str = ".new";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A complete file under a temporary name. Unless it is committed, it is removed when dropped.
#[derive(Debug)]
pub struct Prepared {
    new: PathBuf,
    path: PathBuf,
}

/// Writes a file under a temporary name: every step that may fail because the disk is full.
pub fn prepare(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<Prepared> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let prepared = Prepared { new: own(directory, &name.to_string_lossy()), path: path.to_owned() };
    write_new(&prepared.new, bytes, readers)?;
    Ok(prepared)
}

/// Renames a file to a temporary name, while other processes may create a new one in its place. It can then be
/// removed or put back.
pub fn set_aside(path: &Path) -> io::Result<Prepared> {
    // The file's own name may already have the maximal length.
    let new = own(path.parent().ok_or(io::ErrorKind::InvalidInput)?, "aside");
    let aside = Prepared { new, path: path.to_owned() };
    fs::rename(path, &aside.new)?;
    Ok(aside)
}

/// A temporary name that no other process uses.
fn own(directory: &Path, name: &str) -> PathBuf {
    let (process, number) = (process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    directory.join(format!(".{name}.{process}.{number}{SUFFIX}"))
}

impl Prepared {
    /// The temporary path.
    pub fn temporary_path(&self) -> &Path {
        &self.new
    }

    /// Renames the file into place. The caller syncs the directory.
    pub fn commit(self) -> io::Result<()> {
        fs::rename(&self.new, &self.path)
    }

    /// Renames the file into place unless another one is there; returns whether it did. The caller syncs the
    /// directory.
    pub fn commit_if_absent(self) -> io::Result<bool> {
        let put = match renameat_with(CWD, &self.new, CWD, &self.path, RenameFlags::NOREPLACE) {
            // Some file systems do not support RENAME_NOREPLACE.
            Err(Errno::INVAL | Errno::NOSYS) => self.link(),
            put => put.map_err(io::Error::from),
        };
        match put {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn link(&self) -> io::Result<()> {
        fs::hard_link(&self.new, &self.path)?;
        // inotify watchers get no event for a hard link, but for a closed file.
        let _ = OpenOptions::new().write(true).open(&self.path);
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // `remove_leftovers` removes what is left.
        let _ = fs::remove_file(&self.new);
    }
}

fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    // A process with the same id may have left a file.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = readers.file_mode();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask of the caller must not decide who can read the file.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if geteuid().is_root() {
        let owner = fs::metadata(path.parent().unwrap_or(path))?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Who else may be writing in a directory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody: the caller holds the lock on the state directory.
    Nobody,
    /// Other processes, and other threads of this one.
    Others,
}

/// Removes temporary files of processes that ended while writing, for example at a power cut. Their names are never
/// used again, so they would stay for good.
pub fn remove_leftovers(directory: &Path, writers: Writers) {
    // A file that cannot be removed takes room and does no other harm.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(|name| is_left(name, writers)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_left(name: &str, writers: Writers) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(SUFFIX));
    let mut parts = name.unwrap_or_default().rsplitn(3, '.');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (Some(number), Some(process), Some(_)) = (number(), number(), parts.next()) else {
        return false;
    };
    match writers {
        Writers::Nobody => true,
        // This process has not used that number yet, so the file is of an earlier process with the same id.
        Writers::Others if process == process::id() => number >= NUMBER.load(Ordering::Relaxed),
        Writers::Others => {
            let process = i32::try_from(process).ok().and_then(Pid::from_raw);
            process.is_none_or(|process| test_kill_process(process) == Err(Errno::SRCH))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fs::inotify,
    };

    use super::{super::*, *};

    fn at_once(count: usize, run: impl Fn(usize) + Sync) {
        let barrier = Barrier::new(count);
        thread::scope(|scope| {
            for number in 0..count {
                let (barrier, run) = (&barrier, &run);
                scope.spawn(move || {
                    barrier.wait();
                    run(number);
                });
            }
        });
    }

    #[test]
    fn concurrent_writers_leave_a_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        for _ in 0..100 {
            at_once(4, |number| {
                replace(&path, &vec![b'0' + number as u8; 50_000], Readers::Everybody).unwrap();
            });
            let bytes = read(&path, 50_000).unwrap();
            assert!(bytes.len() == 50_000 && bytes.iter().all(|byte| *byte == bytes[0]));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn one_of_several_concurrent_creators_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let path = dir.path().join(round.to_string());
            let first = AtomicU32::new(0);
            at_once(4, |number| {
                if create(&path, &[number as u8], Readers::Owner).unwrap() {
                    first.fetch_add(1 + number as u32, Ordering::Relaxed);
                }
            });
            assert_eq!(u32::from(read(&path, 1).unwrap()[0]) + 1, first.into_inner());
            assert!(!create(&path, b"later", Readers::Owner).unwrap());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 100);
    }

    /// As on a file system without RENAME_NOREPLACE.
    #[test]
    fn watcher_is_notified_when_a_hard_link_replaces_the_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        // The events that a Lock's inbox waits for.
        let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO;
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        let prepared = prepare(&path, b"x", Readers::Everybody).unwrap();
        // Watch only from here on, so that no earlier event is received.
        inotify::add_watch(&watch, dir.path(), flags).unwrap();
        prepared.link().unwrap();
        assert_eq!(prepared.link().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(prepared);
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&patience));
        assert_eq!(ready, Ok(1));
        assert_eq!(read(&path, 1).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_leftovers_of_ended_processes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (dead, own) = (child.id(), process::id());
        let left = [format!(".list.{dead}.7.new"), format!(".a.b.{own}.{}.new", u32::MAX)];
        // Files of a live process and of this one, and names of other programs.
        let alive = [".list.1.7.new".into(), format!(".list.{own}.0.new")];
        let others = [".grant.new", "list.1.7.new", ".1.7.new", ".list.1.7", ".list.1.x.new"];
        NUMBER.fetch_add(1, Ordering::Relaxed);
        for name in left.iter().chain(&alive).map(String::as_str).chain(others) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let there = |name: &str| dir.path().join(name).exists();
        remove_leftovers(dir.path(), Writers::Others);
        assert!(left.iter().all(|name| !there(name)));
        assert!(alive.iter().all(|name| there(name)) && others.iter().all(|name| there(name)));
        remove_leftovers(dir.path(), Writers::Nobody);
        assert!(alive.iter().all(|name| !there(name)) && others.iter().all(|name| there(name)));
        remove_leftovers(&dir.path().join("none"), Writers::Nobody);
    }
}
