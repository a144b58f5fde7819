//! Removes stale pieces of this station's own file from the broker: those beyond the last piece, left by a longer file or
//! invented by the broker. A few are removed at once, and each of them once however often the broker sends it.

use std::collections::BTreeSet;

use keywright_proto::{Id, pieces::MAX_PIECES};

/// How many are taken away at once.
const WINDOW: usize = 8;

/// What lies behind, by family and number.
#[derive(Default)]
pub(super) struct StalePieces {
    waiting: BTreeSet<(Id, u32)>,
    /// The numbers of messages that take pieces away.
    in_flight: BTreeSet<u64>,
}

impl StalePieces {
    /// The broker has such a piece.
    pub(super) fn note(&mut self, family: Id, number: u32) {
        if number < MAX_PIECES {
            self.waiting.insert((family, number));
        }
    }

    /// The next one to be taken away, while there is room.
    pub(super) fn next(&mut self) -> Option<(Id, u32)> {
        if self.in_flight.len() < WINDOW { self.waiting.pop_first() } else { None }
    }

    /// Is on its way, by this message.
    pub(super) fn sent(&mut self, message: u64) {
        self.in_flight.insert(message);
    }

    /// The broker has that.
    pub(super) fn published(&mut self, message: u64) {
        self.in_flight.remove(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_never_takes_anything_gets_a_windowful() {
        let (mut behind, mut sent) = (StalePieces::default(), 0);
        let family = Id::from_bytes([1; 16]);
        for number in (0..10_000).chain(0..10_000) {
            behind.note(family, number);
            while behind.next().is_some() {
                behind.sent(sent);
                sent += 1;
            }
        }
        assert_eq!(sent, WINDOW as u64);
        assert_eq!(behind.waiting.len(), MAX_PIECES as usize);
        // It goes on as the broker does.
        behind.published(3);
        assert_eq!(
            (behind.next().is_some(), behind.waiting.len()),
            (true, MAX_PIECES as usize - 1)
        );
    }
}
