//! What Locks are told of themselves: their newest certificate with its chain, when it is new and when they appear. Each is
//! retained, so that a Lock gets it that is away, or has no family yet.

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

/// Who was certified anew since it was last looked at.
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

/// Locks that are to be told. All of them are known here, so a broker cannot make them more.
pub(super) struct Chains {
    noted: ChangedCertificates,
    wanted: BTreeSet<Id>,
    /// Those whose chain could not be read, and CAs whose Locks could not be.
    failed: CertificateChanges,
    /// By the number of the message.
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

    /// The broker is not there any more: what it has not taken is told again.
    pub(super) fn lost(&mut self) {
        self.wanted.extend(std::mem::take(&mut self.in_flight).into_values());
    }

    /// Whether something could not be read.
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
            // Those that were found are told, and the others later.
            if let Err(error) = self.certified_by(registry, ca) {
                self.failed.issuers.insert(ca);
                gathered = Err(error);
            }
        }
        gathered
    }

    /// Notes the Locks with a certificate by this CA.
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
    /// Tells Locks of themselves, as much as rights leave of the window.
    pub(super) fn say_chains(&mut self) {
        let gathered = self.chains.gather(&self.registry);
        self.note(gathered);
        while self.up && self.in_flight.len() < WINDOW {
            let Some(lock) = self.chains.wanted.pop_first() else { return };
            let chain = match queries::lock_chain(&self.registry, lock) {
                Ok(Some(chain)) => chain,
                Ok(None) => continue,
                // The others are told all the same, and this one later.
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
