//! The uptime by which the delay of revocations is counted: of this station's machine, whatever its wall clock says
//! ([`keywright_base::uptime`]). It is saved beside the registry, in `registry.uptime`.
//!
//! It begins at [`BEGIN`] and not at 0: so a revocation with uptime 0 was seen longer ago than any delay.

use std::{collections::BTreeMap, path::Path, sync::PoisonError};

use keywright_base::uptime::Uptime;
use keywright_proto::{Id, statement, tree::Hash, trust::MAX_REVOKE_DELAY_DAYS};

use super::{
    Batch, Registry, changes::Changes, codec, directory::beside, error::RegistryError,
    layout::Table, records::Revocation, view::View,
};

/// The least uptime, in seconds.
const BEGIN: u64 = MAX_REVOKE_DELAY_DAYS as u64 * 86_400;

impl Registry {
    /// The uptime of this station, in seconds.
    pub fn uptime(&self) -> u64 {
        self.0.uptime.lock().unwrap_or_else(PoisonError::into_inner).now() / 1_000
    }

    /// Saves the uptime, at most once an hour. While a revocation waits it has to be called that often: what is not saved
    /// counts only until the next start of the machine.
    pub fn save_uptime(&self) {
        let mut uptime = self.0.uptime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = uptime.save() {
            let path = uptime.path().display();
            tracing::warn!(%error, %path, "the uptime cannot be saved; delays of revocations may take longer");
        }
    }

    /// The uptime at which this station first saw each revocation of a family, in seconds, by digest. Those that a version
    /// without uptime stored are missing.
    pub fn revocation_uptimes(&self, family: Id) -> Result<BTreeMap<Hash, u64>, RegistryError> {
        let seen = |record: Result<(sled::IVec, sled::IVec), RegistryError>| {
            let (key, payload) = record?;
            let digest = key.last_chunk().copied();
            let digest = digest.ok_or_else(|| RegistryError::damaged("a digest is too short"))?;
            Ok((digest, codec::decode(&payload)?))
        };
        self.view()?.all(Table::RevocationUptimes.of(family)).map(seen).collect()
    }
}

impl Batch {
    /// Puts the uptime at which a revocation was first seen, in seconds. [`Batch::put_revocation`] does so for a new one.
    pub fn put_revocation_uptime(
        &mut self,
        family: Id,
        revocation: &Revocation,
        uptime: u64,
    ) -> &mut Self {
        let digest = statement::digest(&revocation.cose);
        self.write(move |_, changes| match digest {
            Some(digest) => put_uptime(changes, family, &digest, uptime),
            None => Ok(()),
        })
    }
}

pub(super) fn put_uptime(
    changes: &mut Changes,
    family: Id,
    digest: &Hash,
    uptime: u64,
) -> Result<(), RegistryError> {
    changes.put(Table::RevocationUptimes.with(&[family.as_bytes(), digest]), &uptime)
}

/// The saved uptime, or that of the latest record.
pub(super) fn open(dir: &Path, view: &View<'_>) -> Result<Uptime, RegistryError> {
    let mut uptime = Uptime::open_file(beside(dir, ".uptime"));
    let mut least = BEGIN;
    for seen in view.records::<u64>(Table::RevocationUptimes.key())? {
        least = least.max(seen);
    }
    uptime.raise_to(least.saturating_mul(1_000));
    Ok(uptime)
}
