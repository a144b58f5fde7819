//! Publishes each Lock's newest certificate with its chain: when the certificate is new and when the Lock comes online.
//! Messages are retained, so that a Lock that is offline, or has no family yet, receives its chain later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use keywright_proto::{Id, link::Topic};

use super::{LocksChannel, WINDOW};
use crate::{
    error::Error,
    queries,
    registry::{CertificateChanges, Registry},
};

/// Collects new certificates between two rounds of publishing.
#[derive(Clone, Default)]
pub(in crate::link) struct ChangedCertificates(Arc<Mutex<CertificateChanges>>);

impl ChangedCertificates {
    pub(in crate::link) fn note(&self, certified: CertificateChanges) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.locks.extend(certified.locks);
        noted.issuers.extend(certified.issuers);
    }

    fn take(&self) -> CertificateChanges {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The chains to publish. Only Locks in the registry are here, so the broker cannot make it grow.
pub(super) struct Chains {
    noted: ChangedCertificates,
    wanted: BTreeSet<Id>,
    /// Locks whose chain could not be read, and CAs whose Locks could not be read.
    failed: CertificateChanges,
    /// The Lock of each unacknowledged message, by message number.
    in_flight: BTreeMap<u64, Id>,
}

impl Chains {
    pub(super) fn new(noted: ChangedCertificates) -> Self {
        Self {
            noted,
            wanted: BTreeSet::new(),
            failed: CertificateChanges::default(),
            in_flight: BTreeMap::new(),
        }
    }

    pub(super) fn want(&mut self, lock: Id) {
        self.wanted.insert(lock);
    }

    pub(super) fn published(&mut self, number: u64) {
        self.in_flight.remove(&number);
    }

    /// The link is down: unacknowledged chains are published again later.
    pub(super) fn lost(&mut self) {
        self.wanted.extend(std::mem::take(&mut self.in_flight).into_values());
    }

    /// Whether a read failed and has to be retried.
    pub(super) fn is_behind(&self) -> bool {
        !self.failed.locks.is_empty() || !self.failed.issuers.is_empty()
    }

    pub(super) fn retry(&mut self) {
        self.noted.note(std::mem::take(&mut self.failed));
    }

    fn gather(&mut self, registry: &Registry) -> Result<(), Error> {
        let certified = self.noted.take();
        self.wanted.extend(certified.locks);
        let mut gathered = Ok(());
        for ca in certified.issuers {
            // Continue with the other CAs, and retry this one later.
            if let Err(error) = self.certified_by(registry, ca) {
                self.failed.issuers.insert(ca);
                gathered = Err(error);
            }
        }
        gathered
    }

    /// Queues the Locks whose certificate this CA signed.
    fn certified_by(&mut self, registry: &Registry, ca: Id) -> Result<(), Error> {
        let Some(issuer) = registry.issuer(ca)? else { return Ok(()) };
        for entry in registry.lock_entries(issuer.family)? {
            match registry.lock(entry.lock) {
                Ok(Some(known)) if known.issuer == ca => self.wanted.extend([entry.lock]),
                Ok(_) => {}
                Err(error) => {
                    self.failed.locks.insert(entry.lock);
                    tracing::error!(%error, lock = %entry.lock, "cannot read whether this Lock has a new certificate; trying again later");
                }
            }
        }
        Ok(())
    }
}

impl LocksChannel {
    /// Publishes chains in the part of the window that grants leave free.
    pub(super) fn publish_chains(&mut self) {
        let gathered = self.chains.gather(&self.registry);
        self.note(gathered);
        while self.up && self.in_flight.len() < WINDOW {
            let Some(lock) = self.chains.wanted.pop_first() else { return };
            let chain = match queries::lock_chain(&self.registry, lock) {
                Ok(Some(chain)) => chain,
                Ok(None) => continue,
                // Publish the others, and retry this chain later.
                Err(error) => {
                    self.chains.failed.locks.insert(lock);
                    self.note(Err(error));
                    continue;
                }
            };
            let number = self.next_number;
            self.next_number += 1;
            self.in_flight.insert(number);
            self.chains.in_flight.insert(number, lock);
            self.connection.publish(Topic::Chain { lock }.name(), chain.into_bytes(), number);
        }
    }
}
