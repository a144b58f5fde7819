//! Splits large values into pieces: sled never syncs the blob files that it makes of large values.

use super::{codec, error::RegistryError, layout::Table};

/// The longest piece of a value, in bytes. sled makes blob files of values from 16 KB on.
const PIECE: usize = 7 * 1024;

/// First byte of a stored value that is in one piece.
pub(super) const WHOLE: u8 = 0;
/// First byte of a stored value that is split. Two bytes with the number of further pieces follow.
pub(super) const SPLIT: u8 = 1;

/// A key and a stored value.
pub(super) type Stored = (Vec<u8>, Vec<u8>);

/// The stored values of a payload: first the one under its own key, then those of further pieces.
pub(super) fn pieces(key: &[u8], payload: &[u8]) -> Result<Vec<Stored>, RegistryError> {
    let sealed = codec::seal(key, payload);
    if sealed.len() <= PIECE {
        return Ok(vec![(key.to_vec(), [&[WHOLE], &*sealed].concat())]);
    }
    let chunks: Vec<_> = sealed.chunks(PIECE).collect();
    let further = u16::try_from(chunks.len() - 1)
        .map_err(|_| RegistryError::Unstorable { what: "too many pieces".into() })?;
    let [high, low] = further.to_be_bytes();
    let values = chunks.into_iter().zip(0..).map(|(chunk, position)| match position {
        0 => (key.to_vec(), [&[SPLIT, high, low], chunk].concat()),
        _ => (piece_key(key, position), chunk.to_vec()),
    });
    Ok(values.collect())
}

/// How many further pieces a stored value has.
pub(super) fn further_pieces(stored: &[u8]) -> u16 {
    match stored {
        [SPLIT, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// The key of a further piece of the value under `key`.
pub(super) fn piece_key(key: &[u8], position: u16) -> Vec<u8> {
    Table::Pieces.with(&[key, &position.to_be_bytes()])
}
