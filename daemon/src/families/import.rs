//! ImportFamily: imports what another station of a family has signed. The caller has verified every object up to the
//! pinned root; which signers are effective is judged after the import.

mod outer;
mod statements;

use std::collections::{BTreeMap, BTreeSet};

use keywright_base::clock;
use keywright_proto::{Certificate, Crl, Id, PublicKey, Role, SignedObjects};

use super::{
    Asker, AuditEvent, Changes, FIRST_CONTAINER, Families, Label, new_label,
    soft_keys::MODEL as SOFT_KEY,
};
use crate::{
    error::Error,
    pending_signatures::void_locks,
    queries,
    registry::{
        Batch, RegistryError,
        records::{self, Lock, Membership},
    },
    serialization::new_issuer,
};

impl Families {
    /// Imports a family's signed objects in one commit, and confirmations in another one. Returns how many were new.
    ///
    /// # Errors
    /// The registry failed; what was committed before stands.
    fn import_together(
        &mut self,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<u32, Error> {
        let mut batch = Batch::new();
        let mut new = self.put_issuers(&mut batch, family, objects)?;
        new += self.put_revocations(&mut batch, family, objects)?;
        // Whatever else cannot be read or written keeps no revocation out.
        self.registry.commit(batch)?;
        let mut batch = Batch::new();
        let (access, keys) = self.put_keys(&mut batch, family, objects, label_of)?;
        new += access;
        new += self.put_locks(&mut batch, family, objects)?;
        new += self.put_statements(&mut batch, family, objects)?;
        new += self.put_removals(&mut batch, family, objects)?;
        if new > 0 {
            self.log(&mut batch, &AuditEvent::FamilyImported { family, new }, by);
        }
        self.registry.commit(batch)?;
        // Confirmations refer to statements by digest, so they come after the statements.
        let confirmed = self.keep_confirmations(family, objects, by, changes);
        // Even if the confirmations failed, the objects committed before are effective.
        changes.new_keys.extend(keys);
        self.settle_revocations(family, by, changes)?;
        new += confirmed?;
        new += self.keep_renewed(family, objects)?;
        Ok(u32::try_from(new).unwrap_or(u32::MAX))
    }

    /// CAs and their CRLs. Every CA certificate is kept. A CRL that lacks a known entry never displaces one that has it.
    fn put_issuers(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut mine = queries::authorities(&self.registry, family)?;
        let known: BTreeSet<Vec<u8>> = mine.certificates().map(|c| c.der().to_vec()).collect();
        let mut new = mine.merge_crls(objects);
        let cas = || objects.certificates().filter(|certificate| certificate.is_ca());
        for ca in cas().filter(|ca| !known.contains(ca.der())) {
            new += 1;
            batch.put_ca_certificate(family, ca.der().to_vec());
        }
        let keys: BTreeMap<Id, &Certificate> =
            cas().chain([objects.root()]).map(|ca| (ca.public_key().id(), ca)).collect();
        for (id, ca) in keys {
            let record = self.registry.issuer(id)?;
            let mut issuer = match record.clone() {
                // Which of its chains is shown is settled once everything is kept.
                Some(known) => known,
                None => {
                    let chain = objects.authorities().chain_of(ca.public_key(), |_| true);
                    new_issuer(family, &chain.unwrap_or_default())
                }
            };
            if let Some((crl, lacking)) = mine.crl(ca) {
                issuer.crl = crl.der().to_vec();
                let listed: BTreeSet<&[u8]> =
                    crl.revoked().iter().map(|entry| entry.serial.as_slice()).collect();
                issuer.to_revoke.retain(|serial| !listed.contains(serial.as_slice()));
                let waiting: BTreeSet<Vec<u8>> = issuer.to_revoke.iter().cloned().collect();
                issuer.to_revoke.extend(lacking.into_iter().filter(|s| !waiting.contains(s)));
            }
            if record.as_ref() != Some(&issuer) {
                batch.put_issuer(id, issuer);
            }
        }
        Ok(new)
    }

    /// Puts the access certificates that are new here, and their Keys where they are new too, under a generated name.
    /// Returns how many certificates are new, and the Keys that are new in the registry or the family.
    fn put_keys(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
    ) -> Result<(usize, Vec<Id>), Error> {
        let mut by_key = BTreeMap::<Id, Vec<&Certificate>>::new();
        for certificate in objects.certificates() {
            if certificate.role().is_some_and(|role| role != Role::Lock) {
                by_key.entry(certificate.public_key().id()).or_default().push(certificate);
            }
        }
        let (mut count, mut keys) = (0, Vec::new());
        for (id, certificates) in by_key {
            let known = self.registry.access_certificates(id, family);
            let known = RegistryError::skip_damaged(known, format_args!("Key {id}"))?;
            let Some(known) = known else { continue };
            let known: BTreeSet<_> = known.into_iter().collect();
            let new = certificates.iter().filter(|access| !known.contains(access.der()));
            let mut new: Vec<&Certificate> = new.copied().collect();
            count += new.len();
            if known.is_empty() {
                // The best one is chosen once everything is kept.
                let Some(access) = new.pop() else { continue };
                let Some(issuer) = issuer_of(access, objects) else { continue };
                let role = access.role().unwrap_or(Role::Sub);
                let certificate = access.der().to_vec();
                let membership =
                    Membership::new(role, certificate, issuer.spki_der(), FIRST_CONTAINER);
                batch.put_membership(id, family, membership);
                let record = self.registry.key(id);
                let record = RegistryError::skip_damaged(record, format_args!("Key {id}"))?;
                if record == Some(None) {
                    let label = label_of(access.public_key()).map_or_else(new_label, Ok)?;
                    let role = certificates.iter().filter_map(|c| c.role()).max();
                    let record =
                        new_key(access.public_key(), label, role.unwrap_or(Role::Sub), family);
                    batch.put_key(id, record);
                }
                keys.push(id);
            }
            for access in new {
                batch.put_access_certificate(id, family, access.der().to_vec());
            }
        }
        Ok((count, keys))
    }

    fn put_locks(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut new = BTreeSet::new();
        for certificate in objects.certificates().filter(|c| c.role() == Some(Role::Lock)) {
            let id = certificate.public_key().id();
            let known = self.registry.lock(id)?.is_some()
                || self.registry.removed_lock(family, id)?.is_some();
            if known || !new.insert(id) {
                continue;
            }
            let Some(issuer) = issuer_of(certificate, objects) else { continue };
            let lock = Lock {
                identity_key: certificate.public_key().spki_der().to_vec(),
                name: lock_name(id),
                family,
                certificate: certificate.der().to_vec(),
                issuer: issuer.id(),
                online: false,
                last_seen: clock::unix_seconds(),
            };
            batch.put_lock(id, lock);
        }
        if let Some(mut known) = self.registry.family(family)?
            && !new.is_empty()
        {
            known.locks += u32::try_from(new.len()).unwrap_or(u32::MAX);
            batch.put_family(family, known);
        }
        Ok(new.len())
    }

    /// Keeps certificates of Locks that replace those by CAs that are no longer standing. Returns how many.
    fn keep_renewed(&self, family: Id, objects: &SignedObjects) -> Result<usize, Error> {
        let void = void_locks(&self.registry, family, self.moment())?;
        let mut renewed = BTreeSet::new();
        let mut batch = Batch::new();
        for certificate in objects.certificates().filter(|c| c.role() == Some(Role::Lock)) {
            let lock = certificate.public_key().id();
            if !void.contains(&lock) || renewed.contains(&lock) {
                continue;
            }
            let issuer = self.standing_issuer(family, certificate, objects)?;
            let (Some(issuer), Some(known)) = (issuer, self.registry.lock(lock)?) else { continue };
            let certificate = certificate.der().to_vec();
            batch.put_lock(lock, Lock { certificate, issuer, ..known });
            renewed.insert(lock);
        }
        self.registry.commit(batch)?;
        Ok(renewed.len())
    }

    /// The CA that issued a certificate, if it is standing and has not revoked the certificate.
    fn standing_issuer(
        &self,
        family: Id,
        certificate: &Certificate,
        objects: &SignedObjects,
    ) -> Result<Option<Id>, Error> {
        let Some(issuer) = issuer_of(certificate, objects).map(|issuer| issuer.id()) else {
            return Ok(None);
        };
        let known = self.registry.issuer(issuer)?;
        let crl = known.and_then(|known| Crl::parse(&known.crl).ok());
        let listed = crl.is_some_and(|crl| {
            crl.revoked().iter().any(|entry| entry.serial == certificate.serial())
        });
        Ok((!listed && self.stands(family, issuer)?).then_some(issuer))
    }
}

/// The issuing key that signed a certificate.
fn issuer_of(certificate: &Certificate, objects: &SignedObjects) -> Option<PublicKey> {
    let chain = objects.chain(certificate)?;
    Some(chain.get(1)?.public_key().clone())
}

/// The record of a Key that was made at another station.
fn new_key(access_key: &PublicKey, label: Label, role: Role, family: Id) -> records::Key {
    let kind = match role {
        Role::Master => "Master",
        Role::Backup => "Backup",
        Role::Soft => "Soft",
        Role::Sub | Role::Lock => "Sub",
    };
    records::Key {
        access_key: access_key.spki_der().to_vec(),
        label,
        name: format!("{kind} Key {}", short(access_key.id())),
        family,
        guid: None,
        serial: String::new(),
        model: if role == Role::Soft { SOFT_KEY.into() } else { String::new() },
        last_seen: 0,
        puk_tried: false,
    }
}

/// The generated name of a Lock that was added at another station.
pub(super) fn lock_name(id: Id) -> String {
    format!("Lock {}", short(id))
}

fn short(id: Id) -> String {
    id.to_string().chars().take(8).collect()
}
