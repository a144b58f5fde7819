//! ApplyConfirmation: keeps what a Lock has confirmed about a Key, received as a file or over the link. Only a
//! confirmation moves a right from `pending` to `active`, or ends `removing`.
//!
//! A Lock may send as many confirmations as it likes: one that changes nothing is not written, and of those that only
//! report another newest version, [`MAX_REPORTS`] of one Lock a minute are.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::{Duration, Instant},
};

use keywright_base::clock;
use keywright_proto::{Confirmation, Effect, Id, PublicKey, rights::VersionedEffect};

use super::{Asker, Changes, Families, log::ConfirmedLocks};
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

/// How many confirmations of one Lock a minute are written that only report another newest version.
const MAX_REPORTS: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What a confirmation changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// Nothing.
    Nothing,
    /// The newest version that the Lock has reported.
    Report,
    /// What the Lock does.
    Right,
}

/// How many reports of each Lock were written in the minute that began then. Only Locks in the registry are here.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<Id, (Instant, u32)>);

impl Reports {
    fn may_report(&self, lock: Id) -> bool {
        self.0
            .get(&lock)
            .is_none_or(|(began, count)| *count < MAX_REPORTS || began.elapsed() >= MINUTE)
    }

    fn note(&mut self, lock: Id) {
        let (began, count) = self.0.entry(lock).or_insert_with(|| (Instant::now(), 0));
        if began.elapsed() >= MINUTE {
            (*began, *count) = (Instant::now(), 0);
        }
        *count += 1;
    }
}

/// State that is collected while many confirmations are kept.
pub(super) struct Confirming {
    /// Whether a confirmation that only reports another newest version is written.
    may_report: bool,
    /// Confirmed effects that are not logged yet.
    confirmed: ConfirmedLocks,
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
                    if rights.contains(&(statement.key, lock)) {
                        // Of two confirmations of one right the newer is found by comparing with what is committed.
                        self.log_confirmed(&mut batch, confirming.take_confirmed(), by);
                        self.registry.commit(std::mem::take(&mut batch))?;
                        rights.clear();
                    }
                    confirming.may_report = self.reports.may_report(lock);
                    let confirmed = self.confirm(
                        &mut batch,
                        &mut confirming,
                        lock,
                        &statement,
                        confirmation,
                        bytes,
                    )?;
                    match confirmed {
                        Confirmed::Nothing => continue,
                        Confirmed::Report => self.reports.note(lock),
                        Confirmed::Right => {}
                    }
                    rights.insert((statement.key, lock));
                    batch.put_lock(lock, Lock { last_seen: clock::unix_seconds(), ..known });
                    keys.insert(statement.key);
                }
                // A store failure says nothing about this confirmation, so abort.
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) => refused.push(error),
            }
        }
        self.log_confirmed(&mut batch, confirming.take_confirmed(), by);
        if !batch.is_empty() {
            self.registry.commit(batch)?;
        }
        changes.keys.extend(keys);
        self.tell_confirmed(confirming, changes);
        Ok(refused)
    }

    /// Puts a verified confirmation, unless a newer one is known.
    pub(super) fn confirm(
        &self,
        batch: &mut Batch,
        confirming: &mut Confirming,
        lock: Id,
        statement: &StatementRef,
        confirmation: Confirmation,
        cose: Vec<u8>,
    ) -> Result<Confirmed, Error> {
        let (key, family) = (statement.key, statement.family);
        let may_report = confirming.may_report;
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
        let confirmed =
            self.put_confirmed(batch, statements, lock, statement, confirmation, cose, may_report)?;
        if confirmed == Confirmed::Right {
            confirming.confirmed.entry((key, allow)).or_default().push(lock);
            if !stays {
                confirming.changed.entry((key, family)).or_default().push(lock);
            }
        }
        Ok(confirmed)
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

    /// Puts a confirmation, unless a newer one is known: the broker may send an old one again.
    #[allow(clippy::too_many_arguments, reason = "the parts of one confirmation")]
    fn put_confirmed(
        &self,
        batch: &mut Batch,
        statements: Option<&Statements>,
        lock: Id,
        statement: &StatementRef,
        confirmation: Confirmation,
        cose: Vec<u8>,
        may_report: bool,
    ) -> Result<Confirmed, Error> {
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
            return Ok(Confirmed::Right);
        }
        match known.filter(|known| may_report && known.newest_version < reported) {
            Some(known) => {
                let reported = SignedConfirmation { newest_version: reported, ..known };
                batch.put_signed_confirmation(key, lock, reported);
                Ok(Confirmed::Report)
            }
            None => Ok(Confirmed::Nothing),
        }
    }
}

impl Default for Confirming {
    fn default() -> Self {
        Self {
            may_report: true,
            confirmed: ConfirmedLocks::default(),
            changed: BTreeMap::new(),
            statements: BTreeMap::new(),
        }
    }
}

impl Confirming {
    /// Takes the effects to log with the next commit.
    pub(super) fn take_confirmed(&mut self) -> ConfirmedLocks {
        std::mem::take(&mut self.confirmed)
    }
}
