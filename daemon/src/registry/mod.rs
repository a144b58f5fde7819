//! What this station keeps on disk: families, Keys, Locks, statements, jobs that have begun, and the audit log.
//!
//! Only this module uses sled and bincode. Reads and commits block while the disk works. Every read method fails with
//! `Damaged` if a record is lost or altered, and with `Io` if the disk cannot be read.
//!
//! - One module a subject holds its reads and writes: `families`, `found_issuers`, `keys`, `locks`, `groups`, `statements`,
//!   `older_statements`, `statement_digests`, `revocations`, `confirmations`, `removed_rights`, `lock_removals`,
//!   `intents`, `audit_log`, `serialization_numbers`, `uptime`. The records are in [`records`], their keys in `layout`, long
//!   lists in `chunks`.
//! - A [`Batch`] becomes `changes`, and those one durable commit in `store`; `watchers` are told of it.
//! - Below: `view` (reads), `pieces` (large values), `codec` (bytes), `directory` (files), `engine` (sled).
//! - To add a field to a record, see `schema`.

mod audit_log;
mod batch;
mod changes;
mod chunks;
mod codec;
mod confirmations;
mod directory;
mod engine;
mod error;
mod families;
mod found_issuers;
mod groups;
mod intents;
mod keys;
mod layout;
mod lock_removals;
mod locks;
mod lost;
mod older_statements;
mod page;
mod pieces;
pub mod records;
mod removed_rights;
mod revocations;
mod schema;
mod serialization_numbers;
mod statement_digests;
mod statements;
mod store;
#[cfg(test)]
mod tests;
mod uptime;
mod view;
mod watchers;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub use batch::Batch;
pub use error::RegistryError;
pub use found_issuers::{FoundIssuer, Origin};
pub use older_statements::StatementWithEntries;
pub use page::{Filter, Page};
pub use watchers::CertificateChanges;

use directory::{Files, Found};
use keywright_base::uptime::Uptime;
use schema::Migration;
use serialization_numbers::ReservedNumbers;
use store::Store;
use watchers::{Notices, Watchers};

/// An open registry. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Registry(Arc<Open>);

struct Open {
    store: Store,
    numbers: Mutex<ReservedNumbers>,
    watchers: Watchers,
    uptime: Mutex<Uptime>,
    /// Registries that were set aside, see `lost`.
    lost: Mutex<Vec<PathBuf>>,
    // Last: the lock goes when the database is closed.
    _lock: keywright_base::InstanceLock,
}

impl Registry {
    /// Opens the registry in `dir`, or creates it. Beside it, in its parent, it needs room for a lock file, for the
    /// uptime and, if it is damaged, for its new name.
    ///
    /// # Errors
    /// `InUse`, `NewerSchema`, `NotARegistry`, `DiskFull`, `Io`: nothing was changed. `Quarantined`: it was
    /// damaged and has been moved aside; opening again starts an empty one.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(dir, schema::MIGRATIONS)
    }

    fn open_with(dir: &Path, migrations: &[Migration]) -> Result<Self, RegistryError> {
        let lock = directory::lock_instance(dir)?;
        if directory::find_registry(dir)? == Found::Nothing {
            directory::create(dir, |new| engine::initialize(new, schema::newest(migrations)))?;
        }
        match engine::without_panic_output(|| open_store(dir, migrations)) {
            Ok((store, uptime)) => Ok(Self(Arc::new(Open {
                store,
                numbers: Mutex::default(),
                watchers: Watchers::default(),
                uptime: Mutex::new(uptime),
                lost: Mutex::new(lost::find(dir)?),
                _lock: lock,
            }))),
            Err(RegistryError::Damaged { what }) => {
                let moved_to = directory::quarantine(dir)?;
                Err(RegistryError::Quarantined { what, moved_to })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a batch, all or nothing. It is durable when this returns; then the watchers are called.
    ///
    /// # Errors
    /// Any error: nothing was written, or the registry has stopped and answers `Stopped` from then on. Whether the
    /// batch was written is then known after opening again.
    pub fn commit(&self, batch: Batch) -> Result<(), RegistryError> {
        let mut notices = Notices::default();
        let uptime = self.uptime();
        self.0.store.commit(|view, changes| {
            changes.uptime = uptime;
            notices = batch.apply(view, changes)?;
            Ok(())
        })?;
        self.0.watchers.notify(notices);
        Ok(())
    }

    /// Damages every record whose key has this prefix, as a bad sector does.
    #[cfg(test)]
    pub(crate) fn damage(&self, prefix: &[u8]) {
        self.0.store.damage(prefix);
    }

    fn view(&self) -> Result<view::View<'_>, RegistryError> {
        self.0.store.view()
    }
}

fn open_store(dir: &Path, migrations: &[Migration]) -> Result<(Store, Uptime), RegistryError> {
    let files = Files::open(dir)?;
    files.acknowledged()?;
    let db = match engine::open_sled(dir) {
        Err(RegistryError::DiskFull { .. }) => {
            directory::drop_ballast(dir)?;
            engine::open_sled(dir)
        }
        opened => opened,
    }?;
    files.sync_everything()?;
    let store = Store::new(db, files);
    schema::migrate(&store, migrations)?;
    layout::SMALL.iter().try_for_each(|table| store.verify_table(*table as u8))?;
    store.files().restore_ballast()?;
    let uptime = uptime::open(dir, &store.view()?)?;
    Ok((store, uptime))
}
