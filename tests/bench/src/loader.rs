//! Fills a registry with Locks, which would take hours with a token.

use std::path::Path;

use keywright_proto::Id;
use keywrightd::registry::{Batch, Filter, Registry};
use sha2::{Digest, Sha256};

/// The bytes before the point in a P-256 SubjectPublicKeyInfo (RFC 5480).
const SPKI_HEAD: [u8; 27] = *b"\x30\x59\x30\x13\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01\x06\x08\x2A\x86\x48\xCE\x3D\x03\x01\x07\x03\x42\x00\x04";
/// Locks per commit.
const CHUNK: u32 = 2_000;

/// Adds Locks to the only family of the registry in `state_dir` until it has `total`. They are copies of its first Lock
/// with other keys and names. No daemon may run on that registry.
pub fn fill(state_dir: &Path, total: u32) {
    let dir = state_dir.join("registry");
    let registry = Registry::open(&dir).unwrap();
    let families = registry.families().unwrap();
    let [(id, family)] = &families[..] else { panic!("one family is expected") };
    let first = registry.locks_page(&Filter::default(), None, 1).unwrap().items;
    let (first, _) = first.first().expect("a Lock to copy");
    let first = registry.lock(*first).unwrap().expect("a Lock to copy");
    for start in (family.locks..total).step_by(CHUNK as usize) {
        let end = total.min(start + CHUNK);
        let mut batch = Batch::new();
        for number in start..end {
            let mut lock = first.clone();
            lock.identity_key = identity_key(number);
            lock.name = format!("Building {} Gate {number:06}", number % 1_000);
            batch.put_lock(Id::of_spki(&lock.identity_key), lock);
        }
        let mut family = family.clone();
        family.locks = end;
        batch.put_family(*id, family);
        registry.commit(batch).unwrap();
    }
    drop(registry);
    // sled writes its snapshot when the database is opened again.
    drop(Registry::open(&dir).unwrap());
}

/// Makes a different value in the form of a public key for each number. It is not a valid key.
fn identity_key(number: u32) -> Vec<u8> {
    let half = |name: &[u8]| Sha256::new().chain_update(name).chain_update(number.to_be_bytes());
    [&SPKI_HEAD[..], &half(b"x").finalize(), &half(b"y").finalize()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_keys_are_well_formed_and_distinct() {
        let (one, two) = (identity_key(1), identity_key(2));
        assert_eq!(one.len(), 91);
        assert_ne!(one, two);
    }
}
