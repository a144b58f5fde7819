//! ImportFamily: what another station of a family has signed, taken in. It was verified up to the
//! pinned root before it comes here; who of the signers is believed is judged afterwards.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{Certificate, Effect, Id, SignedObjects, Role, Target, family::SignedStatement, tree::Hash};

use super::{
    Reply, Station,
    confirmations::{Changed, Judged},
    keys::Key,
    log::Confirmed,
    plugs::new_label,
    soft_keys::MODEL as SOFT_KEY,
    view::Label,
};
use crate::{
    audit::AuditEvent,
    clock,
    error::Error,
    judging::kept,
    registry::{
        Batch, StatementWithEntries,
        records::{self, Issuer, Lock, LockEntry, Membership, Revocation, Scope, Statement},
    },
    token::Container,
};

impl Station {
    /// Takes in what was read from a file; answers how many objects were new.
    pub fn import_family(&mut self, family: Id, papers: SignedObjects, reply: Reply<u32>) {
        let result = self.take_in(family, &papers);
        reply.answer(self, result);
    }

    pub(super) fn take_in(&mut self, family: Id, papers: &SignedObjects) -> Result<u32, Error> {
        let mut batch = Batch::new();
        let mut new = 0;
        new += self.take_issuers(&mut batch, family, papers)?;
        let keys = self.take_keys(&mut batch, family, papers)?;
        new += keys.len();
        let locks = self.take_locks(&mut batch, family, papers)?;
        new += locks;
        new += self.take_statements(&mut batch, family, papers)?;
        new += self.take_removed(&mut batch, family, papers)?;
        if new > 0 {
            self.log(&mut batch, &AuditEvent::FamilyImported { family, new });
        }
        self.registry.commit(batch)?;
        // Confirmations are found by the digests of what has just been put.
        let confirmed = self.take_confirmations(family, papers);
        // Whatever became of them, what was put counts from now on.
        for key in keys {
            if let Some(record) = self.registry.key(key)? {
                self.show_taken(key, &record);
            }
        }
        self.settle_revocations(family)?;
        new += confirmed?;
        new += self.take_renewed(family, papers)?;
        Ok(u32::try_from(new).unwrap_or(u32::MAX))
    }

    /// Shows a Key that is new in a family. It may be shown already: it is plugged in, or a member of another family.
    fn show_taken(&mut self, id: Id, record: &records::Key) {
        if !self.keys.contains_key(&record.label) {
            return self.recall(id, record);
        }
        self.refresh(&record.label);
        if self.config.require_new_pin
            && let Some(key) = self.keys.get_mut(&record.label)
        {
            key.assume_pin();
        }
        if self.key(&record.label).is_ok_and(Key::is_present)
            && let Err(error) = self.remember_plug(id, &record.label)
        {
            tracing::warn!(%error, "when this Key was last seen cannot be noted");
        }
    }

    /// The label of the Key that shows this certificate's key, or one that nobody has.
    fn label_for(&self, certificate: &Certificate) -> Result<Label, Error> {
        let shown = |key: &Key| key.claims.access_key() == Some(certificate.public_key());
        let label = self.keys.iter().find(|(_, key)| shown(key)).map(|(label, _)| label.clone());
        label.map_or_else(new_label, Ok)
    }

    /// CAs and their CRLs. A CRL that lacks a known entry never displaces one that has it.
    fn take_issuers(&self, batch: &mut Batch, family: Id, papers: &SignedObjects) -> Result<usize, Error> {
        let mut mine = crate::queries::authorities(&self.registry, family)?;
        let known: BTreeSet<Vec<u8>> = mine.certificates().map(|c| c.der().to_vec()).collect();
        let mut new = mine.merge_crls(papers);
        let cas = papers.certificates().filter(|certificate| certificate.is_ca());
        for ca in cas.chain([papers.root()]) {
            let id = ca.public_key().id();
            let is_new = ca != papers.root() && !known.contains(ca.der());
            new += usize::from(is_new);
            let record = self.registry.issuer(id)?;
            let chain = papers.chain(ca).unwrap_or_default();
            let chain: Vec<_> = chain.iter().map(|ca| ca.der().to_vec()).collect();
            let mut issuer = match record.clone() {
                // Of several certificates of one key the nearest to the root is used.
                Some(known) if known.chain.len() <= chain.len() => known,
                Some(known) => Issuer { chain, ..known },
                None => Issuer { family, chain, crl: Vec::new(), to_revoke: Vec::new() },
            };
            if let Some((crl, lacking)) = mine.crl(ca) {
                issuer.crl = crl.der().to_vec();
                let listed: BTreeSet<&[u8]> =
                    crl.revoked().iter().map(|entry| entry.serial.as_slice()).collect();
                issuer.to_revoke.retain(|serial| !listed.contains(serial.as_slice()));
                for serial in lacking {
                    if !issuer.to_revoke.contains(&serial) {
                        issuer.to_revoke.push(serial);
                    }
                }
            }
            if record.as_ref() != Some(&issuer) {
                batch.put_issuer(id, issuer);
            }
        }
        Ok(new)
    }

