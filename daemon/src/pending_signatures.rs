//! Finds the pending signatures of a family: CRL entries, certificates to re-issue because their CA was revoked, and
//! rights that only revoked issuers have signed.
//!
//! They are derived from the signed objects, so stations with the same objects find the same pending signatures.

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{Certificate, Crl, Id, Judgement, Standing};

use crate::{
    registry::{
        Registry, RegistryError,
        records::{Issuer, LockEntry},
    },
    trust::{self, Moment},
};

/// The holder of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The Key with this id.
    Key(Id),
    /// The Lock with this id.
    Lock(Id),
    /// Nobody: the job for which it was signed was cancelled.
    Nobody,
}

/// A certificate that another issuer has to re-issue, because its own issuer was revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VoidCertificate {
    /// The holder.
    pub holder: Holder,
    /// Whether it is the CA certificate of a Backup.
    pub is_ca: bool,
    /// Its serial number.
    pub serial: Vec<u8>,
}

/// The pending signatures of one family.
#[derive(Debug, Clone, Default)]
pub struct PendingSignatures {
    /// By CA: the serial numbers that its next CRL has to list, with the holders of the certificates.
    pub entries: BTreeMap<Id, BTreeMap<Vec<u8>, Holder>>,
    /// Certificates to re-issue. Any Master or Backup of the family can do so.
    pub certificates: BTreeSet<VoidCertificate>,
    /// Keys with rights that only revoked issuers have signed.
    pub rights: BTreeSet<Id>,
}

impl PendingSignatures {
    /// The serial numbers that a CA's next CRL has to list.
    pub fn serials(&self, ca: Id) -> Vec<Vec<u8>> {
        let entries = self.entries.get(&ca);
        entries.into_iter().flat_map(|entries| entries.keys().cloned()).collect()
    }

    fn entry(
        &mut self,
        issuers: &BTreeMap<Id, Authority>,
        certificate: &Certificate,
        holder: Holder,
    ) {
        let key = certificate.authority_key_identifier();
        let by = issuers.iter().find(|(_, ca)| ca.key_identifier == *key && ca.stands);
        if let Some((ca, known)) = by
            && !known.listed.contains(certificate.serial())
        {
            let entries = self.entries.entry(*ca).or_default();
            entries.insert(certificate.serial().to_vec(), holder);
        }
    }

    fn void(&mut self, certificate: &Certificate, holder: Holder) {
        let (is_ca, serial) = (certificate.is_ca(), certificate.serial().to_vec());
        self.certificates.insert(VoidCertificate { holder, is_ca, serial });
    }
}

/// A CA and its CRL.
struct Authority {
    certificate: Certificate,
    key_identifier: [u8; 20],
    standing: Option<Standing>,
    stands: bool,
    listed: BTreeSet<Vec<u8>>,
    waiting: Vec<Vec<u8>>,
}

impl Authority {
    fn new(issuer: &Issuer, judgement: Option<&Judgement>) -> Option<Self> {
        let certificate = Certificate::parse(issuer.chain.first()?).ok()?;
        let key = certificate.public_key();
        let standing = judgement.and_then(|judgement| judgement.standing(&key.hash()));
        Some(Self {
            key_identifier: key.key_identifier(),
            stands: trust::stands(judgement, &key.hash()),
            standing,
            listed: serials(&issuer.crl),
            waiting: issuer.to_revoke.clone(),
            certificate,
        })
    }
}

/// Replaces a CA's CRL by one that it has just signed. Serial numbers that the new CRL lacks, because they were revoked
/// while it was being signed, are kept for the next one.
pub fn replace_crl(issuer: &mut Issuer, crl: Vec<u8>) {
    let listed = serials(&crl);
    let before = serials(&issuer.crl);
    issuer.to_revoke.extend(before);
    issuer.to_revoke.retain(|serial| !listed.contains(serial));
    issuer.to_revoke.sort_unstable();
    issuer.to_revoke.dedup();
    issuer.crl = crl;
}

/// The serial numbers that a CRL lists. Empty if the CA has not signed a CRL yet.
fn serials(crl: &[u8]) -> BTreeSet<Vec<u8>> {
    let crl = Crl::parse(crl).ok();
    crl.iter().flat_map(|crl| crl.revoked()).map(|entry| entry.serial.clone()).collect()
}

