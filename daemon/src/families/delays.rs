//! The delay of revocations counts in uptime, from when this station first saw them.

use keywright_base::clock;

use super::Families;
use crate::registry::{Batch, RegistryError, records::Revocation};

impl Families {
    /// Begins the delay of revocations that an older version stored, which counted by the wall clock.
    ///
    /// A delay that is over by that clock stays over: what was once in effect does not end because of an update. All
    /// others begin again, now: the clock may have been set, and a longer delay only gives the senior more time to
    /// object.
    pub(super) fn date_revocations(&self) -> Result<(), RegistryError> {
        let (unix, uptime) = (clock::unix_seconds(), self.registry.uptime());
        let is_over = |revocation: &Revocation| {
            revocation.first_seen.saturating_add(self.revoke_delay) <= unix
        };
        let (mut batch, mut count) = (Batch::new(), 0);
        for (family, _) in self.registry.families()? {
            let dated = self.registry.revocation_uptimes(family)?;
            for revocation in self.registry.revocations(family)? {
                let digest = keywright_proto::statement::digest(&revocation.cose);
                if digest.is_some_and(|digest| !dated.contains_key(&digest)) {
                    let since = if is_over(&revocation) { 0 } else { uptime };
                    batch.put_revocation_uptime(family, &revocation, since);
                    count += 1;
                }
            }
        }
        if count > 0 {
            self.registry.commit(batch)?;
            tracing::info!(count, "the delay of revocations counts in uptime from now on");
        }
        Ok(())
    }

    /// Saves the uptime while a revocation waits.
    pub fn keep_uptime(&self) {
        if self.judges_at().is_some() {
            self.registry.save_uptime();
        }
    }
}
