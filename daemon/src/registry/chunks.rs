//! Long lists of Locks, stored in chunks: a value of more than 16 KB would become a blob file, which sled never syncs.
//!
//! Items are sorted by their Lock. The key of a chunk ends with the id of its first Lock, so that the chunk of a Lock
//! is found by one look-up.

use keywright_proto::Id;
use serde::{Serialize, de::DeserializeOwned};
use sled::IVec;

use super::{
    changes::Changes,
    codec,
    error::RegistryError,
    records::{LockEntry, RemovedRight},
    view::View,
};

/// One item of a list that is stored in chunks.
pub(super) trait Item: Serialize + DeserializeOwned + Copy {
    /// How many items make a chunk of less than 7 KiB.
    const PER_CHUNK: usize;

    /// The Lock that the item is about.
    fn lock(&self) -> Id;
}

/// At most 49 bytes each.
impl Item for LockEntry {
    const PER_CHUNK: usize = 140;

    fn lock(&self) -> Id {
        self.lock
    }
}

/// At most 25 bytes each.
impl Item for RemovedRight {
    const PER_CHUNK: usize = 140;

    fn lock(&self) -> Id {
        self.lock
    }
}

/// 16 bytes each.
impl Item for Id {
    const PER_CHUNK: usize = 400;

    fn lock(&self) -> Id {
        *self
    }
}

/// Puts a list, which is sorted by Lock, under a prefix; it replaces the list that was there.
pub(super) fn put_list<T: Item>(
    view: &View<'_>,
    changes: &mut Changes,
    prefix: Vec<u8>,
    items: &[T],
) -> Result<(), RegistryError> {
    changes.remove_all(view, prefix.clone())?;
    for chunk in items.chunks(T::PER_CHUNK) {
        let first = chunk.first().map(|item| *item.lock().as_bytes()).unwrap_or_default();
        changes.put([&*prefix, &first].concat(), &chunk)?;
    }
    Ok(())
}

/// Reads the whole list under a prefix.
pub(super) fn read_list<T: Item>(
    view: &View<'_>,
    prefix: Vec<u8>,
) -> Result<Vec<T>, RegistryError> {
    let mut items = Vec::new();
    for record in view.all(prefix) {
        items.extend(codec::decode::<Vec<T>>(&record?.1)?);
    }
    Ok(items)
}

/// Reads the item about one Lock of the list under a prefix.
pub(super) fn find_item<T: Item>(
    view: &View<'_>,
    prefix: Vec<u8>,
    lock: Id,
) -> Result<Option<T>, RegistryError> {
    let Some((_, payload)) = chunk_of(view, prefix, lock)? else { return Ok(None) };
    let chunk: Vec<T> = codec::decode(&payload)?;
    let position = chunk.binary_search_by_key(&lock, Item::lock).ok();
    Ok(position.and_then(|position| chunk.get(position).copied()))
}

/// The only chunk that can hold an item about this Lock, as key and payload.
pub(super) fn chunk_of(
    view: &View<'_>,
    prefix: Vec<u8>,
    lock: Id,
) -> Result<Option<(IVec, IVec)>, RegistryError> {
    let after = [&*prefix, lock.as_bytes(), &[0]].concat();
    view.last(prefix, after)
}
