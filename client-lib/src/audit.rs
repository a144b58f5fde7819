//! Verifies an exported audit log, from its lines alone (`docs/formats.md`, "The log of events").

use std::collections::BTreeMap;

pub use keywright_proto::audit::Hash;
use keywright_proto::audit::{FIRST, LoggedEvent, NOTHING, TRIMMED};
use serde::{Deserialize, Serialize};

/// Summary of an audit log whose hash chain is intact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedLog {
    /// Number of events.
    pub events: u64,
    /// Position of the oldest event; above 0 if older ones were dropped.
    pub first: u64,
    /// Time of the oldest event, in Unix seconds; 0 if there is none.
    pub from: u64,
    /// Time of the newest event, in Unix seconds; 0 if there is none.
    pub to: u64,
    /// Hash of the newest event in hexadecimal digits, to be noted elsewhere; all zeros if there is none.
    pub head: String,
}

/// The first place where an audit log is not intact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The line is not an event in the one JSON form that stations write.
    #[error("line {line} is not an event of an audit log, in the JSON form that a station writes")]
    Line {
        /// Line number, from 1.
        line: usize,
    },
    /// The event does not have its stated hash.
    #[error("line {line}: the event at position {position} was changed: its hash does not match")]
    Changed {
        /// Line number, from 1.
        line: usize,
        /// Its position.
        position: u64,
    },
    /// Positions are not consecutive.
    #[error(
        "line {line} has position {found} instead of {expected}: events were removed, inserted or moved"
    )]
    Position {
        /// Line number, from 1.
        line: usize,
        /// The position that should follow.
        expected: u64,
        /// The position found.
        found: u64,
    },
    /// The event's `previous` is not the hash of the event before it.
    #[error("line {line}: the event at position {position} does not follow the one before it")]
    Chain {
        /// Line number, from 1.
        line: usize,
        /// Its position.
        position: u64,
    },
    /// The beginning is missing, and no event records that it was dropped.
    #[error("it begins at position {first}, and no event records that older ones were dropped")]
    Beginning {
        /// Position of the first event.
        first: u64,
    },
    /// The expected hash is missing.
    #[error(
        "the expected hash is not in the log: the newest events are missing, or it is another log"
    )]
    Expected,
}

/// A line of the log as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    position: u64,
    time: u64,
    event: String,
    fields: BTreeMap<String, String>,
    previous: String,
    hash: String,
}

/// Verifies the hash chain over all lines. `expected` is a hash noted earlier, which has to be in the chain: only
/// that detects a log that was cut at its end.
///
/// # Errors
/// The first place where the log is not intact.
pub fn verify<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    expected: Option<Hash>,
) -> Result<VerifiedLog, LogError> {
    let mut log = VerifiedLog { events: 0, first: 0, from: 0, to: 0, head: hex(&NOTHING) };
    let (mut newest, mut trimmed, mut found_expected): (Option<LoggedEvent>, u64, bool) =
        (None, 0, false);
    for (text, line) in lines.into_iter().zip(1..) {
        let event = read(text, line)?;
        let position = event.position;
        match &newest {
            None => {
                (log.first, log.from) = (position, event.time);
                if position == 0 && event.previous != NOTHING {
                    return Err(LogError::Chain { line, position });
                }
                // The dropped events are missing, but the hash of the last of them is here.
                found_expected |= position > 0 && expected == Some(event.previous);
            }
            Some(before) => {
                let next = before.position + 1;
                if position != next {
                    return Err(LogError::Position { line, expected: next, found: position });
                }
                if event.previous != before.hash() {
                    return Err(LogError::Chain { line, position });
                }
            }
        }
        if event.event == TRIMMED {
            let first = event.field(FIRST).and_then(|first| first.parse().ok());
            trimmed = first.ok_or(LogError::Line { line })?;
        }
        found_expected |= expected == Some(event.hash());
        newest = Some(event);
        log.events += 1;
    }
    if log.first > trimmed {
        return Err(LogError::Beginning { first: log.first });
    }
    if let Some(newest) = newest {
        (log.to, log.head) = (newest.time, hex(&newest.hash()));
    }
    if expected.is_some() && !found_expected { Err(LogError::Expected) } else { Ok(log) }
}

