//! The format's number, and the steps from one number to the next.
//!
//! A change of any record is a new number: a step that rewrites the old records, and a frozen fixture of
//! the new format under `tests/fixtures/`.

use super::{
    audit_log, changes::Changes, error::RegistryError, layout::Table, older_statements,
    removed_rights, store::Store, view::View,
};

/// Turns the records of one format into those of the next.
pub(super) type Migration = fn(&View<'_>, &mut Changes) -> Result<(), RegistryError>;

/// `MIGRATIONS[n]` leads from format `n + 1` to format `n + 2`.
pub(super) const MIGRATIONS: &[Migration] = &[
    // 2: statements are found by their digests.
    older_statements::index_digests,
    // 3: rights that were removed have a time, Locks can be removed.
    removed_rights::add_removed_rights,
    // 4: the log is chained over what is exported of it.
    audit_log::rechain,
];

/// The newest format known with these migrations.
pub(super) const fn newest(migrations: &[Migration]) -> u32 {
    1 + migrations.len() as u32
}

/// Refuses a newer format; takes an older one up to the newest, each step durable before the next.
pub(super) fn migrate(store: &Store, migrations: &[Migration]) -> Result<(), RegistryError> {
    let known = newest(migrations);
    let found = number(&store.view()?)?;
    if found > known {
        return Err(RegistryError::NewerSchema { dir: store.files().dir().into(), found, known });
    }
    store.load_head()?;
    for (step, from) in migrations.iter().zip(1_u32..).skip_while(|(_, from)| *from < found) {
        store.commit(|view, changes| {
            step(view, changes)?;
            changes.put_bytes(Table::Schema.key(), (from + 1).to_be_bytes().to_vec());
            Ok(())
        })?;
    }
    Ok(())
}

fn number(view: &View<'_>) -> Result<u32, RegistryError> {
    let payload = view
        .get(&Table::Schema.key())?
        .ok_or_else(|| RegistryError::damaged("the format's number is missing"))?;
    match (*payload).try_into().map(u32::from_be_bytes) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(RegistryError::damaged("the format's number is not one")),
    }
}
