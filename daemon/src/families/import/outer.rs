//! What surrounds an import: new issuing keys are noted and reported, and revocations are kept even if the registry cannot
//! take the rest.

use keywright_proto::{Id, PublicKey, SignedObjects};

use super::{super::unsupported, Asker, AuditEvent, Batch, Changes, Families, Label};
use crate::{
    error::Error,
    registry::{Origin, RegistryError},
};

/// How many new issuing keys of one import have an event of their own, so that nobody can fill the log.
const MAX_REPORTED: usize = 16;

impl Families {
    /// Imports a family's signed objects from a file, or from another station. Returns how many were new. `label_of` finds
    /// the shown Key with an access key.
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
        let origin = if by.0.is_some() { Origin::Import } else { Origin::Link };
        self.import_from(origin, family, objects, label_of, by, changes)
    }

    /// [`Self::import`] of objects with this origin.
    pub fn import_from(
        &mut self,
        origin: Origin,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<u32, Error> {
        let imported = self
            .note_issuers(origin, family, objects, by)
            .map_err(Error::from)
            .and_then(|()| self.import_together(family, objects, label_of, by, changes));
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

    /// Notes the issuing keys that are new here. It is committed before the import: a crash in between forgets no report.
    fn note_issuers(
        &self,
        origin: Origin,
        family: Id,
        objects: &SignedObjects,
        by: Asker,
    ) -> Result<(), RegistryError> {
        let mut new = Vec::new();
        for ca in objects.certificates().filter(|certificate| certificate.is_ca()) {
            let id = ca.public_key().id();
            if self.registry.issuer(id)?.is_none()
                && self.registry.found_issuer(family, id)?.is_none()
                && !new.contains(&id)
            {
                new.push(id);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for issuer in &new {
            batch.put_found_issuer(family, *issuer, origin);
        }
        if origin != Origin::Key {
            for issuer in new.iter().take(MAX_REPORTED) {
                let event =
                    AuditEvent::IssuerFound { family, issuer: *issuer, by: origin.as_str() };
                self.log(&mut batch, &event, by);
                tracing::warn!(%family, %issuer, by = origin.as_str(), "an issuing key appeared that no job here made; \
                    `keywrightctl family show` lists it: if nobody made a Backup Key, revoke it");
            }
            if let Some(more) = new.len().checked_sub(MAX_REPORTED).filter(|more| *more > 0) {
                tracing::warn!(%family, more, "more issuing keys appeared with it");
            }
        }
        self.registry.commit(batch)
    }
}
