//! Names of Keys and Locks: RenameKey and RenameLock.

use keywright_proto::Id;

use super::{Asker, AuditEvent, Changes, Families, Present, checked};
use crate::{
    error::Error,
    registry::{
        Batch,
        records::{self, Lock},
    },
};

impl Families {
    /// RenameKey.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`; `KeyAbsent`: no Master or Backup Key of one of its families is plugged in.
    pub fn rename_key(
        &self,
        id: Id,
        name: String,
        present: &Present<'_>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        checked(&name)?;
        let record = self.registry.key(id)?.ok_or_else(|| Error::NotFound(format!("Key {id}")))?;
        let families = self.registry.memberships(id)?;
        present.has_issuer_of(families.iter().map(|(family, _)| *family))?;
        let mut batch = Batch::new();
        batch.put_key(id, records::Key { name: name.clone(), ..record });
        self.log(&mut batch, &AuditEvent::KeyRenamed { key: id, name }, by);
        self.registry.commit(batch)?;
        changes.keys.insert(id);
        Ok(())
    }

    /// RenameLock.
    ///
    /// # Errors
    /// `InvalidArgument`, `NotFound`; `KeyAbsent`: no Master or Backup Key of its family is plugged in.
    pub fn rename_lock(
        &self,
        id: Id,
        name: String,
        present: &Present<'_>,
        by: Asker,
    ) -> Result<(), Error> {
        checked(&name)?;
        let lock = self.registry.lock(id)?.ok_or_else(|| Error::NotFound(format!("Lock {id}")))?;
        present.has_issuer_of([lock.family])?;
        let mut batch = Batch::new();
        batch.put_lock(id, Lock { name: name.clone(), ..lock });
        self.log(&mut batch, &AuditEvent::LockRenamed { lock: id, name }, by);
        Ok(self.registry.commit(batch)?)
    }
}

impl Present<'_> {
    /// Checks that a Master or Backup Key of one of the families is plugged in.
    pub(super) fn has_issuer_of(
        &self,
        families: impl IntoIterator<Item = Id>,
    ) -> Result<(), Error> {
        if families.into_iter().any(|family| self.issuers.contains(&family)) {
            return Ok(());
        }
        Err(Error::KeyAbsent("a Master or Backup Key of the family".into()))
    }
}
