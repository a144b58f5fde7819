//! Exports the audit log as lines.

use crate::{error::Error, registry::Registry};

/// How many events are read at once. Between two pages the registry is free, however slowly the reader takes the lines.
const PAGE: usize = 1_000;

/// Writes the whole log, oldest event first, in chunks of whole lines.
///
/// # Errors
/// `StaleRevision`: the oldest events were dropped meanwhile. Any error of `write`. The registry cannot be read.
pub fn export_log(
    registry: &Registry,
    mut write: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = None;
    loop {
        let page = registry.audit_page(next.unwrap_or(0), PAGE)?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(()) };
        if next.is_some_and(|next| next != first.position) {
            return Err(Error::Stale("the oldest events of the log".into()));
        }
        next = Some(last.position + 1);
        write(page.iter().map(|event| event.line() + "\n").collect::<String>().as_bytes())?;
        if page.len() < PAGE {
            return Ok(());
        }
    }
}
