//! Lists the rights of a Key, and makes the grants that Locks get.

mod completed;
mod count;

use std::collections::BTreeMap;

use keywright_proto::{
    Confirmation as LockSaid, Id,
    grant::Grant,
    rights::{self, RightState, VersionedEffect},
    tree::{Effect, Leaf, Target, Tree},
};

use super::{Page, RightRow, Rows, cursor, damaged, issuers::issuer_revocation, known_key};
use crate::{
    error::Error,
    registry::{
        Filter, Registry, RegistryError,
        records::{Confirmation, LockEntry, Statement},
    },
    trust::{Moment, Source, Statements, confirmation::confirmed_effect},
};

pub use completed::{CompletedRightRow, completed_rights};
pub use count::count_rights;

/// A right of the Key whose rights are listed.
struct Found {
    lock: Id,
    family: Id,
    name: String,
    /// None: the right is void until another issuer signs it again.
    said: Option<VersionedEffect>,
    /// When it was signed.
    issued: u64,
}

/// Lists the rights of a Key. A page may be shorter than its limit and still not be the last.
///
/// # Errors
/// `NotFound`: no such Key. The registry cannot be read.
pub fn rights(
    registry: &Registry,
    key: Id,
    page: Page,
    moment: Moment,
) -> Result<Rows<RightRow>, Error> {
    known_key(registry, key)?;
    let limit = page.limit as usize;
    let (mut found, mut more) = (Vec::new(), false);
    let mut statements = BTreeMap::new();
    for (family, _) in registry.memberships(key)? {
        let further = match moment.competing_statements(registry, key, family)? {
            None => plain(registry, key, family, page, &mut found)?,
            Some(of_family) => {
                let further = compared(registry, family, &of_family, page, &mut found)?;
                statements.insert(family, of_family);
                further
            }
        };
        more |= further;
    }
    found.sort_unstable_by_key(|right| right.lock);
    more |= found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|right| right.lock);
    let mut rows = Vec::with_capacity(found.len());
    for right in found {
        let Found { lock, family, issued, .. } = right;
        let confirmed = confirmed_effect(registry, statements.get(&family), key, lock)?;
        let state = state(right.said, confirmed.map(|(said, _)| said));
        let confirmation = confirmed.map(|(_, confirmation)| confirmation);
        if state == RightState::None || registry.removed_lock(family, lock)?.is_some() {
            continue;
        }
        let since = match state {
            RightState::Active => confirmation.map_or(issued, |confirmation| confirmation.time),
            RightState::Removing => removing_since(registry, key, &right, confirmation)?,
            RightState::None | RightState::Pending => issued,
        };
        rows.push((lock.to_string(), right.name, state.to_string(), since));
    }
    Ok((rows, cursor(next)))
}

/// When the current unbroken run of denials for this right began. If the Lock has confirmed an earlier denial, the time of
/// the one that it has yet to confirm.
fn removing_since(
    registry: &Registry,
    key: Id,
    right: &Found,
    confirmation: Option<Confirmation>,
) -> Result<u64, RegistryError> {
    let removed = registry.right_removed_since(key, right.family, right.lock)?;
    let first = removed.map_or(right.issued, |removed| removed.min(right.issued));
    let done = confirmation.is_some_and(|confirmed| !confirmed.allow && confirmed.time >= first);
    Ok(if done { right.issued } else { first })
}

/// Finds rights where the newest statement alone decides. Returns whether there are more.
fn plain(
    registry: &Registry,
    key: Id,
    family: Id,
    page: Page,
    found: &mut Vec<Found>,
) -> Result<bool, Error> {
    let Some(statement) = registry.statement(key, family)? else { return Ok(false) };
    let (limit, filter) = (page.limit as usize, Filter { family: Some(family), query: None });
    let said =
        |allow| Some(VersionedEffect { version: statement.version, effect: Effect::of(allow) });
    Ok(match statement.everywhere {
        Some(allow) => {
            let locks = registry.locks_page(&filter, page.after, limit)?;
            let said = said(allow);
            found.extend(locks.items.into_iter().map(|(lock, summary)| {
                let (name, issued) = (summary.name, statement.issued);
                Found { lock, family, name, said, issued }
            }));
            locks.next.is_some()
        }
        None => {
            let entries = registry.statement_entries_page(key, family, page.after, limit)?;
            for (lock, entry) in entries.items {
                let name = name_of(registry, family, lock)?;
                let (said, issued) = (said(entry.allow), statement.issued);
                found.push(Found { lock, family, name, said, issued });
            }
            entries.next.is_some()
        }
    })
}

