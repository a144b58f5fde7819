//! The registry's directory: one process at a time uses it; it is created whole, synced, and set aside when it is
//! damaged.
//!
//! ```text
//! registry          conf, db, snap.*, blobs/   sled's own
//!                   mark                       the number of the newest acknowledged commit
//!                   ballast                    room to open again when the disk is full
//! registry.lock     held while a process uses the registry
//! registry.uptime   the uptime of this station, see `uptime`
//! registry.new      a registry being created; it never held anything acknowledged
//! registry.damaged-<unix time>                 set aside, never deleted; see `lost`
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

/// Space that is given back when the disk is full, in bytes: opening the database writes a snapshot and a log segment.
const BALLAST: usize = 2 * 1024 * 1024;

/// Free space that every commit leaves, in bytes.
const RESERVE: u64 = 2 * 1024 * 1024;

const MARK_LEN: usize = 12;

/// What the name of a registry that was set aside ends with, before the time.
pub(super) const DAMAGED: &str = ".damaged-";

/// What the directory holds before it is opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or an empty directory.
    Nothing,
    /// A registry, which may be damaged.
    Registry,
}

/// Our own file handles of an open registry, beside those of sled.
pub(super) struct Files {
    dir: PathBuf,
    db: File,
    mark: File,
}

/// Locks the file beside `dir`. `InUse` if another process holds it.
pub(super) fn lock_instance(dir: &Path) -> Result<InstanceLock, RegistryError> {
    let parent = parent(dir);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).context("create", parent)?;
    let path = beside(dir, ".lock");
    let file =
        private().write(true).create(true).truncate(false).open(&path).context("open", &path)?;
    let taken = InstanceLock::take(file).context("lock", path)?;
    taken.ok_or_else(|| RegistryError::InUse { dir: dir.into() })
}

/// Finds out what `dir` holds, without changing anything.
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

/// Creates a registry: `fill` writes into a temporary directory, which is renamed to `dir` once it is complete and
/// synced.
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

/// Renames a damaged registry and returns its new name. No file is deleted, but sled has blanked those segments of
/// `db` that it could not read.
pub(super) fn quarantine(dir: &Path) -> Result<PathBuf, RegistryError> {
    // A rename onto a directory that is not empty fails: take the next free name.
    let mut time = clock::unix_seconds();
    let mut moved_to = beside(dir, &format!("{DAMAGED}{time}"));
    while moved_to.exists() {
        time += 1;
        moved_to = beside(dir, &format!("{DAMAGED}{time}"));
    }
    fs::rename(dir, &moved_to).context("rename", dir)?;
    sync(parent(dir))?;
    Ok(moved_to)
}

/// Deletes the ballast, if it exists, to free its space.
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
    /// Opens the database file on a handle of our own, because sled's `flush` does not sync it to the medium.
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
        // If it were missing, sled would silently write a new one.
        open("conf")?;
        Ok(Self { dir: dir.into(), db: open("db")?, mark: open("mark")? })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of the newest acknowledged commit.
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

    /// Refuses a commit of `bytes` that would fill the disk: sled cannot undo a failed write.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), RegistryError> {
        let free = free(&self.dir)?;
        if free < RESERVE.saturating_add((bytes as u64).saturating_mul(2)) {
            return Err(RegistryError::DiskFull { dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Syncs to the medium what sled flushed. Blob files, which sled never syncs, should not exist, because values are
    /// small; any that do are synced too.
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

    /// Syncs everything that a killed process may have left unsynced: what is read from now on must survive a power
    /// cut.
    pub(super) fn sync_everything(&self) -> Result<(), RegistryError> {
        self.sync()?;
        sync(&self.dir)?;
        sync(parent(&self.dir))
    }

    /// Writes the number of a durable commit to the file `mark`; a database that ends before that commit was cut
    /// short. The file is not synced: after a power cut it may be behind the database, never ahead of it.
    pub(super) fn acknowledge(&self, number: u64) -> Result<(), RegistryError> {
        self.mark.write_all_at(&mark_of(number), 0).context("write", self.dir.join("mark"))
    }

    /// Writes the ballast again if it is missing and the disk has enough free space.
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
    // Zeros are written: a sparse file would reserve no space.
    fs::write(&path, vec![0; BALLAST]).context("write", path)
}

fn free(dir: &Path) -> Result<u64, RegistryError> {
    let stat = rustix::fs::statvfs(dir).map_err(io::Error::from).context("look at", dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(super) fn sync(path: &Path) -> Result<(), RegistryError> {
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

pub(super) fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

pub(super) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(suffix);
    name.into()
}
