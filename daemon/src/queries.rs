//! Reads lists, bundles and grants from the registry. Every function may wait for the disk, and fails if the registry cannot
//! be read.

mod grants;
mod groups;
mod issuers;
mod log;
mod pending_signatures;
mod rights;
mod signed_objects;

pub use grants::Grants;
pub use groups::{GroupRow, groups, locks_in_group};
pub use issuers::{
    IssuerRow, believed_by_lock, issuer_without_key, issuers, revoked_issuers,
    unaware_of_revoked_issuer,
};
pub use log::export_log;
pub use pending_signatures::{PendingSignatureRow, pending_signatures};
pub use rights::{
    CompletedRightRow, completed_rights, count_rights, grant, needs_delayed_revocation, rights,
};
pub use signed_objects::{
    authorities, export, export_revocations, fitting, read_export, verified_export,
};

use keywright_proto::{
    Certificate, Id, Standing,
    pem::{self, to_pem},
};

use crate::{
    error::Error,
    registry::{Filter, Registry, RegistryError},
    trust::{Moment, facts},
};

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The page begins after this id; none: at the start.
    pub after: Option<Id>,
    /// At most this many rows.
    pub limit: u32,
}

/// Rows, and the `after` of the next page; empty on the last page.
pub type Rows<T> = (Vec<T>, String);
/// Id, name, role, family, last seen.
pub type KeyRow = (String, String, String, String, u64);
/// Id, name, family, online, last seen.
pub type LockRow = (String, String, String, bool, u64);
/// Lock, its name, state, since when.
pub type RightRow = (String, String, String, u64);

/// Lists Keys, plugged in or not.
///
/// # Errors
/// The registry cannot be read.
pub fn keys(registry: &Registry, filter: &Filter, page: Page) -> Result<Rows<KeyRow>, Error> {
    let found = registry.keys_page(filter, page.after, page.limit as usize)?;
    let mut rows = Vec::with_capacity(found.items.len());
    for (id, key) in found.items {
        let role = registry.membership(id, key.family)?.map(|own| own.role.to_string());
        let role = role.unwrap_or_default();
        rows.push((id.to_string(), key.name, role, key.family.to_string(), key.last_seen));
    }
    Ok((rows, cursor(found.next)))
}

/// A Lock's certificate with its chain in PEM, as `AddLock` returns it; none if the Lock or its issuer is not known.
///
/// # Errors
/// The registry cannot be read.
pub fn lock_chain(registry: &Registry, lock: Id) -> Result<Option<String>, Error> {
    let Some(lock) = registry.lock(lock)? else { return Ok(None) };
    let Some(issuer) = registry.issuer(lock.issuer)? else { return Ok(None) };
    let chain = std::iter::once(lock.certificate).chain(issuer.chain);
    Ok(Some(to_pem(pem::Label::Certificate, chain).map_err(damaged)?))
}

/// Lists Locks.
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

/// Lists those of the Locks with these ids that pass the filter.
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

/// What a server needs to check the Keys of a family, in PEM: its self-signed roots, and one CRL for each CA. After the
/// Master was revoked, the roots that the remaining Backups signed for themselves replace it.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn family_bundle(
    registry: &Registry,
    family: Id,
    moment: Moment,
) -> Result<(String, String), Error> {
    let missing = || Error::NotFound(format!("family {family}"));
    let root = registry.family(family)?.ok_or_else(missing)?.root;
    let issuers = registry.issuers_of(family)?;
    let crls = issuers.iter().map(|(_, issuer)| &issuer.crl).filter(|crl| !crl.is_empty());
    let mut roots = vec![root];
    if !registry.revocations(family)?.is_empty()
        && let Some(facts) = facts(registry, family, &[])?
    {
        let judgement = moment.judge(&facts);
        let master = Certificate::parse(&roots[0]).map(|root| root.public_key().hash()).ok();
        let standing = master.and_then(|master| judgement.standing(&master));
        // While the Master is trusted it is the only root.
        if standing.is_some_and(|standing| standing != Standing::Stands) {
            roots.extend(registry.roots(family)?.into_iter().map(|(_, der)| der));
        }
        // A revoked Key is no root: neither the Master nor a Backup that had replaced it.
        roots.retain(|der| {
            let key = Certificate::parse(der).map(|root| root.public_key().hash()).ok();
            key.and_then(|key| judgement.standing(&key)).is_none_or(|s| s == Standing::Stands)
        });
    }
    let roots = to_pem(pem::Label::Certificate, roots).map_err(damaged)?;
    Ok((roots, to_pem(pem::Label::Crl, crls).map_err(damaged)?))
}

fn known_key(registry: &Registry, key: Id) -> Result<(), Error> {
    // The record of a member may be damaged: what is said of the Key counts all the same.
    if registry.memberships(key)?.is_empty() && registry.key(key)?.is_none() {
        return Err(Error::NotFound(format!("Key {key}")));
    }
    Ok(())
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
