//! ApplyConfirmation: keeps what a Lock has confirmed about a Key, received as a file or over the link. Only a
//! confirmation moves a right from `pending` to `active`, or ends `removing`.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use keywright_base::clock;
use keywright_proto::{Confirmation, Effect, Id, PublicKey, rights::VersionedEffect};

use super::{Asker, Changes, Families, log::Confirmed};
use crate::{
    error::Error,
    queries,
    registry::{
        Batch,
        records::{self, Lock, SignedConfirmation, StatementRef},
    },
    trust::{
        Statements,
        confirmation::{self, confirmed_effect, supersedes},
    },
};

/// The most rights in one signal.
const MAX_RIGHTS_PER_SIGNAL: usize = 1_000;

/// State that is collected while many confirmations are kept.
#[derive(Default)]
pub(super) struct Confirming {
    /// Confirmed effects that are not logged yet.
    confirmed: Confirmed,
    /// Locks whose confirmation may have changed a right, by Key and family.
    changed: BTreeMap<(Id, Id), Vec<Id>>,
    /// The statements on a Key in a family. `None` if they need not be compared.
    statements: BTreeMap<(Id, Id), Option<Statements>>,
}

impl Families {
    /// Keeps many confirmations, in as few commits as possible. Returns why some were refused.
    ///
    /// # Errors
    /// The registry failed. This says nothing about a confirmation.
    pub fn apply_confirmations(
        &mut self,
        all: Vec<Vec<u8>>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<Vec<Error>, Error> {
        let (mut batch, mut rights) = (Batch::new(), BTreeSet::new());
        let mut confirming = Confirming::default();
        let (mut keys, mut refused) = (BTreeSet::new(), Vec::new());
        for bytes in all {
            match self.read_confirmation(&bytes) {
                Ok((lock, known, statement, confirmation)) => {
                    if !rights.insert((statement.key, lock)) {
                        // Of two confirmations of one right the newer is found by comparing with what is committed.
                        self.log_confirmed(&mut batch, confirming.take_confirmed(), by);
                        self.registry.commit(std::mem::take(&mut batch))?;
                        rights = BTreeSet::from([(statement.key, lock)]);
                    }
                    self.confirm(
                        &mut batch,
                        &mut confirming,
                        lock,
                        &statement,
                        confirmation,
                        bytes,
                    )?;
                    batch.put_lock(lock, Lock { last_seen: clock::unix_seconds(), ..known });
                    keys.insert(statement.key);
                }
                // A store failure says nothing about this confirmation, so abort.
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => refused.push(error),
            }
        }
        if !keys.is_empty() {
            self.log_confirmed(&mut batch, confirming.take_confirmed(), by);
            self.registry.commit(batch)?;
        }
        changes.keys.extend(keys);
        self.tell_confirmed(confirming, changes);
        Ok(refused)
    }

    /// Puts a verified confirmation, unless a newer one is known. Returns whether it is new.
    pub(super) fn confirm(
        &self,
        batch: &mut Batch,
        confirming: &mut Confirming,
        lock: Id,
        statement: &StatementRef,
        confirmation: Confirmation,
        cose: Vec<u8>,
    ) -> Result<bool, Error> {
        let (key, family) = (statement.key, statement.family);
        let allow = confirmation.effect == Effect::Allow;
        let statements = match confirming.statements.entry((key, family)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(self.moment().competing_statements(&self.registry, key, family)?)
            }
        };
        let statements = statements.as_ref();
        // A Lock that repeats that it admits this Key changes no right.
        let stays = allow && self.is_admitted(statements, key, lock)?;
        let is_new = self.put_confirmed(batch, statements, lock, statement, confirmation, cose)?;
        if is_new {
            confirming.confirmed.entry((key, allow)).or_default().push(lock);
            if !stays {
                confirming.changed.entry((key, family)).or_default().push(lock);
            }
        }
        Ok(is_new)
    }

