//! Imports the revocations of a file even if the registry cannot take all of it.

use keywright_proto::{Id, PublicKey, SignedObjects};

use super::super::unsupported;
use super::{Asker, Changes, Families, Label};
use crate::error::Error;

impl Families {
    /// Imports a family's signed objects. Returns how many were new. `label_of` finds the shown Key with an access key.
    ///
    /// # Errors
    /// The registry failed; what was committed before stands. Revocations were tried once more, alone: they need the
    /// least space.
    pub fn import(
        &mut self,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<u32, Error> {
        let imported = self.import_together(family, objects, label_of, by, changes);
        let Err(error) = imported else { return imported };
        if objects.has_revocations() {
            let revocations = objects.revocations().map_err(unsupported)?;
            match self.import_together(family, &revocations, label_of, by, changes) {
                Ok(new) => {
                    tracing::warn!(%family, new, %error, "only the revocations of an import are kept");
                }
                Err(again) => tracing::error!(%family, error = %again, "revocations are not kept"),
            }
        }
        Err(error)
    }
}
