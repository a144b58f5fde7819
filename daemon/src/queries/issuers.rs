//! Lists the issuing keys of a family, so that none is believed unseen; and finds those whose Key nobody knows, which are
//! revoked by their own key.

use std::collections::BTreeMap;

use keywright_proto::{
    Certificate, Id, PublicKey, SignedObjects, Standing,
    pem::{self, from_pem},
};

use super::{Page, Rows, authorities, cursor, rights::at_lock};
use crate::{
    error::Error,
    registry::{Filter, Registry, RegistryError},
    trust::{Moment, facts},
};

/// Its id, the id and name of its Key, its depth, the ids of the issuing keys that certified it, its standing, since when it
/// is known here, and how it came here.
pub type IssuerRow = (String, String, String, i32, Vec<String>, String, u64, String);

/// Lists the issuing keys of a family, whether they are believed or revoked.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn issuers(
    registry: &Registry,
    family: Id,
    page: Page,
    moment: Moment,
) -> Result<Rows<IssuerRow>, Error> {
    let missing = || Error::NotFound(format!("family {family}"));
    let facts = facts(registry, family, &[])?.ok_or_else(missing)?;
    let (judgement, issuers) = (moment.judge(&facts), facts.issuers());
    let mut keys = BTreeMap::new();
    for (id, own) in registry.members(family)? {
        if let Some(issuing_key) = &own.issuing_key {
            let name = name_of(registry, id);
            keys.insert(Id::of_spki(issuing_key), (id, name));
        }
    }
    let limit = page.limit as usize;
    let mut wanted = registry.issuers_of(family)?.into_iter();
    let mut wanted = wanted.by_ref().filter(|(id, _)| page.after.is_none_or(|after| *id > after));
    let mut rows = Vec::new();
    let mut last = None;
    for (id, issuer) in wanted.by_ref().take(limit) {
        let own = issuer.chain.first().and_then(|der| Certificate::parse(der).ok());
        let own = own.map(|own| own.public_key().hash()).unwrap_or_default();
        let by = issuers.get(&own).into_iter().flat_map(|issuer| &issuer.certified_by);
        let certified_by: Vec<String> = by.map(|by| Id::of_hash(by).to_string()).collect();
        let (key, name) = match keys.get(&id) {
            Some((key, name)) => (key.to_string(), name.clone()),
            None => Default::default(),
        };
        let depth = judgement.depth(&own).map_or(-1, i32::from);
        let standing = standing_word(judgement.standing(&own)).to_owned();
        let found = registry.found_issuer(family, id)?;
        let since = found.map_or(0, |found| found.since);
        let origin = found.map_or("", |found| found.origin.as_str()).to_owned();
        rows.push((id.to_string(), key, name, depth, certified_by, standing, since, origin));
        last = Some(id);
    }
    let more = wanted.next().is_some();
    Ok((rows, cursor(last.filter(|_| more))))
}

/// The name of a Key. A damaged record hides no issuing key and keeps no revocation from a Lock.
fn name_of(registry: &Registry, key: Id) -> String {
    registry.key(key).ok().flatten().map(|key| key.name).unwrap_or_default()
}

const fn standing_word(standing: Option<Standing>) -> &'static str {
    match standing {
        Some(Standing::Stands) => "believed",
        Some(Standing::Deposed) => "deposed",
        Some(Standing::Revoked) => "revoked",
        Some(Standing::Orphaned) => "orphaned",
        None => "ignored",
    }
}

/// An issuing key of a family whose Key nobody knows here.
///
/// # Errors
/// `InvalidArgument`: it is that of a known Key. The registry cannot be read.
pub fn issuer_without_key(
    registry: &Registry,
    family: Id,
    id: Id,
) -> Result<Option<PublicKey>, Error> {
    let Some(issuer) = registry.issuer(id)?.filter(|issuer| issuer.family == family) else {
        return Ok(None);
    };
    let is_own = |spki: &Vec<u8>| Id::of_spki(spki) == id;
    let mut members = registry.members(family)?.into_iter();
    if let Some((key, _)) = members.find(|(_, own)| own.issuing_key.as_ref().is_some_and(is_own)) {
        let name = name_of(registry, key);
        return Err(Error::InvalidArgument(format!(
            "{id} is the issuing key of \"{name}\"; revoke that Key ({key})"
        )));
    }
    let own = issuer.chain.first().and_then(|der| Certificate::parse(der).ok());
    Ok(own.map(|own| own.public_key().clone()))
}

