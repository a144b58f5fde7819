//! Calls that need no token: each is passed to the part that it concerns, and answered at once.

use keywright_proto::{Id, Kind, SignedObjects};
use keywright_token::RecoveryCode;

use super::{Reply, Station};
use crate::{
    caller::Caller,
    error::Error,
    families::{Asker, Brought, LockNames},
    jobs::LockChoice,
    queries::LockRow,
    registry::{Filter, Origin},
    view::{Label, Summary},
};

/// Calls on serializations.
impl Station {
    /// StartSerialization.
    pub fn start_serialization(
        &mut self,
        caller: Caller,
        issuer: Option<Label>,
        candidate: Label,
        kind: Option<Kind>,
        name: Option<String>,
        reply: Reply<u64>,
    ) {
        let Self { jobs, keys, families, .. } = self;
        let started = jobs.start(issuer, candidate, kind, name, keys, families);
        if let Ok(number) = &started {
            tracing::debug!(number, caller = caller.name, "started by hand");
        }
        reply.answer(self, started);
    }

    /// Answers a call that drives a serialization. The caller of the first successful call becomes its owner.
    pub(super) fn answered<T: Send + 'static>(
        &mut self,
        number: u64,
        caller: &Caller,
        result: Result<T, Error>,
        reply: Reply<T>,
    ) {
        self.jobs.claim_if_free(number, caller, result.is_ok());
        reply.answer(self, result);
    }

    /// Claim.
    pub fn claim(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.jobs.driven(number, &caller).map(|_| ());
        self.answered(number, &caller, result, reply);
    }

    /// Release. Succeeds if nobody owns the serialization.
    pub fn release(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.jobs.release(number, &caller, &self.keys, &self.families);
        reply.answer(self, result);
    }

    /// A bus name lost its owner: releases its serializations.
    pub fn bus_name_left(&mut self, name: &str) {
        self.jobs.bus_name_left(name, &self.keys, &self.families);
    }

    /// SetKind.
    pub fn set_kind(&mut self, number: u64, caller: Caller, kind: Kind, reply: Reply<()>) {
        let result = self.jobs.set_kind(number, &caller, kind);
        self.answered(number, &caller, result, reply);
    }

    /// SetName.
    pub fn set_name(&mut self, number: u64, caller: Caller, name: String, reply: Reply<()>) {
        let result = self.jobs.set_name(number, &caller, name);
        self.answered(number, &caller, result, reply);
    }

    /// SelectLocks.
    pub fn select_locks(
        &mut self,
        number: u64,
        caller: Caller,
        choice: LockChoice,
        reply: Reply<()>,
    ) {
        let Self { jobs, keys, families, .. } = self;
        let result = jobs.select_locks(number, &caller, &choice, keys, families);
        self.answered(number, &caller, result, reply);
    }

    /// A page of the selected Locks, for ListLocks.
    pub fn selected_locks(
        &mut self,
        number: u64,
        after: Option<Id>,
        limit: u32,
        reply: Reply<Vec<Id>>,
    ) {
        let Self { jobs, keys, families, .. } = self;
        let result = jobs.selected_locks(number, after, limit as usize, keys, families);
        reply.answer(self, result);
    }

    /// Back.
    pub fn back(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.jobs.back(number, &caller);
        self.answered(number, &caller, result, reply);
    }

    /// Review.
    pub fn review(&mut self, number: u64, caller: Caller, reply: Reply<Summary>) {
        let result = self.jobs.review(number, &caller, &self.keys, &self.families);
        self.answered(number, &caller, result, reply);
    }

    /// Save.
    pub fn save(&mut self, number: u64, caller: Caller, revision: u32, reply: Reply<()>) {
        let Self { jobs, keys, families, .. } = self;
        let result = jobs.save(number, &caller, revision, keys, families, reply.by());
        self.answered(number, &caller, result, reply);
    }

    /// TakeRecoveryCode.
    pub fn take_recovery_code(&mut self, number: u64, caller: Caller, reply: Reply<RecoveryCode>) {
        let Self { jobs, keys, families, .. } = self;
        let result = jobs.take_recovery_code(number, &caller, keys, families, reply.by());
        self.answered(number, &caller, result, reply);
    }

    /// Finish.
    pub fn finish(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.jobs.finish(number, &caller, &mut self.keys, &self.families);
        reply.answer(self, result);
    }

    /// Cancel. The caller becomes the owner, so that the serialization stays until the caller has read what is left on
    /// the tokens.
    pub fn cancel(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let Self { jobs, keys, families, .. } = self;
        let result = jobs.cancel(number, &caller, keys, families, reply.by());
        self.answered(number, &caller, result, reply);
    }
}

/// Calls on families, their Keys and Locks.
impl Station {
    /// RenameKey.
    pub fn rename_key(&mut self, id: Id, name: String, reply: Reply<()>) {
        let by = reply.by();
        let result = self.change_families(|families, keys, changes| {
            families.rename_key(id, name, &keys.for_families(), by, changes)
        });
        reply.answer(self, result);
    }