    /// Keys that are new here, under a name that says no more than what they are.
    fn take_keys(&self, batch: &mut Batch, family: Id, papers: &SignedObjects) -> Result<Vec<Id>, Error> {
        let mut new = Vec::new();
        for certificate in papers.certificates() {
            let Some(role) = certificate.role().filter(|role| *role != Role::Lock) else {
                continue;
            };
            let id = certificate.public_key().id();
            let memberships = self.registry.memberships(id)?;
            if memberships.iter().any(|(of, _)| *of == family) || new.contains(&id) {
                continue;
            }
            let chain = papers.chain(certificate).unwrap_or_default();
            let Some(issuer) = chain.get(1) else { continue };
            let issuing_key = role.is_issuer().then(|| issuer.public_key().spki_der().to_vec());
            batch.put_membership(
                id,
                family,
                Membership {
                    role,
                    certificate: certificate.der().to_vec(),
                    issuer: issuer.public_key().id(),
                    container: Container::AccessCertificate.number(),
                },
            );
            if self.registry.key(id)?.is_none() {
                let label = self.label_for(certificate)?;
                batch.put_key(id, new_key(certificate, label, role, family, issuing_key));
            }
            new.push(id);
        }
        Ok(new)
    }

    fn take_locks(&self, batch: &mut Batch, family: Id, papers: &SignedObjects) -> Result<usize, Error> {
        let mut new = BTreeSet::new();
        for certificate in papers.certificates().filter(|c| c.role() == Some(Role::Lock)) {
            let id = certificate.public_key().id();
            let known = self.registry.lock(id)?.is_some()
                || self.registry.removed_lock(family, id)?.is_some();
            if known || !new.insert(id) {
                continue;
            }
            let chain = papers.chain(certificate).unwrap_or_default();
            let Some(issuer) = chain.get(1) else { continue };
            batch.put_lock(
                id,
                Lock {
                    identity_key: certificate.public_key().spki_der().to_vec(),
                    name: lock_name(id),
                    family,
                    certificate: certificate.der().to_vec(),
                    issuer: issuer.public_key().id(),
                    online: false,
                    last_seen: clock::unix_seconds(),
                },
            );
        }
        if let Some(mut known) = self.registry.family(family)?
            && !new.is_empty()
        {
            known.locks += u32::try_from(new.len()).unwrap_or(u32::MAX);
            batch.put_family(family, known);
        }
        Ok(new.len())
    }

