//! The Locks of a statement as leaves of an RFC 9162 Merkle tree: one signature for all of them,
//! and each Lock learns of itself only.

use ct_merkle::{InclusionProof, RootHash};
use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decoder, Encoder};
use sha2::{Digest, Sha256};

/// The most leaves in a tree. Also keeps the tree's index arithmetic far from overflow.
pub const MAX_LEAVES: u64 = 1 << 20;
/// The longest inclusion path, in hashes: log2 of [`MAX_LEAVES`].
pub const MAX_PATH: usize = 20;

/// SHA-256.
pub type Hash = [u8; 32];

/// Whether a Key may access a Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It may not.
    Deny,
    /// It may.
    Allow,
}

impl Effect {
    /// The effect of a flag that says whether the Key is allowed.
    pub const fn of(allow: bool) -> Self {
        if allow { Self::Allow } else { Self::Deny }
    }
}

/// Which Lock a leaf is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The Lock whose identity key (DER SubjectPublicKeyInfo) has this SHA-256.
    Lock(Hash),
    /// Every Lock of the family, present and future (`*`).
    All,
}

/// One leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Keeps whoever sees a path from testing which Locks its hashes stand for. See [`salt`].
    pub salt: [u8; 16],
    /// The Lock.
    pub target: Target,
    /// Whether the Key may access it.
    pub effect: Effect,
}

/// The size and the root of a tree, as statements carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// The number of leaves, from 1 to [`MAX_LEAVES`].
    pub size: u64,
    /// The Merkle Tree Hash (RFC 9162, 2.1.1).
    pub root: Hash,
}

/// A tree has from 1 to [`MAX_LEAVES`] leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a statement has from 1 to {MAX_LEAVES} leaves")]
pub struct BadSize;

/// The leaf is not in the tree at the claimed index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leaf is not in the statement's tree")]
pub struct NotIncluded;

/// The salt of a target's leaf: HMAC-SHA-256 over the target's CBOR, keyed with the statement's
/// random seed, truncated to 16 bytes. The seed stays at the station.
pub fn salt(seed: &[u8; 32], target: &Target) -> [u8; 16] {
    // RFC 2104 pads a key with zeros to the block's 64 bytes.
    let mut key = [0; 64];
    key[..32].copy_from_slice(seed);
    let mut mac = Hmac::<Sha256>::new(&key.into());
    let mut encoder = Encoder::new(Vec::new());
    encode_target(&mut encoder, target);
    mac.update(encoder.writer());
    let mut salt = [0; 16];
    salt.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    salt
}

fn encode_target(encoder: &mut Encoder<Vec<u8>>, target: &Target) {
    // Writing to a Vec cannot fail.
    let _ = match target {
        Target::Lock(hash) => encoder.bytes(hash).map(drop),
        Target::All => encoder.str("*").map(drop),
    };
}

impl Leaf {
    /// The leaf of a target in the statement with this seed.
    pub fn new(seed: &[u8; 32], target: Target, effect: Effect) -> Self {
        Self { salt: salt(seed, &target), target, effect }
    }

    /// Its deterministic CBOR (RFC 8949, 4.2.1): what is hashed into the tree.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(54));
        let _ = encoder.array(3).and_then(|e| e.bytes(&self.salt)).map(drop);
        encode_target(&mut encoder, &self.target);
        let _ = encoder.bool(self.effect == Effect::Allow).map(drop);
        encoder.into_writer()
    }

    /// Reads the one encoding that [`Leaf::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        decoder.array().ok().filter(|length| *length == Some(3))?;
        let salt = decoder.bytes().ok()?.try_into().ok()?;
        let target = match decoder.datatype().ok()? {
            minicbor::data::Type::Bytes => Target::Lock(decoder.bytes().ok()?.try_into().ok()?),
            _ => (decoder.str().ok()? == "*").then_some(Target::All)?,
        };
        let effect = Effect::of(decoder.bool().ok()?);
        let leaf = Self { salt, target, effect };
        (leaf.encode() == bytes).then_some(leaf)
    }

    fn hash(&self) -> Hash {
        Sha256::new_with_prefix([0]).chain_update(self.encode()).finalize().into()
    }
}

/// A whole tree: 64 bytes of memory a leaf.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The leaves' hashes, then each level up to the root alone.
    levels: Vec<Vec<Hash>>,
    head: TreeHead,
}

impl Tree {
    /// Builds the tree over leaves in this order, which the station may choose.
    ///
    /// # Errors
    /// [`BadSize`].
    pub fn new(leaves: impl IntoIterator<Item = Leaf>) -> Result<Self, BadSize> {
        let mut level: Vec<Hash> =
            leaves.into_iter().take(MAX_LEAVES as usize + 1).map(|leaf| leaf.hash()).collect();
        let size = level.len() as u64;
        if size > MAX_LEAVES {
            return Err(BadSize);
        }
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level.chunks(2).map(parent).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        let root = *level.first().ok_or(BadSize)?;
        Ok(Self { levels, head: TreeHead { size, root } })
    }

    /// Builds the tree of a statement with this seed: a leaf for each target, in this order.
    ///
    /// # Errors
    /// [`BadSize`].
    pub fn of_statement(
        seed: &[u8; 32],
        effects: impl IntoIterator<Item = (Target, Effect)>,
    ) -> Result<Self, BadSize> {
        Self::new(effects.into_iter().map(|(target, effect)| Leaf::new(seed, target, effect)))
    }

    /// Size and root, which are signed.
    pub const fn head(&self) -> TreeHead {
        self.head
    }

    /// The inclusion path of a leaf (RFC 9162, 2.1.3.1), from the leaf to the root; none where
    /// there is no such leaf.
    pub fn path(&self, index: u64) -> Option<Vec<Hash>> {
        if index >= self.head.size {
            return None;
        }
        let index = usize::try_from(index).ok()?;
        let siblings = self.levels.iter().enumerate();
        // The last node of an odd level has no sibling: it is its own parent.
        Some(siblings.filter_map(|(up, level)| level.get((index >> up) ^ 1).copied()).collect())
    }
}

fn parent(children: &[Hash]) -> Hash {
    match children {
        [left, right] => {
            Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
        }
        // chunks(2) answers one or two; a single last node moves up as it is.
        lone => lone.first().copied().unwrap_or_default(),
    }
}

impl TreeHead {
    /// Verifies that a leaf is in the tree at this index (RFC 9162, 2.1.3.2).
    ///
    /// # Errors
    /// [`NotIncluded`].
    pub fn verify(&self, leaf: &Leaf, index: u64, path: &[Hash]) -> Result<(), NotIncluded> {
        if self.size > MAX_LEAVES {
            return Err(NotIncluded);
        }
        let proof =
            InclusionProof::<Sha256>::try_from_bytes(path.concat()).map_err(|_| NotIncluded)?;
        RootHash::<Sha256>::new(self.root.into(), self.size)
            .verify_inclusion(&leaf.encode(), index, &proof)
            .map_err(|_| NotIncluded)
    }
}
