//! Removes stale pieces of this station's own file from the broker: those beyond the last piece, left by a longer file or
//! invented by the broker. A few are removed at once, and each of them once however often the broker sends it.

use std::collections::BTreeSet;

use super::part::File;

/// The most removals that the broker has not acknowledged yet.
const WINDOW: usize = 8;

/// Stale pieces that are not removed yet, by file and number.
#[derive(Default)]
pub(super) struct StalePieces {
    waiting: BTreeSet<(File, u32)>,
    /// The numbers of the messages that remove pieces.
    in_flight: BTreeSet<u64>,
}

impl StalePieces {
    /// The broker holds this stale piece.
    pub(super) fn note(&mut self, file: File, number: u32) {
        if number < file.0.max_pieces() {
            self.waiting.insert((file, number));
        }
    }

    /// The next piece to remove, if the window allows one.
    pub(super) fn next(&mut self) -> Option<(File, u32)> {
        if self.in_flight.len() < WINDOW { self.waiting.pop_first() } else { None }
    }

    /// A removal was sent as this message.
    pub(super) fn sent(&mut self, message: u64) {
        self.in_flight.insert(message);
    }

    /// The broker has acknowledged this message.
    pub(super) fn published(&mut self, message: u64) {
        self.in_flight.remove(&message);
    }
}

#[cfg(test)]
mod tests {
    use keywright_proto::{Id, pieces::MAX_PIECES};

    use super::{super::part::Part, *};

    #[test]
    fn a_broker_that_never_takes_anything_gets_a_windowful() {
        let (mut behind, mut sent) = (StalePieces::default(), 0);
        let file = (Part::Whole, Id::from_bytes([1; 16]));
        for number in (0..10_000).chain(0..10_000) {
            behind.note(file, number);
            while behind.next().is_some() {
                behind.sent(sent);
                sent += 1;
            }
        }
        assert_eq!(sent, WINDOW as u64);
        assert_eq!(behind.waiting.len(), MAX_PIECES as usize);
        // An acknowledgement frees a place in the window.
        behind.published(3);
        assert_eq!(
            (behind.next().is_some(), behind.waiting.len()),
            (true, MAX_PIECES as usize - 1)
        );
    }
}