    /// Statements and revocations. What newer ones by the same signer say anew is known, and not kept.
    fn take_statements(
        &self,
        batch: &mut Batch,
        family: Id,
        papers: &SignedObjects,
    ) -> Result<usize, Error> {
        let (now, mut new) = (clock::unix_seconds(), 0);
        let mut by_key: BTreeMap<Id, Vec<&SignedStatement>> = BTreeMap::new();
        for signed in papers.statements() {
            if self.registry.statement_by_digest(&signed.statement.digest)?.is_some() {
                continue;
            }
            let key = signed.statement.subject.id();
            if signed.statement.version.is_none() {
                new += 1;
                let (cose, salt_seed) = (signed.cose.clone(), signed.seed);
                let reason = String::new();
                let heard = Revocation { key, cose, salt_seed, first_seen: now, reason };
                batch.put_revocation(family, heard);
            } else {
                by_key.entry(key).or_default().push(signed);
            }
        }
        for (key, signed) in by_key {
            let heard = signed.into_iter().filter_map(|signed| as_record(signed, now));
            let (heard, mut known): (Vec<_>, Vec<_>) = (heard.collect(), Vec::new());
            if let Some(statement) = self.registry.statement(key, family)? {
                known.push((statement, self.registry.statement_entries(key, family)?));
            }
            known.extend(self.registry.older_statements(key, family)?);
            // A Lock may have confirmed what is left out, and the next file brings it again.
            for (statement, _) in &heard {
                batch.put_statement_digest(key, family, statement);
            }
            let mut all = kept(known.iter().chain(&heard).cloned().collect());
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

    fn take_confirmations(&mut self, family: Id, papers: &SignedObjects) -> Result<usize, Error> {
        let (mut batch, mut confirmed) = (Batch::new(), Confirmed::new());
        let (mut new, mut changed, mut judged) = (0, Changed::new(), Judged::new());
        for (lock, said, cose) in papers.confirmations() {
            let stated =
                self.registry.statement_by_digest(&said.statement)?.filter(|s| s.family == family);
            let Some(stated) = stated else { continue };
            let (lock, allow) = (id_of(&lock), said.effect == Effect::Allow);
            let words = self.judged(&mut judged, &stated)?;
            let stays = allow && self.is_admitted(words, stated.key, lock)?;
            if self.put_confirmed(&mut batch, words, lock, &stated, said, cose.to_vec())? {
                new += 1;
                if !stays {
                    changed.entry((stated.key, family)).or_default().push(lock);
                }
                confirmed.entry((stated.key, allow)).or_default().push(lock);
            }
        }
        self.log_confirmed(&mut batch, confirmed);
        self.registry.commit(batch)?;
        self.tell_confirmed(&changed);
        Ok(new)
    }
}

/// A Key that was made at another station.
fn new_key(
    certificate: &Certificate,
    label: Label,
    role: Role,
    family: Id,
    issuing_key: Option<Vec<u8>>,
) -> records::Key {
    let id = certificate.public_key().id();
    let kind = match role {
        Role::Master => "Master",
        Role::Backup => "Backup",
        Role::Soft => "Soft",
        Role::Sub | Role::Lock => "Sub",
    };
    records::Key {
        access_key: certificate.public_key().spki_der().to_vec(),
        label,
        name: format!("{kind} Key {}", short(id)),
        family,
        role,
        issuing_key,
        guid: None,
        serial: String::new(),
        model: if role == Role::Soft { SOFT_KEY.into() } else { String::new() },
        last_seen: 0,
        revoked: false,
        puk_tried: false,
    }
}

/// A statement as the registry has it; none where its tree is in another order than a station's, so
/// that no proof could be made from it.
fn as_record(signed: &SignedStatement, heard: u64) -> Option<StatementWithEntries> {
    let mut entries = Vec::new();
    let mut scope = Scope::All;
    if signed.leaves.iter().all(|(target, _)| *target != Target::All) {
        for (target, effect) in &signed.leaves {
            let Target::Lock(key_hash) = target else { continue };
            let (lock, allow) = (id_of(key_hash), *effect == Effect::Allow);
            entries.push(LockEntry { lock, key_hash: *key_hash, allow });
        }
        scope = Scope::Listed(u32::try_from(entries.len()).ok()?);
        if !entries.is_sorted() {
            return None;
        }
    } else if signed.leaves != [(Target::All, Effect::Allow)] {
        return None;
    }
    let allowed = entries.iter().filter(|entry| entry.allow).count();
    let statement = Statement {
        version: signed.statement.version,
        cose: signed.cose.clone(),
        salt_seed: signed.seed,
        scope,
        allowed: u32::try_from(allowed).ok()?,
        issued: heard,
    };
    Some((statement, entries))
}

pub(super) fn id_of(hash: &Hash) -> Id {
    Id::of_hash(hash)
}

/// What a Lock is called here that was added elsewhere.
pub(super) fn lock_name(id: Id) -> String {
    format!("Lock {}", short(id))
}

fn short(id: Id) -> String {
    id.to_string().chars().take(8).collect()
}
