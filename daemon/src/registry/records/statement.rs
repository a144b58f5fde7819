//! The record of a statement, and of the Locks that it lists.

use std::collections::HashMap;

use keywright_proto::{Effect, Id, Target};
use serde::{Deserialize, Serialize};

use super::UnixTime;

/// A statement on a Key in a family: which Locks admit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Its version; `None` for a revocation.
    pub version: Option<u64>,
    /// The COSE_Sign1, as it is given to Locks.
    pub cose: Vec<u8>,
    /// The seed from which the salts of its leaves are derived.
    pub salt_seed: [u8; 32],
    /// Whether it allows or denies the Key at every Lock of the family, now and later (leaf `*`); `None` if it has no such
    /// leaf.
    pub everywhere: Option<bool>,
    /// How many Locks it lists, as [`LockEntry`]s.
    pub listed: u32,
    /// How many of the listed Locks it allows. It denies the others.
    pub allowed: u32,
    /// When it was signed.
    pub issued: UnixTime,
    /// The leaves of its tree, which whoever made it was free to order: for each leaf three bytes, big-endian, the position of
    /// its entry; `*` is after the last entry. The highest bit is set on a leaf that says the opposite of the entry. Empty
    /// where the leaves are the entries in their order.
    pub order: Vec<u8>,
}

/// The bit of a leaf in [`Statement::order`] that says the opposite of its entry. A tree has at most 2^20 leaves.
const OTHER_EFFECT: u32 = 1 << 23;

/// One Lock that a statement lists. Entries are stored sorted by `lock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockEntry {
    /// The Lock's id.
    pub lock: Id,
    /// SHA-256 of the Lock's SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// Whether the statement allows the Key at this Lock, or denies it.
    pub allow: bool,
}

impl LockEntry {
    /// What its leaf in the statement's tree says.
    pub const fn leaf(&self) -> (Target, Effect) {
        (Target::Lock(self.key_hash), Effect::of(self.allow))
    }
}

impl Statement {
    /// A statement that has its leaves in the order of its entries, with `*` after them.
    pub fn new(
        version: Option<u64>,
        cose: Vec<u8>,
        salt_seed: [u8; 32],
        everywhere: Option<bool>,
        entries: &[LockEntry],
        issued: UnixTime,
    ) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let allowed = entries.iter().filter(|entry| entry.allow).count();
        let (listed, allowed) = (count(entries.len()), count(allowed));
        Self { version, cose, salt_seed, everywhere, listed, allowed, issued, order: Vec::new() }
    }

    /// Notes the order of the leaves in its tree. Each target is in `entries` or is `*`.
    pub fn set_order(&mut self, leaves: &[(Target, Effect)], entries: &[LockEntry]) {
        self.order.clear();
        let stored = self.leaves(entries);
        if leaves == stored {
            return;
        }
        let positions: HashMap<_, _> =
            stored.into_iter().zip(0_u32..).map(|((to, effect), n)| (to, (n, effect))).collect();
        for (target, effect) in leaves {
            let (position, stored) = positions.get(target).copied().unwrap_or((0, *effect));
            let other = if *effect == stored { 0 } else { OTHER_EFFECT };
            let [_, bytes @ ..] = (position | other).to_be_bytes();
            self.order.extend(bytes);
        }
    }

    /// The leaves of its tree, in their order. `entries` are the Locks that it lists.
    pub fn leaves(&self, entries: &[LockEntry]) -> Vec<(Target, Effect)> {
        let everywhere = self.everywhere.map(|allow| (Target::All, Effect::of(allow)));
        let leaves: Vec<_> = entries.iter().map(LockEntry::leaf).chain(everywhere).collect();
        if self.order.is_empty() {
            return leaves;
        }
        let (places, _) = self.order.as_chunks::<3>();
        let leaf = |[high, middle, low]: &[u8; 3]| {
            let place = u32::from_be_bytes([0, *high, *middle, *low]);
            let (target, effect) = *leaves.get((place & !OTHER_EFFECT) as usize)?;
            match place & OTHER_EFFECT {
                0 => Some((target, effect)),
                _ => Some((target, Effect::of(effect == Effect::Deny))),
            }
        };
        places.iter().filter_map(leaf).collect()
    }

    /// Whether it has a leaf `*` and leaves of single Locks, which have to be compared.
    pub const fn is_mixed(&self) -> bool {
        self.everywhere.is_some() && self.listed > 0
    }
}
