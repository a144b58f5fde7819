//! The registry's directory: who may use it, how it comes to be, what is forced to disk, what happens when it is damaged.
//!
//! ```text
//! registry          conf, db, snap.*, blobs/   sled's own
//!                   mark                       the number of the newest acknowledged commit
//!                   ballast                    room to open again when the disk is full
//! registry.lock     held while a process uses the registry
//! registry.new      a registry being created; it never held anything acknowledged
//! registry.damaged-<unix time>                 set aside, never deleted
//! ```

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use keywright_base::{InstanceLock, clock};

use super::error::{IoContext, RegistryError};

/// What is kept for the day the disk is full, in bytes: opening anew writes a snapshot and a log segment.
const BALLAST: usize = 2 * 1024 * 1024;

/// Room that a commit leaves free, in bytes.
const RESERVE: u64 = 2 * 1024 * 1024;

const MARK_LEN: usize = 12;

/// What there is before opening.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or an empty directory.
    Nothing,
    /// A registry, whole or not.
    Registry,
}

/// Files of an open registry, beside sled's own handles.
pub(super) struct Files {
    dir: PathBuf,
    db: File,
    mark: File,
}

/// Takes the lock beside `dir`.
pub(super) fn lock_instance(dir: &Path) -> Result<InstanceLock, RegistryError> {
    let parent = parent(dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).context("create", parent)?;
    let path = beside(dir, ".lock");
    let file =
        private().write(true).create(true).truncate(false).open(&path).context("open", &path)?;
    let taken = InstanceLock::take(file).context("lock", path)?;
    taken.ok_or_else(|| RegistryError::InUse { dir: dir.into() })
}

/// Looks at `dir` without changing anything.
pub(super) fn find_registry(dir: &Path) -> Result<Found, RegistryError> {
    let mut names = match fs::read_dir(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(RegistryError::NotARegistry { dir: dir.into(), what: "not a directory" });
        }
        Err(e) => return Err(RegistryError::io("read", dir, e)),
    };
    if ["db", "conf", "mark"].iter().any(|name| dir.join(name).is_file()) {
        return Ok(Found::Registry);
    }
    match names.next() {
        None => Ok(Found::Nothing),
        Some(_) => {
            Err(RegistryError::NotARegistry { dir: dir.into(), what: "it holds other files" })
        }
    }
}

/// Creates a registry with `fill` in a directory of its own, and puts it in place complete, or not at all.
pub(super) fn create(
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let new = beside(dir, ".new");
    match fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(RegistryError::io("remove", new, e));
        }
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&new).context("create", &new)?;
    fill(&new)?;
    write_ballast(&new)?;
    private()
        .write(true)
        .create_new(true)
        .open(new.join("mark"))
        .and_then(|mark| mark.write_all_at(&mark_of(0), 0))
        .context("write", new.join("mark"))?;
    sync_all_in(&new)?;
    fs::rename(&new, dir).context("rename", &new)?;
    sync(parent(dir))
}

/// Renames a damaged registry. No file is deleted; in `db`, sled has blanked segments that it could not read. Answers with its new name.
pub(super) fn quarantine(dir: &Path) -> Result<PathBuf, RegistryError> {
    // A rename onto a directory that holds something fails, so the next free name is looked for.
    let mut time = clock::unix_seconds();
    let mut moved_to = beside(dir, &format!(".damaged-{time}"));
    while moved_to.exists() {
        time += 1;
        moved_to = beside(dir, &format!(".damaged-{time}"));
    }
    fs::rename(dir, &moved_to).context("rename", dir)?;
    sync(parent(dir))?;
    Ok(moved_to)
}

/// Gives the ballast's room back to the disk, where there still is one.
pub(super) fn drop_ballast(dir: &Path) -> Result<(), RegistryError> {
    let ballast = dir.join("ballast");
    match fs::remove_file(&ballast) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(RegistryError::io("remove", ballast, e))
        }
        _ => Ok(()),
    }
}

