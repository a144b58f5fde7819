//! Publishes this station's own files: exports them when something changed, cuts them, and withdraws stale pieces.

use std::time::{Duration, Instant};

use keywright_proto::{
    link::Topic,
    pieces::{count, cut},
    tree::Hash,
};
use sha2::{Digest, Sha256};

use super::{
    StationExchange,
    part::{File, FileInFlight, Part},
};
use crate::error::Error;

/// The most pieces of each of the files that the broker has not acknowledged yet.
const WINDOW: usize = 8;
/// The shortest time between two exports of one kind. Confirmations that arrive in quick succession then cause one export.
const SPACE: Duration = Duration::from_secs(1);
/// An export verifies every object. Exports of one kind take at most 1/20 of the time.
const SHARE: u32 = 20;

impl StationExchange {
    /// How long to wait until the next export or retry, if one is pending.
    pub(super) fn due(&self) -> Option<Duration> {
        let is_due = |part| self.to_publish.iter().any(|(of, _)| *of == part);
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(|lane| self.up && lane.publishing.is_none() && is_due(lane.part));
        let waits = lanes.map(|lane| lane.next.saturating_duration_since(Instant::now()));
        waits.chain(self.retry.wait()).min()
    }

    /// Continues the current publications; exports and publishes the next file where there is none.
    pub(super) fn publish_next(&mut self) -> Result<(), Error> {
        self.go_on();
        Part::ALL.into_iter().try_for_each(|part| self.publish_next_of(part))
    }

    fn publish_next_of(&mut self, part: Part) -> Result<(), Error> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.part == part) else {
            return Ok(());
        };
        if !self.up || lane.publishing.is_some() || Instant::now() < lane.next {
            return Ok(());
        }
        let Some(file) = self.to_publish.iter().find(|(of, _)| *of == part).copied() else {
            return Ok(());
        };
        self.to_publish.remove(&file);
        let began = Instant::now();
        let exported = part.export(&self.registry, file.1);
        lane.next = Instant::now() + SPACE.max(began.elapsed() * SHARE);
        let bytes = exported.inspect_err(|_| {
            self.retry.note(|failed| failed.unpublished.extend([file]));
        })?;
        let bytes = bytes.unwrap_or_default();
        if part == Part::Whole {
            self.lengths.insert(file.1, bytes.len());
        }
        self.put_out(file, &bytes);
        self.go_on();
        Ok(())
    }

    /// Begins to publish a file, unless the broker needs nothing. An empty file has no pieces.
    fn put_out(&mut self, file: File, bytes: &[u8]) {
        let (part, family) = file;
        let digest: Option<Hash> = (!bytes.is_empty()).then(|| Sha256::digest(bytes).into());
        if self.published.get(&file) == digest.as_ref() && digest.is_some() {
            return;
        }
        let (pieces, held) = (count(bytes), self.held.get(&file).copied().unwrap_or_default());
        let has_unknown = held > 0 && !self.piece_counts.contains_key(&file);
        // If another station has published an identical file and no piece of ours may be stale, the broker needs
        // nothing.
        let is_there = |digest| self.received.contains(&(digest, true));
        if !has_unknown && digest.is_some_and(is_there) {
            return;
        }
        let station = self.own;
        let piece = |(message, number)| (part.topic(family, station, number), message);
        let gone = (pieces..held).map(|number| (part.topic(family, station, number), vec![]));
        let left = cut(bytes).zip(0..).map(piece).chain(gone).collect();
        self.held.insert(file, pieces);
        self.piece_counts.insert(file, pieces);
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.part == part) {
            lane.publishing = Some(FileInFlight { family, digest, left });
        }
    }

    /// Publishes as much as the windows allow. A file counts as published when the broker has acknowledged all pieces.
    fn go_on(&mut self) {
        while let Some((file, number)) = self.stale_pieces.next() {
            // The file may have become longer since, and the piece part of it.
            if self.piece_counts.get(&file).is_some_and(|count| number >= *count) {
                let topic = file.0.topic(file.1, self.own, number);
                let message = self.publish(topic, Vec::new());
                self.stale_pieces.sent(message);
            }
        }
        for lane in &mut self.lanes {
            while lane.in_flight.len() < WINDOW {
                let next = lane.publishing.as_mut().and_then(|file| file.left.pop_front());
                let Some((topic, message)) = next else { break };
                let number = self.next_number;
                self.next_number += 1;
                self.connection.publish(topic.name(), message, number);
                lane.in_flight.insert(number);
            }
            if lane.in_flight.is_empty()
                && let Some(FileInFlight { family, digest, .. }) = lane.publishing.take()
            {
                match digest {
                    Some(digest) => self.published.insert((lane.part, family), digest),
                    None => self.published.remove(&(lane.part, family)),
                };
            }
        }
    }

    pub(super) fn publish(&mut self, topic: Topic, message: Vec<u8>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.connection.publish(topic.name(), message, number);
        number
    }

    /// Handles a retained piece of this station's own file: one beyond the last piece is stale and gets removed.
    pub(super) fn own_piece(&mut self, file: File, number: u32, payload: &[u8]) {
        let (part, family) = file;
        if payload.is_empty() || number >= part.max_pieces() || !self.families.contains(&family) {
            return;
        }
        let held = self.held.entry(file).or_default();
        *held = (*held).max(number + 1);
        match self.piece_counts.get(&file) {
            Some(count) if number >= *count => {
                self.stale_pieces.note(file, number);
            }
            Some(_) => {}
            // The number of pieces is not known yet: the next export tells whether this one is stale.
            None if self.wanted.contains(&family) => {
                self.to_publish.insert(file);
            }
            None => {}
        }
    }
}
