//! What a station knows, on disk: families, Keys, Locks, statements, jobs begun, and a log of events.
//!
//! sled and bincode are known to this module only. Reads and commits block for a disk's time.

mod audit_log;
mod batch;
mod changes;
mod codec;
mod directory;
mod engine;
mod error;
mod families;
mod groups;
mod intents;
mod keys;
mod layout;
mod locks;
mod older_statements;
mod page;
mod pieces;
pub mod records;
mod removed_rights;
mod schema;
mod serialization_numbers;
mod statements;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use keywright_proto::{Id, audit::LoggedEvent as AuditEvent};

pub use batch::{Batch, CertificateChanges};
pub use error::RegistryError;
pub use older_statements::StatementWithEntries;
pub use page::{Filter, Page};

use directory::{Files, Found};
use schema::Migration;
use serialization_numbers::ReservedNumbers;
use store::Store;

/// Is told which Keys have new statements.
type StatementWatcher = Box<dyn Fn(Vec<Id>) + Send + Sync>;
/// Is told that something was committed that stations exchange.
type SignedObjectWatcher = Box<dyn Fn() + Send + Sync>;
/// Is told who was certificate_changes anew.
type CertificateWatcher = Box<dyn Fn(CertificateChanges) + Send + Sync>;
/// Is told which events were logged.
type AuditWatcher = Box<dyn Fn(&[AuditEvent]) + Send + Sync>;

/// An open registry. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Registry(Arc<Open>);

struct Open {
    store: Store,
    numbers: Mutex<ReservedNumbers>,
    statement_watcher: OnceLock<StatementWatcher>,
    signed_object_watcher: OnceLock<SignedObjectWatcher>,
    certificate_watcher: OnceLock<CertificateWatcher>,
    audit_watcher: OnceLock<AuditWatcher>,
    // Last: the lock goes when the database is closed.
    _lock: keywright_base::InstanceLock,
}

impl Registry {
    /// Opens the registry in `dir`, or creates it. Beside it, in its parent, it needs room for a lock file and,
    /// if it is damaged, for its new name.
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
            Ok(store) => Ok(Self(Arc::new(Open {
                store,
                numbers: Mutex::default(),
                statement_watcher: OnceLock::new(),
                signed_object_watcher: OnceLock::new(),
                certificate_watcher: OnceLock::new(),
                audit_watcher: OnceLock::new(),
                _lock: lock,
            }))),
            Err(RegistryError::Damaged { what }) => {
                let moved_to = directory::quarantine(dir)?;
                Err(RegistryError::Quarantined { what, moved_to })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a batch, all or nothing, durable when it returns.
    ///
    /// # Errors
    /// Any error: nothing was written, or the registry has stopped and answers `Stopped` from then on.
    /// Whether the batch was written is then known after opening again.
    pub fn commit(&self, batch: Batch) -> Result<(), RegistryError> {
        let (stated, has_signed_objects) =
            (batch.keys_with_new_statements(), batch.has_signed_objects());
        let (mut logged, mut certificate_changes) = (Vec::new(), CertificateChanges::default());
        let certificate_watcher = self.0.certificate_watcher.get();
        self.0.store.commit(|view, changes| {
            if certificate_watcher.is_some() {
                certificate_changes = batch.certificate_changes(view)?;
            }
            logged = batch.collect(view, changes)?;
            Ok(())
        })?;
        if let Some(audit_watcher) = self.0.audit_watcher.get().filter(|_| !logged.is_empty()) {
            audit_watcher(&logged);
        }
        if let Some(statement_watcher) =
            self.0.statement_watcher.get().filter(|_| !stated.is_empty())
        {
            statement_watcher(stated);
        }
        if let Some(signed_object_watcher) =
            self.0.signed_object_watcher.get().filter(|_| has_signed_objects)
        {
            signed_object_watcher();
        }
        if let Some(certificate_watcher) =
            certificate_watcher.filter(|_| !certificate_changes.is_empty())
        {
            certificate_watcher(certificate_changes);
        }
        Ok(())
    }

    /// Has somebody told which Keys have new statements, after each commit of one, by the thread that commits. There is
    /// one such statement_watcher; a second one is told nothing.
    pub fn watch_statements(&self, statement_watcher: impl Fn(Vec<Id>) + Send + Sync + 'static) {
        let _ = self.0.statement_watcher.set(Box::new(statement_watcher));
    }

    /// Has somebody told of each commit that may change what stations exchange, by the thread that commits. There is one such
    /// statement_watcher; a second one is told nothing.
    pub fn watch_signed_objects(&self, statement_watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.signed_object_watcher.set(Box::new(statement_watcher));
    }

    /// Has somebody told who got another certificate or chain, after each commit of some, by the thread that commits. There
    /// is one such statement_watcher; a second one is told nothing.
    pub fn watch_certificates(
        &self,
        statement_watcher: impl Fn(CertificateChanges) + Send + Sync + 'static,
    ) {
        let _ = self.0.certificate_watcher.set(Box::new(statement_watcher));
    }

    /// Has somebody told which events were logged, after each commit of some, by the thread that commits. There is one such
    /// audit_watcher; a second one is told nothing.
    pub fn watch_audit_events(
        &self,
        audit_watcher: impl Fn(&[AuditEvent]) + Send + Sync + 'static,
    ) {
        let _ = self.0.audit_watcher.set(Box::new(audit_watcher));
    }

    /// Reads and counts everything, and follows the chain of the audit log. For a thread of its own, at a time of
    /// leisure: with 100,000 Locks it takes half a second and 50 MB.
    ///
    /// # Errors
    /// `Damaged`, naming what is lost or altered.
    pub fn verify(&self) -> Result<(), RegistryError> {
        self.0.store.verify()?;
        audit_log::verify(&self.view()?)
    }

    fn view(&self) -> Result<view::View<'_>, RegistryError> {
        self.0.store.view()
    }
}

fn open_store(dir: &Path, migrations: &[Migration]) -> Result<Store, RegistryError> {
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
    Ok(store)
}