impl Files {
    /// Opens what sled is going to open too, on handles of our own: sled's `flush` leaves the disk's cache alone.
    pub(super) fn open(dir: &Path) -> Result<Self, RegistryError> {
        let open = |name: &str| {
            let path = dir.join(name);
            match OpenOptions::new().read(true).write(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    Err(RegistryError::damaged(format!("the file {name} is missing")))
                }
                opened => opened.context("open", path),
            }
        };
        // sled would write a new one, and not tell.
        open("conf")?;
        Ok(Self { dir: dir.into(), db: open("db")?, mark: open("mark")? })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The newest commit that was acknowledged.
    pub(super) fn acknowledged(&self) -> Result<u64, RegistryError> {
        let mut mark = [0; MARK_LEN];
        self.mark
            .read_exact_at(&mut mark, 0)
            .map_err(|_| RegistryError::damaged("the file mark is too short"))?;
        let (number, _) = mark.split_at(8);
        let number = number.first_chunk().copied().map_or(0, u64::from_be_bytes);
        if mark_of(number) == mark {
            Ok(number)
        } else {
            Err(RegistryError::damaged("the file mark does not match its checksum"))
        }
    }

    /// Refuses a commit of `bytes` that would leave the disk full: sled cannot take back a failed write.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), RegistryError> {
        let free = free(&self.dir)?;
        if free < RESERVE.saturating_add((bytes as u64).saturating_mul(2)) {
            return Err(RegistryError::DiskFull { dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Forces what sled flushed to the medium. Blobs should not exist, as values are small; sled never syncs them.
    pub(super) fn sync(&self) -> Result<(), RegistryError> {
        self.db.sync_data().context("write", &self.dir)?;
        let blobs = self.dir.join("blobs");
        let empty = match fs::read_dir(&blobs) {
            Ok(mut names) => names.next().is_none(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(RegistryError::io("read", blobs, e)),
        };
        if empty { Ok(()) } else { sync_all_in(&blobs) }
    }

    /// Forces to the medium what a process that was killed may have left behind: what is read from now on
    /// must not be lost with the power.
    pub(super) fn sync_everything(&self) -> Result<(), RegistryError> {
        self.sync()?;
        sync(&self.dir)?;
        sync(parent(&self.dir))
    }

    /// Notes a durable commit. Not synced: the file only has to outlive the process, and to be behind the
    /// database, never ahead of it. A database cut short is known by it.
    pub(super) fn acknowledge(&self, number: u64) -> Result<(), RegistryError> {
        self.mark.write_all_at(&mark_of(number), 0).context("write", self.dir.join("mark"))
    }

    /// Puts the ballast back once there is room for it.
    pub(super) fn restore_ballast(&self) -> Result<(), RegistryError> {
        if !self.dir.join("ballast").exists() && free(&self.dir)? > 4 * BALLAST as u64 {
            write_ballast(&self.dir)?;
            sync(&self.dir)?;
        }
        Ok(())
    }
}

fn mark_of(number: u64) -> [u8; MARK_LEN] {
    let mut mark = [0; MARK_LEN];
    let (digits, crc) = mark.split_at_mut(8);
    digits.copy_from_slice(&number.to_be_bytes());
    crc.copy_from_slice(&crc32fast::hash(digits).to_be_bytes());
    mark
}

fn write_ballast(dir: &Path) -> Result<(), RegistryError> {
    let path = dir.join("ballast");
    // Written, not only made long: a sparse file holds no room.
    fs::write(&path, vec![0; BALLAST]).context("write", path)
}

fn free(dir: &Path) -> Result<u64, RegistryError> {
    let stat = rustix::fs::statvfs(dir).map_err(io::Error::from).context("look at", dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn sync(path: &Path) -> Result<(), RegistryError> {
    File::open(path).and_then(|f| f.sync_all()).context("write", path)
}

fn sync_all_in(dir: &Path) -> Result<(), RegistryError> {
    for entry in fs::read_dir(dir).context("read", dir)? {
        sync(&entry.context("read", dir)?.path())?;
    }
    sync(dir)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(suffix);
    name.into()
}
