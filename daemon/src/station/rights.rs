//! ChangeRights: one statement a Key, one signature whatever the number of Locks.

use std::collections::BTreeMap;

use keywright_proto::{
    Effect, Id, Leaf, PublicKey, Target, Tree, Unsigned,
    statement::{Statement as Stating, claimed, is_plausible, next_version},
    tree::TreeHead,
};

use super::{
    LockNames, Reply, Station, issuing::Issuing, revocations::is_stolen, selection::too_many,
    view::Label,
};
use crate::{
    audit::AuditEvent,
    clock,
    decision::Reason,
    error::Error,
    judging::{Moment, Words},
    registry::{
        Batch,
        records::{self, LockEntry, Scope, Statement},
    },
    token::{Pin, random_seed},
};

/// A new statement on a Key, on its way to be signed.
pub(super) struct NewStatement {
    pub(super) key: Id,
    pub(super) family: Id,
    version: u64,
    salt_seed: [u8; 32],
    scope: Scope,
    entries: Vec<LockEntry>,
    /// The newest one when this was prepared: another may come first.
    before: Option<Vec<u8>>,
}

impl Station {
    /// When is judged, and with which delay.
    pub(super) fn moment(&self) -> Moment {
        Moment { now: clock::unix_seconds(), delay: self.config.revoke_delay() }
    }

    /// ChangeRights.
    pub fn change_rights(
        &mut self,
        issuer: Label,
        key: Id,
        add: LockNames,
        remove: LockNames,
        pin: Pin,
        reply: Reply<()>,
    ) {
        let prepared = self.issuing(&issuer).and_then(|issuing| {
            let new = self.changed_rights(&issuing, key, &add, &remove)?;
            let paper = new.as_ref().map(|new| self.paper(&issuing, new)).transpose()?;
            Ok((issuing, new.zip(paper)))
        });
        match prepared {
            Err(error) => reply.answer(self, Err(error)),
            // They are as they should be.
            Ok((_, None)) => reply.answer(self, Ok(())),
            Ok((issuing, Some((new, paper)))) => {
                let by = issuing.clone();
                self.sign("rights", issuer, &issuing, pin, vec![paper], move |station, signed| {
                    let result = signed.and_then(|signed| station.keep_rights(&by, new, signed));
                    reply.answer(station, result);
                });
            }
        }
    }

    fn changed_rights(
        &self,
        issuing: &Issuing,
        key: Id,
        add: &LockNames,
        remove: &LockNames,
    ) -> Result<Option<NewStatement>, Error> {
        let family = issuing.family;
        let record = self.member(key, family)?;
        if record.issuing_key.is_some() {
            return Err(Error::InvalidArgument(
                "a Master or Backup Key may access every Lock of its family; revoke it to end that"
                    .into(),
            ));
        }
        if add.is_empty() && remove.is_empty() {
            return Err(Error::InvalidArgument("name at least one Lock to add or remove".into()));
        }
        let asked = |names: &LockNames| match names.is_empty() {
            true => Ok(Vec::new()),
            false => self.entries(family, names),
        };
        let (add, remove) = (asked(add)?, asked(remove)?);
        let is_added = |lock: Id| add.binary_search_by_key(&lock, |entry| entry.lock).is_ok();
        if let Some(both) = remove.iter().find(|entry| is_added(entry.lock)) {
            return Err(Error::InvalidArgument(format!(
                "Lock {} is both added and removed",
                both.lock
            )));
        }
        let words = self.moment().words(&self.registry, key, family)?;
        if words.is_revoked() {
            return Err(Error::Pair(Reason::Revoked));
        }
        let mut entries = in_force(&words, self.takes_up_void(family)?);
        self.forget_removed(family, &mut entries)?;
        let before = entries.clone();
        let all_count = entries.keys().all(|lock| words.on(*lock).is_some());
        for (locks, allow) in [(add, true), (remove, false)] {
            for entry in locks {
                // What a Key has no right to need not be taken away.
                if allow || entries.contains_key(&entry.lock) {
                    entries.insert(entry.lock, LockEntry { allow, ..entry });
                }
            }
        }
        if entries == before && all_count {
            return Ok(None);
        }
        too_many(entries.len())?;
        let listed = Some(entries.into_values().collect());
        self.new_statement(key, family, &words, listed).map(Some)
    }

