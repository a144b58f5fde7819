//! Changes that belong together: written all or nothing.

use std::collections::BTreeSet;

use keywright_proto::{Id, audit::LoggedEvent as AuditEvent};

use super::{
    audit_log::{self, NewEvent},
    changes::Changes,
    error::RegistryError,
    groups::{put_group, remove_group},
    keys::{put_key, put_membership},
    layout::Table,
    locks::put_lock,
    older_statements::StatementWithEntries,
    older_statements::{index_digest, put_older_statements, put_revocation, remove_older},
    records::{
        Confirmation, Family, Intent, Issuer, Key, Leftover, Lock, LockEntry, LockRemoval,
        Membership, Revocation, SignedConfirmation, Statement, UnixTime,
    },
    removed_rights::{put_lock_removal, set_lock_removed, update_removed_rights},
    statements::put_entries,
    view::View,
};

/// Changes for [`super::Registry::commit`], applied in the order they were given.
#[derive(Default)]
#[must_use = "a batch is written by Registry::commit"]
pub struct Batch {
    writes: Vec<Write>,
    events: Vec<NewEvent>,
}

/// Who has another certificate than before, or another chain above it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateChanges {
    /// Locks.
    pub locks: BTreeSet<Id>,
    /// CAs: every Lock that such a one certificate_changes.
    pub issuers: BTreeSet<Id>,
}

impl CertificateChanges {
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.issuers.is_empty()
    }
}

enum Write {
    Family(Id, Family),
    Issuer(Id, Issuer),
    Key(Id, Key),
    Membership(Id, Id, Membership),
    Lock(Id, Lock),
    Group(Id, String, Vec<Id>),
    RemoveGroup(Id, String),
    Statement(Id, Id, Statement, Vec<LockEntry>),
    Older(Id, Id, Vec<StatementWithEntries>),
    Noted(Id, Id, Option<u64>, Vec<u8>),
    Revocation(Id, Revocation),
    Confirmation(Id, Id, Confirmation),
    SignedConfirmation(Id, Id, SignedConfirmation),
    Root(Id, Id, Vec<u8>),
    LockRemoval(Id, LockRemoval),
    Removed(Id, Id, bool),
    Intent(Box<Intent>),
    IntentEntries(u64, Vec<LockEntry>),
    RemoveIntent(u64),
    Leftover([u8; 16], Leftover),
    RemoveLeftover([u8; 16]),
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a family; its count of Locks is the caller's to keep.
    pub fn put_family(&mut self, id: Id, family: Family) -> &mut Self {
        self.write(Write::Family(id, family))
    }

    /// Puts an issuing key, by the id of that key.
    pub fn put_issuer(&mut self, ca: Id, issuer: Issuer) -> &mut Self {
        self.write(Write::Issuer(ca, issuer))
    }

    /// Puts a Key.
    pub fn put_key(&mut self, id: Id, key: Key) -> &mut Self {
        self.write(Write::Key(id, key))
    }

    /// Puts what a family says of a Key.
    pub fn put_membership(&mut self, key: Id, family: Id, membership: Membership) -> &mut Self {
        self.write(Write::Membership(key, family, membership))
    }

    /// Puts a Lock. Its family has to be put first, or to be there.
    pub fn put_lock(&mut self, id: Id, lock: Lock) -> &mut Self {
        self.write(Write::Lock(id, lock))
    }

    /// Puts a group of a family, with these Locks in place of those that it had.
    pub fn put_group(&mut self, family: Id, name: String, locks: Vec<Id>) -> &mut Self {
        self.write(Write::Group(family, name, locks))
    }

    /// Removes a group; its Locks stay.
    pub fn remove_group(&mut self, family: Id, name: String) -> &mut Self {
        self.write(Write::RemoveGroup(family, name))
    }

    /// Puts the newest statement on a Key in a family, with the Locks it lists (each at most once), in place of
    /// the older one and its Locks.
    pub fn put_statement(
        &mut self,
        key: Id,
        family: Id,
        statement: Statement,
        entries: Vec<LockEntry>,
    ) -> &mut Self {
        self.write(Write::Statement(key, family, statement, entries))
    }

    /// Puts the statements on a Key that still count beside the newest one, in place of those before.
    pub fn put_older_statements(
        &mut self,
        key: Id,
        family: Id,
        statements: Vec<(Statement, Vec<LockEntry>)>,
    ) -> &mut Self {
        self.write(Write::Older(key, family, statements))
    }

