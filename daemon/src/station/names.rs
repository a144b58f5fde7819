//! What people call Keys and Locks.

use keywright_proto::Id;

use super::{Reply, Station, serializations::checked};
use crate::{
    audit::AuditEvent,
    error::Error,
    registry::{
        Batch,
        records::{self, Lock},
    },
};

impl Station {
    /// RenameKey.
    pub fn rename_key(&mut self, id: Id, name: String, reply: Reply<()>) {
        let result = self.name_key(id, name);
        reply.answer(self, result);
    }

    fn name_key(&mut self, id: Id, name: String) -> Result<(), Error> {
        checked(&name)?;
        let record = self.registry.key(id)?.ok_or_else(|| Error::NotFound(format!("Key {id}")))?;
        let families = self.registry.memberships(id)?;
        self.issuer_is_here(families.iter().map(|(family, _)| *family))?;
        let label = record.label.clone();
        let mut batch = Batch::new();
        batch.put_key(id, records::Key { name: name.clone(), ..record });
        self.log(&mut batch, &AuditEvent::KeyRenamed { key: id, name });
        self.registry.commit(batch)?;
        self.refresh(&label);
        Ok(())
    }

    /// RenameLock.
    pub fn rename_lock(&mut self, id: Id, name: String, reply: Reply<()>) {
        let result = self.name_lock(id, name);
        reply.answer(self, result);
    }

    fn name_lock(&mut self, id: Id, name: String) -> Result<(), Error> {
        checked(&name)?;
        let lock = self.registry.lock(id)?.ok_or_else(|| Error::NotFound(format!("Lock {id}")))?;
        self.issuer_is_here([lock.family])?;
        let mut batch = Batch::new();
        batch.put_lock(id, Lock { name: name.clone(), ..lock });
        self.log(&mut batch, &AuditEvent::LockRenamed { lock: id, name });
        Ok(self.registry.commit(batch)?)
    }

    /// A Master or Backup of one of the families is plugged in.
    pub(super) fn issuer_is_here(
        &self,
        families: impl IntoIterator<Item = Id>,
    ) -> Result<(), Error> {
        let here: Vec<Id> = self
            .keys
            .values()
            .filter(|key| key.is_present() && key.claims.issuing.is_some())
            .filter_map(|key| key.claims.family.map(|(family, _)| family))
            .collect();
        if families.into_iter().any(|family| here.contains(&family)) {
            return Ok(());
        }
        Err(Error::KeyAbsent("a Master or Backup Key of the family".into()))
    }
}