/// The revoked issuing keys of a family that are revoked by their own key.
///
/// # Errors
/// The registry cannot be read.
pub fn revoked_issuers(registry: &Registry, family: Id) -> Result<Vec<Id>, RegistryError> {
    let mut found = Vec::new();
    for revocation in registry.revocations(family)? {
        let is_issuer = registry.issuer(revocation.key)?.is_some();
        if is_issuer
            && !found.contains(&revocation.key)
            && registry.membership(revocation.key, family)?.is_none()
        {
            found.push(revocation.key);
        }
    }
    Ok(found)
}

/// Of one page of a family's Locks those that have not confirmed the revocation of an issuing key; and the `after` of the
/// next page.
///
/// # Errors
/// The registry cannot be read.
pub fn unaware_of_revoked_issuer(
    registry: &Registry,
    issuer: Id,
    page: Page,
) -> Result<(Vec<Id>, Option<Id>), RegistryError> {
    let Some(family) = registry.issuer(issuer)?.map(|issuer| issuer.family) else {
        return Ok((Vec::new(), None));
    };
    if !revoked_issuers(registry, family)?.contains(&issuer) {
        return Ok((Vec::new(), None));
    }
    let filter = Filter { family: Some(family), query: None };
    let locks = registry.locks_page(&filter, page.after, page.limit as usize)?;
    let mut unaware = Vec::new();
    for (lock, _) in locks.items {
        let confirmed = registry.confirmation(issuer, lock)?;
        if confirmed.is_none_or(|confirmed| confirmed.version.is_some()) {
            unaware.push(lock);
        }
    }
    Ok((unaware, locks.next))
}

/// The grant that revokes an issuing key whose Key nobody knows.
///
/// # Errors
/// `NotFound`: there is none. The registry cannot be read.
pub(super) fn issuer_revocation(
    registry: &Registry,
    issuer: Id,
    family: Id,
    lock: Id,
    moment: Moment,
) -> Result<keywright_proto::Grant, Error> {
    let statements = moment.statements(registry, issuer, family)?;
    let mut revocations = statements
        .sources
        .iter()
        .filter(|source| source.statement.version.is_none() && source.signer.is_some());
    // One by a signer that is believed, where there is one.
    let stands = |source: &&&crate::trust::Source| statements.is_by_standing_signer(source);
    let found = revocations.clone().find(|source| stands(&source)).or_else(|| revocations.next());
    let missing = || Error::NotFound(format!("Key {issuer}"));
    let statement = found.ok_or_else(missing)?.statement.clone();
    at_lock(statement, &[], lock)?.ok_or_else(missing)
}

/// Reads the CA certificates that a Lock believes, PEM. Returns those that are new here, verified up to the pinned root,
/// and how many did not verify; none if nothing is new.
///
/// # Errors
/// `InvalidArgument`: not PEM of CA certificates. The registry cannot be read.
pub fn believed_by_lock(
    registry: &Registry,
    family: Id,
    bytes: &[u8],
) -> Result<Option<(SignedObjects, usize)>, Error> {
    let text = std::str::from_utf8(bytes).ok();
    let ders = text.and_then(|text| from_pem(pem::Label::Certificate, text).ok());
    let malformed = || Error::InvalidArgument("a Lock's list of issuers is not PEM".into());
    let known = registry.ca_certificates(family)?;
    let mut new = Vec::new();
    let mut left_out = 0;
    for der in ders.ok_or_else(malformed)? {
        match Certificate::parse(&der) {
            Ok(ca) if ca.is_ca() => {
                if !known.contains(&der) {
                    new.push(ca);
                }
            }
            _ => left_out += 1,
        }
    }
    if new.is_empty() {
        return Ok(None);
    }
    let mut objects = authorities(registry, family)?;
    let before = objects.certificates().count();
    left_out += objects.add_certificates(new);
    let any = objects.certificates().count() > before;
    Ok(any.then_some((objects, left_out)))
}