/// Finds the pending signatures of a family.
///
/// # Errors
/// The registry cannot be read.
pub fn pending_signatures(
    registry: &Registry,
    family: Id,
    moment: Moment,
) -> Result<PendingSignatures, RegistryError> {
    let issuers = issuers(registry, family, moment)?;
    let mut pending = PendingSignatures::default();
    for (ca, known) in issuers.iter().filter(|(_, known)| known.stands) {
        let waiting = known.waiting.iter().filter(|serial| !known.listed.contains(*serial));
        for serial in waiting {
            pending.entries.entry(*ca).or_default().insert(serial.clone(), Holder::Nobody);
        }
    }
    of_keys(&mut pending, registry, family, moment, &issuers)?;
    for (lock, record) in registry.removed_locks(family)? {
        if let Ok(certificate) = Certificate::parse(&record.certificate) {
            pending.entry(&issuers, &certificate, Holder::Lock(lock));
        }
    }
    for (lock, certificate) in void_certificates(registry, family, &issuers)? {
        pending.void(&certificate, Holder::Lock(lock));
    }
    Ok(pending)
}

/// The Locks of a family whose certificate has to be re-issued.
///
/// # Errors
/// The registry cannot be read.
pub fn void_locks(
    registry: &Registry,
    family: Id,
    moment: Moment,
) -> Result<BTreeSet<Id>, RegistryError> {
    let void = void_certificates(registry, family, &issuers(registry, family, moment)?)?;
    Ok(void.into_iter().map(|(lock, _)| lock).collect())
}

/// The CAs of a family.
fn issuers(
    registry: &Registry,
    family: Id,
    moment: Moment,
) -> Result<BTreeMap<Id, Authority>, RegistryError> {
    let judgement = trust::facts(registry, family, &[])?.map(|facts| moment.judge(&facts));
    let issuers = registry.issuers_of(family)?.into_iter();
    let known =
        issuers.filter_map(|(ca, issuer)| Some((ca, Authority::new(&issuer, judgement.as_ref())?)));
    Ok(known.collect())
}

fn of_keys(
    pending: &mut PendingSignatures,
    registry: &Registry,
    family: Id,
    moment: Moment,
    issuers: &BTreeMap<Id, Authority>,
) -> Result<(), RegistryError> {
    let revocations = registry.revocations(family)?;
    let cas = registry.ca_certificates(family)?;
    let cas: Vec<_> = cas.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
    let removed = registry.removed_locks(family)?.into_iter().map(|(lock, _)| lock).collect();
    let named: BTreeSet<Id> = revocations.iter().map(|revocation| revocation.key).collect();
    let members = registry.members(family)?;
    let statements = moment.family_statements(registry, family, &members)?;
    for (key, own) in members {
        let access = Certificate::parse(&own.certificate).ok();
        let ca = own.issuing_key.as_ref().map(|spki| Id::of_spki(spki));
        let ca = ca.and_then(|ca| issuers.get(&ca));
        let holder = Holder::Key(key);
        if named.contains(&key) && statements.of(key)?.is_revoked() {
            // Certificates that a revoked CA signed for itself need no CRL entry: they fall with it.
            let access = registry.access_certificates(key, family)?;
            let access = access.iter().filter_map(|der| Certificate::parse(der).ok());
            access.for_each(|certificate| pending.entry(issuers, &certificate, holder));
            let is_own = |certificate: &&Certificate| {
                ca.is_some_and(|ca| ca.certificate.public_key() == certificate.public_key())
            };
            cas.iter().filter(is_own).for_each(|ca| pending.entry(issuers, ca, holder));
            continue;
        }
        if issuers.values().any(|ca| !ca.stands)
            && ca.is_none_or(|ca| ca.standing != Some(Standing::Deposed))
            && statements.of(key)?.lacks_signer(&removed)
        {
            pending.rights.insert(key);
        }
        if let Some(ca) = ca {
            if ca.standing == Some(Standing::Orphaned) {
                pending.void(&ca.certificate, holder);
            }
        } else if let Some(access) = access
            && issuers.get(&own.issuer).is_some_and(|ca| !ca.stands)
        {
            pending.void(&access, holder);
        }
    }
    Ok(())
}

/// The certificates of Locks that have to be re-issued: a revoked CA signed it, or a CRL lists it although the removal of
/// the Lock is void. None while every CA stands.
fn void_certificates(
    registry: &Registry,
    family: Id,
    issuers: &BTreeMap<Id, Authority>,
) -> Result<Vec<(Id, Certificate)>, RegistryError> {
    if issuers.values().all(|known| known.stands) {
        return Ok(Vec::new());
    }
    let removals = registry.lock_removals(family)?;
    let removed: BTreeSet<Id> = removals.into_iter().map(|removal| removal.lock).collect();
    let mut found = Vec::new();
    for LockEntry { lock, .. } in registry.lock_entries(family)? {
        let Some(record) = registry.lock(lock)? else { continue };
        if let Some(ca) = issuers.get(&record.issuer)
            && (!ca.stands || removed.contains(&lock))
            && let Ok(certificate) = Certificate::parse(&record.certificate)
            && (!ca.stands || ca.listed.contains(certificate.serial()))
        {
            found.push((lock, certificate));
        }
    }
    Ok(found)
}
