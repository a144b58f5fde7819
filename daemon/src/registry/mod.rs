//! What a station knows, on disk: families, Keys, Locks, statements, jobs begun, and a log of events.
//!
//! sled and bincode are known to this module only. Reads and commits block for a disk's time.

mod audit;
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
mod numbers;
mod others;
mod page;
mod pieces;
pub mod records;
mod removed;
mod schema;
mod statements;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use keywright_proto::{Id, audit::Event as Logged};

pub use batch::{Batch, Certified};
pub use error::RegistryError;
pub use others::WithEntries;
pub use page::{Filter, Page};

use directory::{Files, Found};
use numbers::Reserved;
use schema::Migration;
use store::Store;

/// Is told which Keys have new statements.
type Watcher = Box<dyn Fn(Vec<Id>) + Send + Sync>;
/// Is told that something was committed that stations exchange.
type Exchanged = Box<dyn Fn() + Send + Sync>;
/// Is told who was certified anew.
type Certifies = Box<dyn Fn(Certified) + Send + Sync>;
/// Is told which events were logged.
type Listener = Box<dyn Fn(&[Logged]) + Send + Sync>;

/// An open registry. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Registry(Arc<Open>);

struct Open {
    store: Store,
    numbers: Mutex<Reserved>,
    watcher: OnceLock<Watcher>,
    exchanged: OnceLock<Exchanged>,
    certifies: OnceLock<Certifies>,
    listener: OnceLock<Listener>,
    // Last: the lock goes when the database is closed.
    _lock: directory::Lock,
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
        let lock = directory::lock(dir)?;
        if directory::look(dir)? == Found::Nothing {
            directory::create(dir, |new| engine::initialize(new, schema::newest(migrations)))?;
        }
        match engine::quietly(|| open_store(dir, migrations)) {
            Ok(store) => Ok(Self(Arc::new(Open {
                store,
                numbers: Mutex::default(),
                watcher: OnceLock::new(),
                exchanged: OnceLock::new(),
                certifies: OnceLock::new(),
                listener: OnceLock::new(),
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
        let (stated, has_papers) = (batch.stated(), batch.has_papers());
        let (mut logged, mut certified) = (Vec::new(), Certified::default());
        let certifies = self.0.certifies.get();
        self.0.store.commit(|view, changes| {
            if certifies.is_some() {
                certified = batch.certified(view)?;
            }
            logged = batch.collect(view, changes)?;
            Ok(())
        })?;
        if let Some(listener) = self.0.listener.get().filter(|_| !logged.is_empty()) {
            listener(&logged);
        }
        if let Some(watcher) = self.0.watcher.get().filter(|_| !stated.is_empty()) {
            watcher(stated);
        }
        if let Some(exchanged) = self.0.exchanged.get().filter(|_| has_papers) {
            exchanged();
        }
        if let Some(certifies) = certifies.filter(|_| !certified.is_empty()) {
            certifies(certified);
        }
        Ok(())
    }

    /// Has somebody told which Keys have new statements, after each commit of one, by the thread that commits. There is
    /// one such watcher; a second one is told nothing.
    pub fn watch_statements(&self, watcher: impl Fn(Vec<Id>) + Send + Sync + 'static) {
        let _ = self.0.watcher.set(Box::new(watcher));
    }

    /// Has somebody told of each commit that may change what stations exchange, by the thread that commits. There is one such
    /// watcher; a second one is told nothing.
    pub fn watch_papers(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.exchanged.set(Box::new(watcher));
    }

    /// Has somebody told who got another certificate or chain, after each commit of some, by the thread that commits. There
    /// is one such watcher; a second one is told nothing.
    pub fn watch_certificates(&self, watcher: impl Fn(Certified) + Send + Sync + 'static) {
        let _ = self.0.certifies.set(Box::new(watcher));
    }

    /// Has somebody told which events were logged, after each commit of some, by the thread that commits. There is one such
    /// listener; a second one is told nothing.
    pub fn watch_events(&self, listener: impl Fn(&[Logged]) + Send + Sync + 'static) {
        let _ = self.0.listener.set(Box::new(listener));
    }

    /// Reads and counts everything, and follows the chain of the audit log. For a thread of its own, at a time of
    /// leisure: with 100,000 Locks it takes half a second and 50 MB.
    ///
    /// # Errors
    /// `Damaged`, naming what is lost or altered.
    pub fn verify(&self) -> Result<(), RegistryError> {
        self.0.store.verify()?;
        audit::verify(&self.view()?)
    }

    fn view(&self) -> Result<view::View<'_>, RegistryError> {
        self.0.store.view()
    }
}

fn open_store(dir: &Path, migrations: &[Migration]) -> Result<Store, RegistryError> {
    let files = Files::open(dir)?;
    files.marked()?;
    let db = match engine::open_sled(dir) {
        Err(RegistryError::DiskFull { .. }) => {
            directory::drop_ballast(dir)?;
            engine::open_sled(dir)
        }
        opened => opened,
    }?;
    files.settle()?;
    let store = Store::new(db, files);
    schema::migrate(&store, migrations)?;
    layout::SMALL.iter().try_for_each(|table| store.verify_table(*table as u8))?;
    store.files().restore_ballast()?;
    Ok(store)
}
