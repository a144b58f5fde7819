//! Lists what is still to be signed in a family.

use std::collections::BTreeMap;

use keywright_proto::Id;

use super::{Page, Rows, cursor};
use crate::{
    error::Error,
    pending_signatures::{self, Holder},
    registry::Registry,
    trust::Moment,
};

/// What has to be signed, the id and the name of the Key or Lock that it is about, the certificate's serial number in hex,
/// and the Key that has to sign; empty: any Master or Backup of the family.
pub type PendingSignatureRow = (String, String, String, String, String);

/// What, the certificate's holder and serial number, and who signs.
type Row = (&'static str, Holder, Vec<u8>, String);

/// Lists the pending signatures of a family by the Key or Lock that they are about. A page may be longer than its limit,
/// because all rows about one Key or Lock are on the same page.
///
/// # Errors
/// `NotFound`: no such family. The registry cannot be read.
pub fn pending_signatures(
    registry: &Registry,
    family: Id,
    page: Page,
    moment: Moment,
) -> Result<Rows<PendingSignatureRow>, Error> {
    if registry.family(family)?.is_none() {
        return Err(Error::NotFound(format!("family {family}")));
    }
    let pending = pending_signatures::pending_signatures(registry, family, moment)?;
    let keys = registry.members(family)?;
    let signer = |ca: &Id| {
        let by = keys
            .iter()
            .find(|(_, own)| own.issuing_key.as_ref().is_some_and(|spki| Id::of_spki(spki) == *ca));
        by.map(|(key, _)| key.to_string()).unwrap_or_default()
    };
    let mut rows: BTreeMap<Id, Vec<Row>> = BTreeMap::new();
    for (ca, entries) in pending.entries {
        let signer = signer(&ca);
        for (serial, of) in entries {
            // A certificate without a holder is listed under its CA.
            let about = id_of(of).unwrap_or(ca);
            rows.entry(about).or_default().push(("crl-entry", of, serial, signer.clone()));
        }
    }
    for void in pending.certificates {
        let what = if void.is_ca { "ca-certificate" } else { "certificate" };
        let Some(about) = id_of(void.holder) else { continue };
        rows.entry(about).or_default().push((what, void.holder, void.serial, String::new()));
    }
    for key in pending.rights {
        let row = ("statement", Holder::Key(key), Vec::new(), String::new());
        rows.entry(key).or_default().push(row);
    }
    let mut found = Vec::new();
    let mut last = None;
    let mut wanted = rows.into_iter().filter(|(id, _)| page.after.is_none_or(|after| *id > after));
    for (about, rows) in wanted.by_ref() {
        for (what, of, serial, signer) in rows {
            let (id, name) = match of {
                Holder::Key(key) => (key.to_string(), registry.key(key)?.map(|key| key.name)),
                Holder::Lock(lock) => {
                    let known = match registry.lock(lock)? {
                        Some(known) => Some(known),
                        None => registry.removed_lock(family, lock)?,
                    };
                    (lock.to_string(), known.map(|lock| lock.name))
                }
                Holder::Nobody => (String::new(), None),
            };
            let name = name.unwrap_or_default();
            found.push((what.to_owned(), id, name, hex::encode(serial), signer));
        }
        last = Some(about);
        if found.len() >= page.limit as usize {
            break;
        }
    }
    let more = wanted.next().is_some();
    Ok((found, cursor(last.filter(|_| more))))
}

fn id_of(of: Holder) -> Option<Id> {
    match of {
        Holder::Key(id) | Holder::Lock(id) => Some(id),
        Holder::Nobody => None,
    }
}
