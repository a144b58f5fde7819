//! Lists that need more than one query of the registry.

use std::os::fd::OwnedFd;

use keywright_proto::{Id, bus::key_path};
use zbus::ObjectPath;

use super::{Context, arguments::LockScope, file_fd::OutputFile, object_path};
use crate::{
    error::Error,
    queries::{self, LockRow, Page, Rows},
    registry::Filter,
    view::DecisionView,
};

/// The rows of `Manager.Decisions`: issuer or `/`, the other Key, the reason.
pub fn decisions(
    decisions: &[DecisionView],
) -> Vec<(ObjectPath<'static>, ObjectPath<'static>, String)> {
    let path = |label: Option<&String>| object_path(label.map(|label| key_path(label)));
    let pairs = decisions.iter().map(|decision| {
        let reason = decision.reason.as_str().to_owned();
        (path(decision.issuer.as_ref()), path(Some(&decision.other)), reason)
    });
    pairs.collect()
}

/// Writes the audit log to a file or pipe.
pub async fn export_audit(context: &Context, out: OwnedFd) -> Result<(), Error> {
    let written = context.read(move |registry| {
        let mut output = OutputFile::open("out", out)?;
        queries::export_log(registry, |lines| output.write(lines))
    });
    written.await
}

/// A page of the Locks in `scope`. If the registry has none, those on cards of plugged-in Keys.
pub async fn locks(
    context: &Context,
    filter: Filter,
    scope: LockScope,
    page: Page,
) -> Result<Rows<LockRow>, Error> {
    let number = match scope {
        LockScope::All => {
            let wanted = filter.clone();
            let read = context.read(move |registry| queries::locks(registry, &wanted, page));
            let (rows, next) = read.await?;
            if rows.is_empty() && page.after.is_none() && filter.family.is_some() {
                return Ok((locks_on_cards(context, filter, None).await?, next));
            }
            return Ok((rows, next));
        }
        LockScope::Group(name) => {
            let in_group = context
                .read(move |registry| queries::locks_in_group(registry, &name, &filter, page));
            return in_group.await;
        }
        LockScope::Selected(number) => number,
    };
    let selected = context.station.ask(move |station, reply| {
        station.selected_locks(number, page.after, page.limit, reply);
    });
    let ids = selected.await?;
    let last = ids.last().filter(|_| ids.len() == page.limit as usize);
    let next = last.map(ToString::to_string).unwrap_or_default();
    let (wanted, selected) = (filter.clone(), ids.clone());
    let rows = context.read(move |registry| queries::locks_among(registry, &ids, &wanted));
    let rows = rows.await?;
    if rows.is_empty() && !selected.is_empty() {
        return Ok((locks_on_cards(context, filter, Some(selected)).await?, next));
    }
    Ok((rows, next))
}

/// The Locks on cards of plugged-in Keys whose family this station has not met.
async fn locks_on_cards(
    context: &Context,
    filter: Filter,
    only: Option<Vec<Id>>,
) -> Result<Vec<LockRow>, Error> {
    let locks_on_cards = context.station.ask(move |station, reply| {
        station.carried_locks(filter, only, reply);
    });
    locks_on_cards.await
}