    /// Whether the Lock has confirmed that it admits this Key.
    fn is_admitted(
        &self,
        statements: Option<&Statements>,
        key: Id,
        lock: Id,
    ) -> Result<bool, Error> {
        let confirmed = confirmed_effect(&self.registry, statements, key, lock)?;
        Ok(confirmed.is_some_and(|(confirmed, _)| confirmed.effect == Effect::Allow))
    }

    /// Announces each right that was confirmed.
    pub(super) fn tell_confirmed(&self, confirming: Confirming, changes: &mut Changes) {
        for ((key, family), locks) in confirming.changed {
            for locks in locks.chunks(MAX_RIGHTS_PER_SIGNAL) {
                match queries::completed_rights(&self.registry, key, family, locks, self.moment()) {
                    Ok(rights) if rights.is_empty() => {}
                    Ok(rights) => changes.confirmed.push((key, rights)),
                    Err(error) => {
                        tracing::error!(%key, %error, "cannot announce the confirmed rights");
                    }
                }
            }
        }
    }

    /// Verifies a confirmation, and finds its Lock and its statement.
    fn read_confirmation(
        &self,
        bytes: &[u8],
    ) -> Result<(Id, Lock, StatementRef, Confirmation), Error> {
        let claimed = Confirmation::claimed_lock(bytes)
            .map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let lock = Id::of_hash(&claimed);
        let known =
            self.registry.lock(lock)?.ok_or_else(|| Error::NotFound(format!("Lock {lock}")))?;
        let confirmation = PublicKey::from_spki_der(&known.identity_key)
            .map_err(|error| error.to_string())
            .and_then(|key| Confirmation::verify(bytes, &key).map_err(|error| error.to_string()))
            .map_err(|why| {
                Error::Forged(format!("{why}; ask Lock \"{}\" for it once more", known.name))
            })?;
        let statement = self
            .registry
            .statement_by_digest(&confirmation.statement)?
            .filter(|s| s.family == known.family);
        let statement = statement.ok_or_else(|| {
            Error::NotFound(
                "statement here that it confirms; import what the station that made it exports"
                    .into(),
            )
        })?;
        Ok((lock, known, statement, confirmation))
    }

    /// Puts a confirmation, unless a newer one is known: the broker may send an old one again. Returns whether it is
    /// new.
    fn put_confirmed(
        &self,
        batch: &mut Batch,
        statements: Option<&Statements>,
        lock: Id,
        statement: &StatementRef,
        confirmation: Confirmation,
        cose: Vec<u8>,
    ) -> Result<bool, Error> {
        let key = statement.key;
        let new = VersionedEffect { version: statement.version, effect: confirmation.effect };
        let old = match self.registry.confirmation(key, lock)?.map(confirmation::effect_of) {
            Some(old) => Some((
                confirmed_effect(&self.registry, statements, key, lock)?.map(|(effect, _)| effect),
                old,
            )),
            None => None,
        };
        let effective = match statements {
            Some(statements) => statements.confirmed_effect(new, Some(&confirmation.statement)),
            None => Some(new),
        };
        let known = self.registry.signed_confirmation(key, lock)?;
        let reported =
            known.as_ref().map_or(0, |known| known.newest_version).max(confirmation.newest_version);
        let is_new = old.is_none_or(|old| supersedes((effective, new), old));
        if is_new {
            let allow = confirmation.effect == Effect::Allow;
            let (version, time) = (statement.version, clock::unix_seconds());
            batch.put_confirmation(key, lock, records::Confirmation { version, allow, time });
            batch.put_signed_confirmation(
                key,
                lock,
                SignedConfirmation { cose, newest_version: reported },
            );
        } else if let Some(known) = known {
            batch.put_signed_confirmation(
                key,
                lock,
                SignedConfirmation { newest_version: reported, ..known },
            );
        }
        Ok(is_new)
    }
}

impl Confirming {
    /// Takes the effects to log with the next commit.
    pub(super) fn take_confirmed(&mut self) -> Confirmed {
        std::mem::take(&mut self.confirmed)
    }
}
