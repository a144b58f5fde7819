//! Imports statements, revocations, confirmations, removals of Locks, and roots of CAs.

use std::collections::BTreeMap;

use keywright_base::clock;
use keywright_proto::{
    Effect, Id, SignedObjects, Target, claimed_removal, family::SignedStatement,
};

use super::super::{
    Asker, Changes, Families,
    confirmations::{Confirmed, Confirming},
};
use crate::{
    error::Error,
    registry::{
        Batch, RegistryError, StatementWithEntries,
        records::{LockEntry, LockRemoval, Revocation, Statement},
    },
    trust::without_superseded,
};

impl Families {
    /// Puts revocations. Returns how many are new.
    pub(super) fn put_revocations(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut new = 0;
        for signed in objects.statements().filter(|signed| signed.statement.version.is_none()) {
            if self.registry.statement_by_digest(&signed.statement.digest)?.is_some() {
                continue;
            }
            let (key, cose) = (signed.statement.subject.id(), signed.cose.clone());
            let (salt_seed, first_seen) = (signed.seed, clock::unix_seconds());
            let reason = String::new();
            let revocation = Revocation { key, cose, salt_seed, first_seen, reason };
            batch.put_revocation(family, revocation);
            new += 1;
        }
        Ok(new)
    }

    /// Puts statements with a version. One that a newer one by the same signer supersedes is known by its digest only.
    /// Returns how many are new. Those on a Key of which a record is damaged are left out.
    pub(super) fn put_statements(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let (now, mut new) = (clock::unix_seconds(), 0);
        let mut by_key: BTreeMap<Id, Vec<&SignedStatement>> = BTreeMap::new();
        for signed in objects.statements().filter(|signed| signed.statement.version.is_some()) {
            if self.registry.statement_by_digest(&signed.statement.digest)?.is_none() {
                by_key.entry(signed.statement.subject.id()).or_default().push(signed);
            }
        }
        for (key, signed) in by_key {
            let received: Vec<_> =
                signed.into_iter().map(|signed| as_record(signed, now)).collect();
            let known = self.registry.all_statements(key, family);
            let known =
                RegistryError::skip_damaged(known, format_args!("what is said of Key {key}"))?;
            let Some(known) = known else { continue };
            // A Lock may have confirmed a superseded statement, and the next file contains it again.
            for (statement, _) in &received {
                batch.put_statement_digest(key, family, statement);
            }
            let mut all = without_superseded(known.iter().chain(&received).cloned().collect());
            let found = all.iter().filter(|found| !known.contains(found)).count();
            if found == 0 {
                continue;
            }
            new += found;
            let (statement, entries) = all.remove(0);
            batch.put_older_statements(key, family, all);
            batch.put_statement(key, family, statement, entries);
        }
        Ok(new)
    }

    /// Keeps confirmations of Locks. Returns how many are new.
    pub(super) fn keep_confirmations(
        &self,
        family: Id,
        objects: &SignedObjects,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<usize, Error> {
        let (mut batch, mut confirming, mut new) = (Batch::new(), Confirming::default(), 0);
        for (lock, confirmation, cose) in objects.confirmations() {
            let statement = self
                .registry
                .statement_by_digest(&confirmation.statement)?
                .filter(|s| s.family == family);
            let Some(statement) = statement else { continue };
            let (lock, cose) = (Id::of_hash(&lock), cose.to_vec());
            let confirmed =
                self.confirm(&mut batch, &mut confirming, lock, &statement, confirmation, cose)?;
            new += usize::from(confirmed == Confirmed::Right);
        }
        self.log_confirmed(&mut batch, confirming.take_confirmed(), by);
        if !batch.is_empty() {
            self.registry.commit(batch)?;
        }
        self.tell_confirmed(confirming, changes);
        Ok(new)
    }

    /// Puts removals of Locks, and the roots that CAs signed for themselves. Returns how many are new.
    pub(super) fn put_removals(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut new = 0;
        for (key_hash, signer, cose) in objects.removals() {
            let lock = Id::of_hash(&key_hash);
            let known = self.registry.removals_of_lock(family, lock)?;
            let by = |known: &LockRemoval| claimed_removal(&known.cose).map(|(_, signer)| signer);
            if known.iter().any(|known| by(known) == Some(signer)) {
                continue;
            }
            let (cose, first_seen) = (cose.to_vec(), clock::unix_seconds());
            batch.put_lock_removal(family, LockRemoval { lock, key_hash, cose, first_seen });
            new += 1;
        }
        let known = self.registry.roots(family)?;
        for root in objects.own_roots() {
            let ca = root.public_key().id();
            let mine = known.iter().find(|(of, _)| *of == ca).map(|(_, der)| der.as_slice());
            // If there are several, every station keeps the same one.
            if mine.is_none_or(|mine| root.der() < mine) {
                batch.put_root(family, ca, root.der().to_vec());
                new += usize::from(mine.is_none());
            }
        }
        Ok(new)
    }
}

/// The registry's record of a statement, whose leaves may be in any order. Of several leaves for one target those that
/// deny decide, as at a Lock that gets them all.
fn as_record(signed: &SignedStatement, received_at: u64) -> StatementWithEntries {
    let mut everywhere = None;
    let mut listed = BTreeMap::new();
    for (target, effect) in &signed.leaves {
        let allow = *effect == Effect::Allow;
        match target {
            Target::All => everywhere = everywhere.into_iter().chain([allow]).min(),
            Target::Lock(hash) => {
                let known = listed.entry((Id::of_hash(hash), *hash)).or_insert(allow);
                *known &= allow;
            }
        }
    }
    let listed = listed.into_iter();
    let entries: Vec<_> =
        listed.map(|((lock, key_hash), allow)| LockEntry { lock, key_hash, allow }).collect();
    let (version, cose) = (signed.statement.version, signed.cose.clone());
    let mut statement =
        Statement::new(version, cose, signed.seed, everywhere, &entries, received_at);
    statement.set_order(&signed.leaves, &entries);
    (statement, entries)
}