/// The effect at one Lock where the newest statement alone decides, and when it was signed.
fn plain_on(
    registry: &Registry,
    key: Id,
    family: Id,
    statement: &Statement,
    lock: Id,
) -> Result<Option<(VersionedEffect, u64)>, RegistryError> {
    let allow = match statement.everywhere {
        Some(allow) => Some(allow),
        None => registry.statement_entry(key, family, lock)?.map(|entry| entry.allow),
    };
    let said = |allow| VersionedEffect { version: statement.version, effect: Effect::of(allow) };
    Ok(allow.map(|allow| (said(allow), statement.issued)))
}

/// Finds rights where several statements have to be compared. Returns whether there are more.
fn compared(
    registry: &Registry,
    family: Id,
    statements: &Statements,
    page: Page,
    found: &mut Vec<Found>,
) -> Result<bool, Error> {
    let limit = page.limit as usize;
    let after = |lock: &Id| page.after.is_none_or(|after| *lock > after);
    let mut locks = statements.locks(registry, family)?;
    locks.retain(after);
    let more = locks.len() > limit;
    for lock in locks.into_iter().take(limit) {
        if let Some((said, issued)) = right_at(statements, lock) {
            let name = name_of(registry, family, lock)?;
            found.push(Found { lock, family, name, said, issued });
        }
    }
    Ok(more)
}

/// The effect in force at a Lock and when it was signed. The effect is none where it was an allow whose signer was revoked.
fn right_at(statements: &Statements, lock: Id) -> Option<(Option<VersionedEffect>, u64)> {
    match statements.in_effect_at(lock) {
        Some((effect, source)) => Some((Some(effect), source.statement.issued)),
        None => statements
            .void_at(lock)
            .filter(|(void, _)| void.effect == Effect::Allow)
            .map(|(_, source)| (None, source.statement.issued)),
    }
}

fn name_of(registry: &Registry, family: Id, lock: Id) -> Result<String, Error> {
    let summary = registry.lock_summary(family, lock)?;
    Ok(summary.map(|summary| summary.name).unwrap_or_default())
}

/// Makes the grant of a Key for a Lock: the statement in force there, with the proof for this Lock.
///
/// # Errors
/// `NotFound`: no such Key or Lock, or no statement about the two. The registry cannot be read.
pub fn grant(registry: &Registry, key: Id, lock: Id, moment: Moment) -> Result<Vec<u8>, Error> {
    let is_issuer = registry.issuer(key)?.is_some();
    if !is_issuer {
        known_key(registry, key)?;
    }
    let missing = || Error::NotFound(format!("Lock {lock}"));
    let family = registry.lock(lock)?.ok_or_else(missing)?.family;
    if is_issuer && registry.membership(key, family)?.is_none() {
        return Ok(issuer_revocation(registry, key, family, lock, moment)?.encode());
    }
    let nothing = || Error::NotFound(format!("right of Key {key} at Lock {lock}"));
    let (statement, entries) = match moment.competing_statements(registry, key, family)? {
        None => {
            let statement = registry.statement(key, family)?.ok_or_else(nothing)?;
            (statement, registry.statement_entries(key, family)?)
        }
        Some(statements) => {
            let waiting = delayed_revocation_at(registry, &statements, key, lock)?;
            let counts = || statements.in_effect_at(lock).map(|(_, source)| source);
            let source = waiting.or_else(counts).ok_or_else(nothing)?;
            (source.statement.clone(), source.entries.clone())
        }
    };
    let mut grant = at_lock(statement, &entries, lock)?.ok_or_else(nothing)?;
    if grant.leaf.effect == Effect::Allow {
        // TLS servers behind the Lock know a Key by its certificate. A right at every Lock is accepted only from a Key
        // whose chain proves that it is a Master or Backup.
        grant.access_chain = access_chain(registry, key, family)?;
    }
    Ok(grant.encode())
}

