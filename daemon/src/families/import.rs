//! ImportFamily: imports what another station of a family has signed. The caller has verified every object up to the
//! pinned root; which signers are effective is judged after the import.

mod statements;

use std::collections::BTreeSet;

use keywright_base::clock;
use keywright_proto::{Certificate, Crl, Id, PublicKey, Role, SignedObjects};

use super::{
    Asker, AuditEvent, Changes, FIRST_CONTAINER, Families, Label, new_label,
    soft_keys::MODEL as SOFT_KEY,
};
use crate::{
    error::Error,
    pending_signatures::Holder,
    queries,
    registry::{
        Batch,
        records::{self, Issuer, Lock, Membership},
    },
};

impl Families {
    /// Imports a family's signed objects. Returns how many were new. `label_of` finds the shown Key with an access key.
    ///
    /// # Errors
    /// The registry failed; what was committed before stands.
    pub fn import(
        &mut self,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<u32, Error> {
        let mut batch = Batch::new();
        let mut new = self.put_issuers(&mut batch, family, objects)?;
        let keys = self.put_keys(&mut batch, family, objects, label_of)?;
        new += keys.len();
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

    /// CAs and their CRLs. A CRL that lacks a known entry never displaces one that has it.
    fn put_issuers(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
    ) -> Result<usize, Error> {
        let mut mine = queries::authorities(&self.registry, family)?;
        let known: BTreeSet<Vec<u8>> = mine.certificates().map(|c| c.der().to_vec()).collect();
        let mut new = mine.merge_crls(objects);
        let cas = objects.certificates().filter(|certificate| certificate.is_ca());
        for ca in cas.chain([objects.root()]) {
            let id = ca.public_key().id();
            let is_new = ca != objects.root() && !known.contains(ca.der());
            new += usize::from(is_new);
            let record = self.registry.issuer(id)?;
            let chain = objects.chain(ca).unwrap_or_default();
            let chain: Vec<_> = chain.iter().map(|ca| ca.der().to_vec()).collect();
            let mut issuer = match record.clone() {
                // Of several certificates of one key, keep the one nearest to the root.
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

    /// Puts Keys that are new here, under a generated name.
    fn put_keys(
        &self,
        batch: &mut Batch,
        family: Id,
        objects: &SignedObjects,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
    ) -> Result<Vec<Id>, Error> {
        let mut new = Vec::new();
        for certificate in objects.certificates() {
            let Some(role) = certificate.role().filter(|role| *role != Role::Lock) else {
                continue;
            };
            let key = certificate.public_key();
            let id = key.id();
            if self.membership(id, family)?.is_some() || new.contains(&id) {
                continue;
            }
            let Some(issuer) = issuer_of(certificate, objects) else { continue };
            let membership = Membership {
                role,
                certificate: certificate.der().to_vec(),
                issuer: issuer.id(),
                container: FIRST_CONTAINER,
            };
            batch.put_membership(id, family, membership);
            if self.registry.key(id)?.is_none() {
                let label = label_of(key).map_or_else(new_label, Ok)?;
                let issuing_key = role.is_issuer().then(|| issuer.spki_der().to_vec());
                batch.put_key(id, new_key(key, label, role, family, issuing_key));
            }
            new.push(id);
        }
        Ok(new)
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

    /// Keeps certificates that replace those by CAs that are no longer standing. Returns how many.
    fn keep_renewed(&self, family: Id, objects: &SignedObjects) -> Result<usize, Error> {
        let pending = self.pending_signatures(family)?;
        let mut batch = Batch::new();
        let mut new = 0;
        for void in pending.certificates.iter().filter(|void| !void.is_ca) {
            for certificate in objects.certificates() {
                let id = certificate.public_key().id();
                let Some(issuer) = self.standing_issuer(family, certificate, objects)? else {
                    continue;
                };
                let is_lock = certificate.role() == Some(Role::Lock);
                let certificate = certificate.der().to_vec();
                match void.holder {
                    Holder::Lock(lock) if lock == id && is_lock => {
                        let Some(known) = self.registry.lock(lock)? else { continue };
                        batch.put_lock(lock, Lock { certificate, issuer, ..known });
                    }
                    Holder::Key(key) if key == id && !is_lock => {
                        let Some(own) = self.membership(key, family)? else { continue };
                        let renewed = Membership { certificate, issuer, ..own };
                        batch.put_membership(key, family, renewed);
                    }
                    _ => continue,
                }
                new += 1;
                break;
            }
        }
        self.registry.commit(batch)?;
        Ok(new)
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
fn new_key(
    access_key: &PublicKey,
    label: Label,
    role: Role,
    family: Id,
    issuing_key: Option<Vec<u8>>,
) -> records::Key {
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

/// The generated name of a Lock that was added at another station.
pub(super) fn lock_name(id: Id) -> String {
    format!("Lock {}", short(id))
}

fn short(id: Id) -> String {
    id.to_string().chars().take(8).collect()
}
