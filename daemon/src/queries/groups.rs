//! Lists groups of Locks, and the Locks of a group.

use std::collections::BTreeSet;

use super::{LockRow, Page, Rows, cursor, locks_among};
use crate::{
    error::Error,
    registry::{Filter, Registry},
};

/// Family, name, number of Locks.
pub type GroupRow = (String, String, u32);

/// How many groups are read at once.
const MANY: usize = 1_000;

/// Lists groups.
///
/// # Errors
/// The registry cannot be read.
pub fn groups(registry: &Registry, filter: &Filter, page: Page) -> Result<Rows<GroupRow>, Error> {
    let found = registry.groups_page(filter, page.after, page.limit as usize)?;
    let rows = found.items.into_iter().map(|(_, g)| (g.family.to_string(), g.name, g.locks));
    Ok((rows.collect(), cursor(found.next)))
}

/// Lists the Locks of a group that pass the filter. Groups of several families with the same name are listed together.
///
/// # Errors
/// `NotFound`: no such group. The registry cannot be read.
pub fn locks_in_group(
    registry: &Registry,
    name: &str,
    filter: &Filter,
    page: Page,
) -> Result<Rows<LockRow>, Error> {
    let called = Filter { family: filter.family, query: Some(name.to_owned()) };
    let mut locks = BTreeSet::new();
    let (mut after, mut found) = (None, false);
    loop {
        let groups = registry.groups_page(&called, after, MANY)?;
        for (_, group) in groups.items.into_iter().filter(|(_, group)| group.name == name) {
            found = true;
            locks.extend(registry.group_locks(group.family, name)?.unwrap_or_default());
        }
        after = groups.next;
        if after.is_none() {
            break;
        }
    }
    if !found {
        return Err(Error::NotFound(format!("group \"{name}\"")));
    }
    let mut rest = locks.into_iter().filter(|lock| page.after.is_none_or(|after| *lock > after));
    let ids: Vec<_> = rest.by_ref().take(page.limit as usize).collect();
    let next = rest.next().and(ids.last().copied());
    Ok((locks_among(registry, &ids, filter)?, cursor(next)))
}