    /// Leaves out Locks that were removed from the family: the next statement does not name them.
    pub(super) fn forget_removed(
        &self,
        family: Id,
        entries: &mut BTreeMap<Id, LockEntry>,
    ) -> Result<(), Error> {
        for (lock, _) in self.registry.removed_locks(family)? {
            entries.remove(&lock);
        }
        Ok(())
    }

    /// Whether what revoked issuers of a family had signed may be signed anew: not where one of them
    /// was stolen, or nobody here said why it was revoked.
    fn takes_up_void(&self, family: Id) -> Result<bool, Error> {
        for revocation in self.registry.revocations(family)? {
            let of_issuer = claimed(&revocation.cose).is_some_and(|said| said.revokes.is_some());
            if of_issuer && (revocation.reason.is_empty() || is_stolen(&revocation.reason)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A statement on a Key that says this of its Locks; none: that it may access every Lock.
    pub(super) fn new_statement(
        &self,
        key: Id,
        family: Id,
        words: &Words,
        entries: Option<Vec<LockEntry>>,
    ) -> Result<NewStatement, Error> {
        let newest = self.newest_of(key, words)?;
        let version = next_version(newest, clock::unix_millis())
            .map_err(|error| Error::LimitExceeded(error.to_string()))?;
        let (scope, entries) = match entries {
            None => (Scope::All, Vec::new()),
            Some(listed) => {
                (Scope::Listed(u32::try_from(listed.len()).unwrap_or(u32::MAX)), listed)
            }
        };
        let before = self.registry.statement(key, family)?.map(|statement| statement.cose);
        let salt_seed = random_seed().map_err(|_| no_random())?;
        Ok(NewStatement { key, family, version, salt_seed, scope, entries, before })
    }

    /// The newest version known of a Key, here or by a Lock.
    pub(super) fn newest_version(&self, key: Id, family: Id) -> Result<Option<u64>, Error> {
        self.newest_of(key, &self.moment().words(&self.registry, key, family)?)
    }

    /// A Lock that reports what nobody here has seen is believed as far as a clock may be wrong: one that lies would leave no
    /// version for anybody.
    fn newest_of(&self, key: Id, words: &Words) -> Result<Option<u64>, Error> {
        let now = clock::unix_millis();
        let reported =
            self.registry.signed_confirmations(key)?.into_iter().map(|(_, w)| w.newest_version);
        let believed = reported.filter(|version| is_plausible(*version, now));
        Ok(words.newest_version().into_iter().chain(believed).max())
    }

    /// What is to be signed.
    pub(super) fn paper(&self, issuing: &Issuing, new: &NewStatement) -> Result<Unsigned, Error> {
        let record = self.member(new.key, new.family)?;
        self.paper_on(issuing, new, &access_key(&record)?)
    }

    /// The same for a Key that is not known yet.
    pub(super) fn paper_on(
        &self,
        issuing: &Issuing,
        new: &NewStatement,
        subject: &PublicKey,
    ) -> Result<Unsigned, Error> {
        let (version, tree) = (Some(new.version), new.tree()?);
        Stating { subject, version, tree, revokes: None }
            .unsigned(&issuing.chain)
            .map_err(|error| Error::Unsupported(error.to_string()))
    }

    fn keep_rights(
        &mut self,
        issuing: &Issuing,
        new: NewStatement,
        signed: Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        let Some(cose) = signed.into_iter().next() else { return Err(Error::JobLost) };
        let mut batch = Batch::new();
        let (key, family) = (new.key, new.family);
        let (allowed, denied) = new.effects();
        self.put_new(&mut batch, new, cose)?;
        self.put_own_issuer(&mut batch, issuing)?;
        self.log(&mut batch, &AuditEvent::RightsChanged { family, key, allowed, denied });
        self.registry.commit(batch)?;
        self.refresh_id(key);
        Ok(())
    }

    /// Puts a statement that was signed, unless another one was quicker.
    pub(super) fn put_new(
        &self,
        batch: &mut Batch,
        new: NewStatement,
        cose: Vec<u8>,
    ) -> Result<(), Error> {
        let NewStatement { key, family, version, salt_seed, scope, entries, before } = new;
        let newest = self.registry.statement(key, family)?.map(|statement| statement.cose);
        if newest != before {
            return Err(Error::Stale(format!("the rights of Key {key}")));
        }
        let words = self.moment().words(&self.registry, key, family)?;
        let allowed = entries.iter().filter(|entry| entry.allow).count();
        let statement = Statement {
            version: Some(version),
            cose,
            salt_seed,
            scope,
            allowed: u32::try_from(allowed).unwrap_or(u32::MAX),
            issued: clock::unix_seconds(),
        };
        batch.put_older_statements(key, family, words.beside(&statement, &entries));
        batch.put_statement(key, family, statement, entries);
        Ok(())
    }

    /// A Key of a family that this station knows.
    pub(super) fn member(&self, key: Id, family: Id) -> Result<records::Key, Error> {
        let missing = || Error::NotFound(format!("Key {key} in the issuer's family"));
        let record = self.registry.key(key)?.ok_or_else(missing)?;
        let memberships = self.registry.memberships(key)?;
        let is_member = memberships.iter().any(|(of, _)| *of == family);
        if is_member { Ok(record) } else { Err(missing()) }
    }

    /// Shows a Key anew, by its id.
    pub(super) fn refresh_id(&mut self, id: Id) {
        let label = self.keys.iter().find(|(_, key)| key.id == Some(id)).map(|(l, _)| l.clone());
        if let Some(label) = label {
            self.refresh(&label);
        }
    }
}

impl NewStatement {
    /// How many of the listed Locks it allows, and how many it denies.
    pub(super) fn effects(&self) -> (usize, usize) {
        let allowed = self.entries.iter().filter(|entry| entry.allow).count();
        (allowed, self.entries.len() - allowed)
    }

    fn tree(&self) -> Result<TreeHead, Error> {
        let leaf = |target, allow| {
            let effect = if allow { Effect::Allow } else { Effect::Deny };
            Leaf::new(&self.salt_seed, target, effect)
        };
        let tree = match self.scope {
            Scope::All => Tree::new([leaf(Target::All, true)]),
            Scope::Listed(_) => {
                let entries = self.entries.iter();
                Tree::new(entries.map(|entry| leaf(Target::Lock(entry.key_hash), entry.allow)))
            }
        };
        Ok(tree.map_err(|error| Error::LimitExceeded(error.to_string()))?.head())
    }
}

/// What counts of each Lock that is listed. Where nothing does, because its signer was revoked, what
/// was said last is taken up if `void` says so, for the issuer to sign it anew; else it is denied.
pub(super) fn in_force(words: &Words, void: bool) -> BTreeMap<Id, LockEntry> {
    let listed = words.listed().into_iter();
    let with_effect = listed.map(|(lock, entry)| {
        let said = words.on(lock).or_else(|| words.void_on(lock).filter(|_| void));
        let allow = said.is_some_and(|(said, _)| said.effect == Effect::Allow);
        (lock, LockEntry { allow, ..entry })
    });
    with_effect.collect()
}

pub(super) fn access_key(record: &records::Key) -> Result<PublicKey, Error> {
    PublicKey::from_spki_der(&record.access_key)
        .map_err(|error| Error::Unsupported(error.to_string()))
}

pub(super) fn no_random() -> Error {
    Error::Unsupported("the system gives no random numbers".into())
}
