//! The log of events as lines.

use crate::{error::Error, registry::Registry};

/// How many events are read at once: nobody who commits waits for whoever takes the lines.
const PAGE: usize = 1_000;

/// Gives the whole log away, oldest event first, in pieces of whole lines.
///
/// # Errors
/// `StaleRevision`: the oldest events were dropped meanwhile. What `write` answers; the registry cannot be read.
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