    /// Notes a statement that is not kept, so that it is known by its digest.
    pub fn put_statement_digest(
        &mut self,
        key: Id,
        family: Id,
        statement: &Statement,
    ) -> &mut Self {
        self.write(Write::Noted(key, family, statement.version, statement.cose.clone()))
    }

    /// Puts a revocation. One that is there already stays as it is.
    pub fn put_revocation(&mut self, family: Id, revocation: Revocation) -> &mut Self {
        self.write(Write::Revocation(family, revocation))
    }

    /// Puts what a Lock signed about a Key.
    pub fn put_signed_confirmation(
        &mut self,
        key: Id,
        lock: Id,
        word: SignedConfirmation,
    ) -> &mut Self {
        self.write(Write::SignedConfirmation(key, lock, word))
    }

    /// Puts the root certificate that an issuing key of a family signed for itself.
    pub fn put_root(&mut self, family: Id, ca: Id, root: Vec<u8>) -> &mut Self {
        self.write(Write::Root(family, ca, root))
    }

    /// Puts the removal of a Lock. One by the same signer that is there already stays as it is. The Lock stays on the
    /// lists until [`Batch::set_lock_removed`].
    pub fn put_lock_removal(&mut self, family: Id, removal: LockRemoval) -> &mut Self {
        self.write(Write::LockRemoval(family, removal))
    }

    /// Takes a Lock off the lists and out of every group, or puts it back on the lists; nothing where it is so already. The
    /// family's count of Locks is the
    /// caller's to keep.
    pub fn set_lock_removed(&mut self, family: Id, lock: Id, removed: bool) -> &mut Self {
        self.write(Write::Removed(family, lock, removed))
    }

    /// Puts what a Lock confirmed about a Key.
    pub fn put_confirmation(&mut self, key: Id, lock: Id, confirmation: Confirmation) -> &mut Self {
        self.write(Write::Confirmation(key, lock, confirmation))
    }

    /// Puts a job, under its number. Its Locks stay as they are.
    pub fn put_intent(&mut self, intent: Intent) -> &mut Self {
        self.write(Write::Intent(Box::new(intent)))
    }

    /// Puts the Locks listed for a job (each at most once), in place of those that were there.
    pub fn put_intent_entries(&mut self, number: u64, entries: Vec<LockEntry>) -> &mut Self {
        self.write(Write::IntentEntries(number, entries))
    }

    /// Removes a job with its Locks.
    pub fn remove_intent(&mut self, number: u64) -> &mut Self {
        self.write(Write::RemoveIntent(number))
    }

    /// Puts what a job left on the token with this CHUID GUID.
    pub fn put_leftover(&mut self, guid: [u8; 16], leftover: Leftover) -> &mut Self {
        self.write(Write::Leftover(guid, leftover))
    }

    /// Removes it.
    pub fn remove_leftover(&mut self, guid: [u8; 16]) -> &mut Self {
        self.write(Write::RemoveLeftover(guid))
    }

    /// Appends an event to the log: a stable word, and what it was done to, as names and values.
    pub fn audit(
        &mut self,
        time: UnixTime,
        event: impl Into<String>,
        fields: Vec<(String, String)>,
    ) -> &mut Self {
        self.events.push(NewEvent { time, event: event.into(), fields });
        self
    }

    /// Answers the events that are appended to the log.
    pub(super) fn collect(
        self,
        view: &View<'_>,
        changes: &mut Changes,
    ) -> Result<Vec<AuditEvent>, RegistryError> {
        self.writes.into_iter().try_for_each(|write| write.collect(view, changes))?;
        audit_log::append(view, changes, self.events)
    }

    /// The Keys that something new is said of.
    pub(super) fn keys_with_new_statements(&self) -> Vec<Id> {
        let stated = |write: &Write| match write {
            Write::Statement(key, ..) => Some(*key),
            Write::Revocation(_, revocation) => Some(revocation.key),
            _ => None,
        };
        self.writes.iter().filter_map(stated).collect()
    }

