//! What is read from the registry for lists, bundles and grants. Blocks for a disk's time.

use keywright_proto::{
    Id,
    grant::Grant,
    pem::{self, to_pem},
    rights::{self, RightState, Said},
    tree::{Effect, Leaf, Target, Tree},
};

use crate::{
    error::Error,
    registry::{
        Filter, Registry, RegistryError,
        records::{Confirmation, LockEntry, Scope, Statement},
    },
};

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// What comes after this id; none: from the start.
    pub after: Option<Id>,
    /// At most so many.
    pub limit: u32,
}

/// Rows, and what to give as `after` for the next ones; empty after the last.
pub type Rows<T> = (Vec<T>, String);
/// id, name, role, family, last seen.
pub type KeyRow = (String, String, String, String, u64);
/// id, name, family, online, last seen.
pub type LockRow = (String, String, String, bool, u64);
/// Lock, its name, state, since when.
pub type RightRow = (String, String, String, u64);

/// Keys, present or not.
///
/// # Errors
/// The registry cannot be read.
pub fn keys(registry: &Registry, filter: &Filter, page: Page) -> Result<Rows<KeyRow>, Error> {
    let found = registry.keys_page(filter, page.after, page.limit as usize)?;
    let rows = found.items.into_iter().map(|(id, key)| {
        (id.to_string(), key.name, key.role.to_string(), key.family.to_string(), key.last_seen)
    });
    Ok((rows.collect(), cursor(found.next)))
}

/// Locks.
///
/// # Errors
/// The registry cannot be read.
pub fn locks(registry: &Registry, filter: &Filter, page: Page) -> Result<Rows<LockRow>, Error> {
    let found = registry.locks_page(filter, page.after, page.limit as usize)?;
    let rows = found.items.into_iter().map(|(id, lock)| {
        (id.to_string(), lock.name, lock.family.to_string(), lock.online, lock.last_seen)
    });
    Ok((rows.collect(), cursor(found.next)))
}

/// Those of the Locks with these ids that the filter is about.
///
/// # Errors
/// The registry cannot be read.
pub fn locks_among(
    registry: &Registry,
    ids: &[Id],
    filter: &Filter,
) -> Result<Vec<LockRow>, Error> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(lock) = registry.lock(*id)? else { continue };
        if filter.admits(lock.family, *id, &lock.name) {
            let family = lock.family.to_string();
            rows.push((id.to_string(), lock.name, family, lock.online, lock.last_seen));
        }
    }
    Ok(rows)
}

/// The rights of a Key. Pages may be shorter than asked for.
///
/// # Errors
/// `NotFound`: no such Key. The registry cannot be read.
pub fn rights(registry: &Registry, key: Id, page: Page) -> Result<Rows<RightRow>, Error> {
    known_key(registry, key)?;
    let limit = page.limit as usize;
    let (mut found, mut more) = (Vec::new(), false);
    for (family, _) in registry.memberships(key)? {
        let Some(statement) = registry.statement(key, family)? else { continue };
        let filter = Filter { family: Some(family), query: None };
        more |= match statement.scope {
            Scope::All => {
                let locks = registry.locks_page(&filter, page.after, limit)?;
                let said = said(&statement, statement.version.is_some());
                found.extend(
                    locks
                        .items
                        .into_iter()
                        .map(|(lock, summary)| (lock, summary.name, said, statement.issued)),
                );
                locks.next.is_some()
            }
            Scope::Listed(_) => {
                let entries = registry.statement_entries_page(key, family, page.after, limit)?;
                for (lock, entry) in entries.items {
                    let summary = registry.lock_summary(family, lock)?;
                    let name = summary.map(|summary| summary.name).unwrap_or_default();
                    found.push((lock, name, said(&statement, entry.allow), statement.issued));
                }
                entries.next.is_some()
            }
        };
    }
    found.sort_unstable_by_key(|(lock, ..)| *lock);
    more |= found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(lock, ..)| *lock);
    let mut rows = Vec::with_capacity(found.len());
    for (lock, name, said, issued) in found {
        let confirmation = registry.confirmation(key, lock)?;
        let since = match state(said, confirmation) {
            RightState::None => continue,
            RightState::Active => confirmation.map_or(issued, |confirmation| confirmation.time),
            RightState::Pending | RightState::Removing => issued,
        };
        rows.push((lock.to_string(), name, state(said, confirmation).to_string(), since));
    }
    Ok((rows, cursor(next)))
}