/// The delayed revocation that a Lock has to get before it acts. A Lock that was added meanwhile gets the Key's right first:
/// until the delay is over the Key must be able to open it.
fn delayed_revocation_at<'a>(
    registry: &Registry,
    statements: &'a Statements,
    key: Id,
    lock: Id,
) -> Result<Option<&'a Source>, RegistryError> {
    let Some(waiting) = statements.delayed_revocation() else { return Ok(None) };
    let confirmed = confirmed_effect(registry, Some(statements), key, lock)?.map(|(said, _)| said);
    let allowed =
        statements.in_effect_at(lock).is_some_and(|(said, _)| said.effect == Effect::Allow);
    Ok((!allowed || confirmed.is_some_and(|said| said.effect == Effect::Allow)).then_some(waiting))
}

/// Whether a Lock has yet to get a delayed revocation of a Key that it admits until then.
///
/// # Errors
/// The registry cannot be read.
pub fn needs_delayed_revocation(
    registry: &Registry,
    key: Id,
    lock: Id,
    moment: Moment,
) -> Result<bool, RegistryError> {
    // Only revocations of Masters and Backups are delayed: for all other Keys this is quick.
    let Some(known) = registry.lock(lock)? else { return Ok(false) };
    let own = registry.membership(key, known.family)?;
    if own.is_none_or(|own| own.issuing_key.is_none()) {
        return Ok(false);
    }
    let Some(statements) = moment.competing_statements(registry, key, known.family)? else {
        return Ok(false);
    };
    let waiting =
        delayed_revocation_at(registry, &statements, key, lock)?.and_then(|source| source.digest);
    let word = registry.signed_confirmation(key, lock)?;
    let about = word.and_then(|word| LockSaid::claimed(&word.cose).ok());
    Ok(waiting.is_some_and(|waiting| about.is_none_or(|about| about.statement != waiting)))
}

/// A Key's access certificate in a family, up to the root.
pub(super) fn access_chain(
    registry: &Registry,
    key: Id,
    family: Id,
) -> Result<Vec<Vec<u8>>, Error> {
    let membership = registry.membership(key, family)?;
    let membership = membership.ok_or_else(|| damaged("a membership is missing"))?;
    let issuer = registry.issuer(membership.issuer)?;
    let above = issuer.ok_or_else(|| damaged("an issuer is missing"))?.chain;
    Ok([vec![membership.certificate], above].concat())
}

/// The statement with the leaf that is about a Lock; none if no leaf is. Of two, the one that denies.
pub(super) fn at_lock(
    statement: Statement,
    entries: &[LockEntry],
    lock: Id,
) -> Result<Option<Grant>, Error> {
    let listed = entries.binary_search_by_key(&lock, |entry| entry.lock).ok();
    let listed = listed.and_then(|place| entries.get(place)).map(LockEntry::leaf);
    let everywhere = statement.everywhere.map(|allow| (Target::All, Effect::of(allow)));
    let about = listed.into_iter().chain(everywhere).min_by_key(|(_, effect)| *effect);
    let Some((target, effect)) = about else { return Ok(None) };
    let leaves = statement.leaves(entries);
    let index = leaves.iter().position(|leaf| *leaf == (target, effect));
    let tree = Tree::of_statement(&statement.salt_seed, leaves).map_err(damaged)?;
    let missing = || damaged("a leaf is missing");
    let index = index.ok_or_else(missing)? as u64;
    let path = tree.path(index).ok_or_else(missing)?;
    let leaf = Leaf::new(&statement.salt_seed, target, effect);
    Ok(Some(Grant { statement: statement.cose, leaf, index, path, access_chain: Vec::new() }))
}

fn state(said: Option<VersionedEffect>, confirmed: Option<VersionedEffect>) -> RightState {
    // A void right has to be signed again: no confirmation is about it.
    said.map_or(RightState::Pending, |said| rights::state(Some(said), confirmed))
}