    /// RenameLock.
    pub fn rename_lock(&mut self, id: Id, name: String, reply: Reply<()>) {
        let present = self.keys.for_families();
        let result = self.families.rename_lock(id, name, &present, reply.by());
        reply.answer(self, result);
    }

    /// SetGroup.
    pub fn set_group(
        &mut self,
        family: Id,
        name: String,
        add: &LockNames,
        remove: &LockNames,
        reply: Reply<u32>,
    ) {
        let present = self.keys.for_families();
        let result = self.families.set_group(family, name, add, remove, &present, reply.by());
        reply.answer(self, result);
    }

    /// RemoveGroup.
    pub fn remove_group(&mut self, family: Id, name: String, reply: Reply<()>) {
        let present = self.keys.for_families();
        let result = self.families.remove_group(family, name, &present, reply.by());
        reply.answer(self, result);
    }

    /// Notes the presence of a Lock, as the link reports it: only a hint for people.
    pub fn lock_seen(&mut self, lock: Id, online: bool, reply: Reply<()>) {
        let result = self.families.note_lock(lock, online);
        reply.answer(self, result);
    }

    /// The Locks on the cards of plugged-in Keys whose family has no Lock here, for ListLocks. `only` restricts them to
    /// these ids.
    pub fn carried_locks(
        &mut self,
        filter: Filter,
        only: Option<Vec<Id>>,
        reply: Reply<Vec<LockRow>>,
    ) {
        let present = self.keys.for_families();
        let rows = self.families.carried_locks(&filter, only.as_deref(), &present);
        reply.answer(self, Ok(rows));
    }

    /// GetCertificateChain.
    pub fn certificate_chain(&mut self, label: Label, family: Option<Id>, reply: Reply<String>) {
        let chain = self.keys.key(&label).and_then(|key| {
            self.families.certificate_chain(&key.memberships, key.id, &key.claims, family)
        });
        reply.answer(self, chain);
    }

    /// ApplyConfirmation.
    pub fn apply_confirmation(&mut self, bytes: Vec<u8>, reply: Reply<()>) {
        let by = reply.by();
        let refused = self.change_families(|families, _, changes| {
            families.apply_confirmations(vec![bytes], by, changes)
        });
        let result = refused.and_then(|refused| refused.into_iter().next().map_or(Ok(()), Err));
        reply.answer(self, result);
    }

    /// Applies many confirmations, in as few commits as possible. Returns why some were refused.
    pub fn apply_confirmations(&mut self, all: Vec<Vec<u8>>, reply: Reply<Vec<Error>>) {
        let by = reply.by();
        let refused = self
            .change_families(|families, _, changes| families.apply_confirmations(all, by, changes));
        reply.answer(self, refused);
    }

    /// ImportFamily, after the file was verified. Returns how many objects were new.
    pub fn import_family(&mut self, family: Id, objects: SignedObjects, reply: Reply<u32>) {
        let by = reply.by();
        let new = self.change_families(|families, keys, changes| {
            families.import(family, &objects, &|key| keys.label_of(key), by, changes)
        });
        reply.answer(self, new);
    }

    /// Imports the issuing keys that a Lock believes, after they were verified. Returns how many were new.
    pub fn import_issuers(&mut self, family: Id, objects: SignedObjects, reply: Reply<u32>) {
        let by = reply.by();
        let new = self.change_families(|families, keys, changes| {
            let label_of = |key: &_| keys.label_of(key);
            families.import_from(Origin::Lock, family, &objects, &label_of, by, changes)
        });
        reply.answer(self, new);
    }

    /// AcknowledgeLostRegistry.
    pub fn acknowledge_loss(&mut self, reply: Reply<()>) {
        let result = self.families.acknowledge_loss(reply.by());
        reply.answer(self, result);
    }

    /// Logs an export before it is given out. Nothing is exported if the log entry fails.
    pub fn log_export(&mut self, family: Id, reply: Reply<()>) {
        let logged = self.families.log_export(family, reply.by());
        reply.answer(self, logged);
    }

    /// Judges every family again, because the delay of a revocation may have ended.
    pub fn settle_all_revocations(&mut self) {
        self.change_families(|families, _, changes| {
            families.settle_all_revocations(Asker::default(), changes);
        });
    }

    /// Saves the uptime while a revocation waits.
    pub fn keep_uptime(&self) {
        self.families.keep_uptime();
    }

    /// Logs a call whose caller was not authorized.
    pub fn refused_call(&mut self, uid: Option<u32>, action: &str) {
        self.refused.refused_call(&self.families, uid, action);
    }

    /// Logs objects that were refused because they do not verify.
    pub fn refused_objects(&mut self, uid: Option<u32>, what: Brought) {
        self.refused.refused_objects(&self.families, uid, what);
    }
}