    /// Who gets another certificate by it, or another chain above it.
    pub(super) fn certificate_changes(
        &self,
        view: &View<'_>,
    ) -> Result<CertificateChanges, RegistryError> {
        let mut certificate_changes = CertificateChanges::default();
        for write in &self.writes {
            match write {
                Write::Lock(id, lock) => {
                    let old: Option<Lock> = view.record(&Table::Locks.of(*id))?;
                    let same = |old: Lock| {
                        old.certificate == lock.certificate && old.issuer == lock.issuer
                    };
                    if !old.is_some_and(same) {
                        certificate_changes.locks.insert(*id);
                    }
                }
                Write::Issuer(ca, issuer) => {
                    let old: Option<Issuer> = view.record(&Table::Issuers.of(*ca))?;
                    // Below a new one there is nobody yet that is not new, too.
                    if old.is_some_and(|old| old.chain != issuer.chain) {
                        certificate_changes.issuers.insert(*ca);
                    }
                }
                _ => {}
            }
        }
        Ok(certificate_changes)
    }

    /// Whether something is in it that stations exchange, or may be.
    pub(super) fn has_signed_objects(&self) -> bool {
        self.writes.iter().any(|write| match write {
            Write::Family(..)
            | Write::Issuer(..)
            | Write::Membership(..)
            | Write::Lock(..)
            | Write::Statement(..)
            | Write::Older(..)
            | Write::Revocation(..)
            | Write::SignedConfirmation(..)
            | Write::Root(..)
            | Write::LockRemoval(..)
            | Write::Removed(..) => true,
            Write::Key(..)
            | Write::Noted(..)
            | Write::Group(..)
            | Write::RemoveGroup(..)
            | Write::Confirmation(..)
            | Write::Intent(..)
            | Write::IntentEntries(..)
            | Write::RemoveIntent(..)
            | Write::Leftover(..)
            | Write::RemoveLeftover(..) => false,
        })
    }

    fn write(&mut self, write: Write) -> &mut Self {
        self.writes.push(write);
        self
    }
}

impl Write {
    fn collect(self, view: &View<'_>, changes: &mut Changes) -> Result<(), RegistryError> {
        match self {
            Self::Family(id, family) => changes.put(Table::Families.of(id), &family),
            Self::Issuer(ca, issuer) => changes.put(Table::Issuers.of(ca), &issuer),
            Self::Key(id, key) => put_key(view, changes, id, &key),
            Self::Membership(key, family, membership) => {
                put_membership(changes, key, family, &membership)
            }
            Self::Lock(id, lock) => put_lock(view, changes, id, &lock),
            Self::Group(family, name, locks) => put_group(view, changes, family, name, locks),
            Self::RemoveGroup(family, name) => remove_group(view, changes, family, &name),
            Self::Statement(key, family, statement, entries) => {
                changes.put(Table::Statements.of_two(key, family), &statement)?;
                index_digest(changes, key, family, statement.version, &statement.cose)?;
                update_removed_rights(view, changes, key, family, statement.issued, &entries)?;
                put_entries(view, changes, Table::StatementEntries.of_two(key, family), entries)
            }
            Self::Confirmation(key, lock, confirmation) => {
                changes.put(Table::Confirmations.of_two(key, lock), &confirmation)
            }
            Self::Older(key, family, statements) => {
                remove_older(view, changes, key, family)?;
                statements.into_iter().try_for_each(|(statement, entries)| {
                    put_older_statements(view, changes, key, family, &statement, entries)
                })
            }
            Self::Noted(key, family, version, cose) => {
                index_digest(changes, key, family, version, &cose)
            }
            Self::Revocation(family, revocation) => {
                put_revocation(view, changes, family, revocation)
            }
            Self::SignedConfirmation(key, lock, word) => {
                changes.put(Table::SignedConfirmations.of_two(key, lock), &word)
            }
            Self::LockRemoval(family, removal) => put_lock_removal(view, changes, family, &removal),
            Self::Removed(family, lock, removed) => {
                set_lock_removed(view, changes, family, lock, removed)
            }
            Self::Root(family, ca, root) => changes.put(Table::Roots.of_two(family, ca), &root),
            Self::Intent(intent) => changes.put(Table::Intents.at(intent.number), &intent),
            Self::IntentEntries(number, entries) => {
                put_entries(view, changes, Table::IntentEntries.at(number), entries)
            }
            Self::RemoveIntent(number) => {
                changes.remove(Table::Intents.at(number));
                changes.remove_all(view, Table::IntentEntries.at(number))
            }
            Self::Leftover(guid, leftover) => {
                changes.put(Table::Leftovers.with(&[&guid]), &leftover)
            }
            Self::RemoveLeftover(guid) => {
                changes.remove(Table::Leftovers.with(&[&guid]));
                Ok(())
            }
        }
    }
}