/// Parses a hash: 64 hexadecimal digits.
pub fn parse_hash(text: &str) -> Option<Hash> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(text: &str, line: usize) -> Result<LoggedEvent, LogError> {
    let bad = LogError::Line { line };
    let Ok(parsed) = serde_json::from_str::<Line>(text) else { return Err(bad) };
    let Line { position, time, event, fields, previous, hash } = parsed;
    let (Some(previous), Some(hash)) = (parse_hash(&previous), parse_hash(&hash)) else {
        return Err(bad);
    };
    let event =
        LoggedEvent { position, time, event, fields: fields.into_iter().collect(), previous };
    if event.hash() != hash {
        return Err(LogError::Changed { line, position });
    }
    // Duplicate members, another order or other escapes: another reader could see other values.
    if event.line() == text { Ok(event) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a log that begins at position `first`; if that is not 0, its last event records the trimming.
    fn log(first: u64, events: u64) -> Vec<String> {
        let mut previous = if first == 0 { NOTHING } else { [7; 32] };
        let mut lines = Vec::new();
        for position in first..first + events {
            let last = first > 0 && position == first + events - 1;
            let (event, fields) = if last {
                (TRIMMED, vec![("dropped".into(), "9".into()), (FIRST.into(), first.to_string())])
            } else {
                ("key-renamed", vec![("name".into(), format!("Ä \"{position}\""))])
            };
            let event = event.into();
            let event = LoggedEvent { position, time: 100 + position, event, fields, previous };
            previous = event.hash();
            lines.push(event.line());
        }
        lines
    }

    fn check(lines: &[String], expected: Option<Hash>) -> Result<VerifiedLog, LogError> {
        verify(lines.iter().map(String::as_str), expected)
    }

    fn hash_of(line: &str) -> Hash {
        read(line, 1).unwrap().hash()
    }

    #[test]
    fn intact_log_is_summarised() {
        let lines = log(0, 5);
        let head = hex(&hash_of(&lines[4]));
        let whole = VerifiedLog { events: 5, first: 0, from: 100, to: 104, head };
        assert_eq!(check(&lines, None), Ok(whole));
        let none = VerifiedLog { events: 0, first: 0, from: 0, to: 0, head: "0".repeat(64) };
        assert_eq!(check(&[], None), Ok(none));
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let lines = log(0, 3);
        for bit in 0..lines[1].len() * 8 {
            let mut bytes = lines[1].clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            let changed = [lines[0].clone(), flipped, lines[2].clone()];
            assert!(check(&changed, None).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn removed_duplicated_and_swapped_lines_are_detected() {
        let lines = log(0, 6);
        for at in 0..6 {
            let mut dropped = lines.clone();
            dropped.remove(at);
            // Only an expected hash detects that the newest event is missing.
            let found = check(&dropped, Some(hash_of(&lines[5])));
            assert!(found.is_err(), "{at} dropped");
            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            assert!(check(&twice, None).is_err(), "{at} twice");
            if at > 0 {
                let mut swapped = lines.clone();
                swapped.swap(at, at - 1);
                assert!(check(&swapped, None).is_err(), "{at} swapped");
            }
        }
    }

    /// Whoever rewrites a line has to rewrite all lines after it.
    #[test]
    fn rewritten_line_breaks_the_hash_chain() {
        let lines = log(0, 4);
        let mut forged = read(&lines[1], 1).unwrap();
        forged.fields[0].1 = "Eve".into();
        let mut with = lines.clone();
        with[1] = forged.line();
        assert_eq!(check(&with, None), Err(LogError::Chain { line: 3, position: 2 }));
        let mut first = read(&lines[0], 1).unwrap();
        first.previous = [1; 32];
        assert_eq!(check(&[first.line()], None), Err(LogError::Chain { line: 1, position: 0 }));
    }

    #[test]
    fn expected_hash_detects_a_truncated_log() {
        let lines = log(0, 5);
        for (noted, line) in lines.iter().enumerate() {
            for left in 0..=5 {
                let found = check(&lines[..left], Some(hash_of(line)));
                assert_eq!(found.is_ok(), left > noted, "{noted} noted, {left} left");
            }
        }
        assert_eq!(check(&lines, Some([9; 32])), Err(LogError::Expected));
    }

    #[test]
    fn trimmed_log_needs_its_trim_event() {
        let lines = log(40, 4);
        let found = check(&lines, None).unwrap();
        assert_eq!((found.first, found.events), (40, 4));
        // The first remaining event has the hash of the newest dropped one.
        assert!(check(&lines, Some([7; 32])).is_ok());
        assert_eq!(check(&lines[1..], None), Err(LogError::Beginning { first: 41 }));
        assert_eq!(check(&lines[..3], None), Err(LogError::Beginning { first: 40 }));
    }

    #[test]
    fn other_json_spellings_are_refused() {
        let line = &log(0, 1)[0];
        for (from, to) in [
            (",\"time\"", ", \"time\""),
            ("Ä", "\\u00c4"),
            ("\"fields\":{", "\"fields\":{\"name\":\"Eve\","),
            ("\"time\":100", "\"time\":1e2"),
            ("{\"position\":0,", "{\"position\":0,\"position\":0,"),
            ("}", "} "),
        ] {
            let other = line.replacen(from, to, 1);
            assert_ne!(&other, line, "{from}");
            assert_eq!(check(&[other], None), Err(LogError::Line { line: 1 }), "{to}");
        }
        let upper = line.replace("\"previous\":\"0", "\"previous\":\"G");
        assert_eq!(check(&[upper], None), Err(LogError::Line { line: 1 }));
    }

    #[test]
    fn hash_is_64_hex_digits() {
        assert_eq!(parse_hash(&"aB".repeat(32)), Some([0xab; 32]));
        for bad in ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"gg".repeat(32), &"é".repeat(32)]
        {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }
}
