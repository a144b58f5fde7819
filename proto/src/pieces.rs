//! Splits a family's file into pieces that fit into messages of the link, and puts them together again.
//!
//! A piece is the SHA-256 of the whole file, its own number and the count of pieces (32-bit, big-endian), and its bytes. All
//! pieces but the last have [`PIECE`] bytes. The digest only tells which pieces belong together; the objects in the file are
//! verified by their signatures.

use sha2::{Digest, Sha256};

use crate::{
    family::{MAX_FAMILY_FILE, MAX_REVOCATIONS_FILE},
    tree::Hash,
};

/// How many bytes of the file a piece has.
pub const PIECE: usize = 60 << 10;
/// The most pieces of a file.
pub const MAX_PIECES: u32 = MAX_FAMILY_FILE.div_ceil(PIECE) as u32;
/// The most pieces of a file of revocations.
pub const MAX_REVOCATION_PIECES: u32 = MAX_REVOCATIONS_FILE.div_ceil(PIECE) as u32;
/// How many incomplete files are collected at once, and how many of them from one sender: its last file, and the one that
/// replaces it meanwhile.
const MAX_SETS: usize = 64;
const SETS_OF_ONE: usize = 2;
const HEAD: usize = 40;

/// Why bytes are no piece, or pieces make no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// It was not made by [`cut`].
    #[error("not a piece of a family's file")]
    Malformed,
    /// All pieces are there, but the file does not have their digest.
    #[error("the pieces of a family's file do not make that file")]
    OtherFile,
}

/// One piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// SHA-256 of the file.
    pub digest: Hash,
    /// Which piece, from 0.
    pub number: u32,
    /// The number of pieces.
    pub count: u32,
    bytes: Vec<u8>,
}

impl Piece {
    /// Reads a piece.
    ///
    /// # Errors
    /// [`PieceError::Malformed`].
    pub fn read(message: &[u8]) -> Result<Self, PieceError> {
        Self::parse(message).ok_or(PieceError::Malformed)
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let (digest, rest) = message.split_first_chunk::<32>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (count, bytes) = rest.split_first_chunk::<4>()?;
        let (number, count) = (u32::from_be_bytes(*number), u32::from_be_bytes(*count));
        let is_last = number.checked_add(1)? == count;
        // All but the last are full, so the count limits the size of the file.
        let fits = if is_last { (1..=PIECE).contains(&bytes.len()) } else { bytes.len() == PIECE };
        let is_one = number < count && count <= MAX_PIECES && fits;
        is_one.then(|| Self { digest: *digest, number, count, bytes: bytes.to_vec() })
    }
}

/// Splits a file into pieces, as messages.
pub fn cut(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let digest = Sha256::digest(file);
    let count = count(file);
    file.chunks(PIECE).zip(0u32..).map(move |(bytes, number)| {
        let mut message = Vec::with_capacity(HEAD + bytes.len());
        message.extend_from_slice(&digest);
        message.extend_from_slice(&number.to_be_bytes());
        message.extend_from_slice(&count.to_be_bytes());
        message.extend_from_slice(bytes);
        message
    })
}

/// How many pieces a file has.
pub fn count(file: &[u8]) -> u32 {
    u32::try_from(file.len().div_ceil(PIECE)).unwrap_or(u32::MAX)
}

/// Collects pieces that arrive in any order, from several senders at once. It holds at most the longest file and one piece:
/// to make room, it drops the incomplete files that got no piece for longest.
#[derive(Debug)]
pub struct Collector<S> {
    /// The most pieces of a file.
    most: u32,
    /// Longest untouched first.
    sets: Vec<Set<S>>,
    dropped: usize,
}

#[derive(Debug)]
struct Set<S> {
    sender: S,
    digest: Hash,
    pieces: Vec<Option<Vec<u8>>>,
    bytes: usize,
}

impl<S: PartialEq> Collector<S> {
    /// Collects files of at most so many pieces.
    pub const fn new(most: u32) -> Self {
        Self { most, sets: Vec::new(), dropped: 0 }
    }

    /// Adds a piece; returns the file when it is complete.
    ///
    /// # Errors
    /// [`PieceError::Malformed`]: of a longer file than this collects. [`PieceError::OtherFile`]: all pieces of the file
    /// are dropped.
    pub fn add(&mut self, sender: S, piece: Piece) -> Result<Option<Vec<u8>>, PieceError> {
        let Piece { digest, number, count, bytes } = piece;
        if count > self.most {
            return Err(PieceError::Malformed);
        }
        let is_it = |set: &Set<S>| {
            set.sender == sender && set.digest == digest && set.pieces.len() == count as usize
        };
        let mut set = match self.sets.iter().position(is_it) {
            Some(place) => self.sets.remove(place),
            None => Set { sender, digest, pieces: vec![None; count as usize], bytes: 0 },
        };
        if let Some(place @ None) = set.pieces.get_mut(number as usize) {
            set.bytes += bytes.len();
            *place = Some(bytes);
        }
        if set.pieces.iter().all(Option::is_some) {
            let whole = set.pieces.into_iter().flatten().collect::<Vec<_>>().concat();
            let is_right = Sha256::digest(&whole)[..] == digest;
            return if is_right { Ok(Some(whole)) } else { Err(PieceError::OtherFile) };
        }
        self.make_room(&set);
        self.sets.push(set);
        Ok(None)
    }

    /// How many incomplete files were dropped to make room since the last call.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Drops all incomplete files.
    pub fn clear(&mut self) {
        self.sets.clear();
    }

    fn make_room(&mut self, new: &Set<S>) {
        while self.of(&new.sender) >= SETS_OF_ONE {
            let oldest = self.sets.iter().position(|set| set.sender == new.sender);
            oldest.map(|oldest| self.sets.remove(oldest));
            self.dropped += 1;
        }
        let room = (self.most as usize + 1) * PIECE;
        while self.sets.len() >= MAX_SETS || self.bytes() + new.bytes > room {
            if self.sets.is_empty() {
                return;
            }
            self.sets.remove(0);
            self.dropped += 1;
        }
    }

    fn of(&self, sender: &S) -> usize {
        self.sets.iter().filter(|set| set.sender == *sender).count()
    }

    fn bytes(&self) -> usize {
        self.sets.iter().map(|set| set.bytes).sum()
    }
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
