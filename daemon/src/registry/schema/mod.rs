//! The registry's format number, and the migrations from each format to the next. How to add a field to a record.
//!
//! A record has neither field names nor a version of its own (bincode), so one field more or less makes all stored
//! records of that kind unreadable. Each migration therefore has its own copies of the records that it reads and
//! writes, as they were in those two formats. It uses nothing of [`super::records`] or [`super::layout`], which
//! change.
//!
//! To add a field to a record, where `N` is the newest format:
//!
//! 1. Before any change, check that `tests/fixtures/registry-vN` exists. Otherwise make it with the ignored test
//!    `freeze`.
//! 2. Make `schema/vN.rs`, the migration from format `N` to `N + 1`. Copy into it the record as it is now and every
//!    record that it contains. Then copy them again with the new field. Neither copy is ever changed after a release.
//! 3. Write `migrate` there: read every record of that kind with the first copy, and put the second.
//! 4. Add it at the end of [`MIGRATIONS`].
//! 5. Add the field to the record in `records.rs`, and to `tests/samples.rs` with the value that `migrate` gives it.
//! 6. In `tests/formats.rs`: decode the records of the fixture `vN` with the frozen copies, change `freeze` to make
//!    `registry-v(N + 1)`, run it once, and add the test that reads it.
//!
//! A new table needs a number in `layout.rs`, and nothing else. A new variant at the end of an enum needs a new
//! format: the older program would take it for damage instead of refusing a newer format.

pub(super) mod v1;
pub(super) mod v2;
pub(super) mod v3;
pub(super) mod v4;

use super::{changes::Changes, error::RegistryError, layout::Table, store::Store, view::View};

/// Turns the records of one format into those of the next.
pub(super) type Migration = fn(&View<'_>, &mut Changes) -> Result<(), RegistryError>;

/// `MIGRATIONS[n]` leads from format `n + 1` to format `n + 2`.
pub(super) const MIGRATIONS: &[Migration] = &[v1::migrate, v2::migrate, v3::migrate, v4::migrate];

/// The newest format known with these migrations.
pub(super) const fn newest(migrations: &[Migration]) -> u32 {
    1 + migrations.len() as u32
}

/// Migrates an older format to the newest, each step durable before the next. Refuses a newer one.
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