/// What a server needs to check the Keys of a family: its self-signed roots, and one CRL for each CA, PEM.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn family_bundle(registry: &Registry, family: Id) -> Result<(String, String), Error> {
    let missing = || Error::NotFound(format!("family {family}"));
    let root = registry.family(family)?.ok_or_else(missing)?.root;
    let issuers = registry.issuers_of(family)?;
    let crls = issuers.iter().map(|(_, issuer)| &issuer.crl).filter(|crl| !crl.is_empty());
    let roots = to_pem(pem::Label::Certificate, [root]).map_err(damaged)?;
    Ok((roots, to_pem(pem::Label::Crl, crls).map_err(damaged)?))
}

/// The newest statement on a Key with the proof for one Lock, as that Lock gets it.
///
/// # Errors
/// `NotFound`: no such Key or Lock, or nothing is said of the two. The registry cannot be read.
pub fn grant(registry: &Registry, key: Id, lock: Id) -> Result<Vec<u8>, Error> {
    known_key(registry, key)?;
    let missing = || Error::NotFound(format!("Lock {lock}"));
    let family = registry.lock(lock)?.ok_or_else(missing)?.family;
    let nothing = || Error::NotFound(format!("right of Key {key} at Lock {lock}"));
    let statement = registry.statement(key, family)?.ok_or_else(nothing)?;
    let grant = match statement.scope {
        Scope::All => whole_family(registry, key, family, statement)?,
        Scope::Listed(_) => {
            let entries = registry.statement_entries(key, family)?;
            let place = entries.binary_search_by_key(&lock, |entry| entry.lock);
            let mut grant = one_lock(statement, &entries, place.map_err(|_| nothing())?)?;
            if grant.leaf.effect == Effect::Allow {
                // TLS servers behind the Lock know a Key by its certificate.
                grant.access_chain = access_chain(registry, key, family)?;
            }
            grant
        }
    };
    Ok(grant.encode())
}

fn whole_family(
    registry: &Registry,
    key: Id,
    family: Id,
    statement: Statement,
) -> Result<Grant, Error> {
    let effect = effect(statement.version.is_some());
    // A Lock admits a Key everywhere only where it sees that it is a Master or Backup.
    let access_chain = match effect {
        Effect::Allow => access_chain(registry, key, family)?,
        Effect::Deny => Vec::new(),
    };
    let leaf = Leaf::new(&statement.salt_seed, Target::All, effect);
    Ok(Grant { statement: statement.cose, leaf, index: 0, path: Vec::new(), access_chain })
}

/// A Key's access certificate in a family, up to the root.
fn access_chain(registry: &Registry, key: Id, family: Id) -> Result<Vec<Vec<u8>>, Error> {
    let memberships = registry.memberships(key)?;
    let membership = memberships.into_iter().find(|(of, _)| *of == family);
    let (_, membership) = membership.ok_or_else(|| damaged("a membership is missing"))?;
    let issuer = registry.issuer(membership.issuer)?;
    let above = issuer.ok_or_else(|| damaged("an issuer is missing"))?.chain;
    Ok([vec![membership.certificate], above].concat())
}

fn one_lock(statement: Statement, entries: &[LockEntry], place: usize) -> Result<Grant, Error> {
    let leaf = |entry: &LockEntry| {
        Leaf::new(&statement.salt_seed, Target::Lock(entry.key_hash), effect(entry.allow))
    };
    let tree = Tree::new(entries.iter().map(leaf)).map_err(damaged)?;
    let index = place as u64;
    let entry = entries.get(place).ok_or_else(|| damaged("a Lock is missing"))?;
    let path = tree.path(index).ok_or_else(|| damaged("a Lock is missing"))?;
    let leaf = leaf(entry);
    Ok(Grant { statement: statement.cose, leaf, index, path, access_chain: Vec::new() })
}

fn known_key(registry: &Registry, key: Id) -> Result<(), Error> {
    match registry.key(key)? {
        Some(_) => Ok(()),
        None => Err(Error::NotFound(format!("Key {key}"))),
    }
}

fn said(statement: &Statement, allow: bool) -> Said {
    Said { version: statement.version, effect: effect(allow) }
}

fn state(said: Said, confirmation: Option<Confirmation>) -> RightState {
    let confirmed = confirmation
        .map(|confirmed| Said { version: confirmed.version, effect: effect(confirmed.allow) });
    rights::state(Some(said), confirmed)
}

fn effect(allow: bool) -> Effect {
    if allow { Effect::Allow } else { Effect::Deny }
}

fn cursor(next: Option<Id>) -> String {
    next.map(|id| id.to_string()).unwrap_or_default()
}

fn damaged(what: impl std::fmt::Display) -> Error {
    RegistryError::Damaged { what: what.to_string() }.into()
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
