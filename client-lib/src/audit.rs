//! Checks a log of events that `ExportAudit` wrote, wherever it comes from: a function of its lines (`docs/formats.md`, "The
//! log of events").

use std::collections::BTreeMap;

pub use keywright_proto::audit::Hash;
use keywright_proto::audit::{FIRST, LoggedEvent, NOTHING, TRIMMED};
use serde::{Deserialize, Serialize};

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// How many events it has.
    pub events: u64,
    /// The position of its oldest event: above 0 where older ones were dropped.
    pub first: u64,
    /// The time of its oldest event, in Unix seconds; 0 where it has none.
    pub from: u64,
    /// The time of its newest event, in Unix seconds; 0 where it has none.
    pub to: u64,
    /// The hash of its newest event, in hexadecimal digits: note it elsewhere. All zeros where it has none.
    pub head: String,
}

/// Where a log breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// Not a line of the format, in its one spelling.
    #[error("line {line} is no event of a log, or is spelled in another way than a station does")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Changed.
    #[error("line {line}: the event at position {position} was changed: it has another hash")]
    Changed {
        /// Counted from 1.
        line: usize,
        /// Its position.
        position: u64,
    },
    /// Left out, put in or moved.
    #[error(
        "line {line} has position {found} instead of {expected}: events were left out, put in or moved"
    )]
    Position {
        /// Counted from 1.
        line: usize,
        /// What should be there.
        expected: u64,
        /// What is.
        found: u64,
    },
    /// Of another chain.
    #[error("line {line}: the event at position {position} does not follow the one before it")]
    Chain {
        /// Counted from 1.
        line: usize,
        /// Its position.
        position: u64,
    },
    /// The beginning is gone and nothing says why.
    #[error("it begins at position {first}, and no event says that the older ones were dropped")]
    Beginning {
        /// The position of its first event.
        first: u64,
    },
    /// The end that somebody noted is not there.
    #[error(
        "the hash that was noted is not in it: the newest events are gone, or it is another log"
    )]
    Expected,
}

/// A line, as JSON has it.
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

/// Follows the chain through all lines. `expected` is a hash that was noted earlier: it has to be in it.
///
/// # Errors
/// The first place where it breaks.
pub fn verify<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    expected: Option<Hash>,
) -> Result<Log, Break> {
    let mut log = Log { events: 0, first: 0, from: 0, to: 0, head: hex(&NOTHING) };
    let (mut newest, mut trimmed, mut met): (Option<LoggedEvent>, u64, bool) = (None, 0, false);
    for (text, line) in lines.into_iter().zip(1..) {
        let event = read(text, line)?;
        let position = event.position;
        match &newest {
            None => {
                (log.first, log.from) = (position, event.time);
                if position == 0 && event.previous != NOTHING {
                    return Err(Break::Chain { line, position });
                }
                // What was dropped is not here, but its end is.
                met |= position > 0 && expected == Some(event.previous);
            }
            Some(before) => {
                let next = before.position + 1;
                if position != next {
                    return Err(Break::Position { line, expected: next, found: position });
                }
                if event.previous != before.hash() {
                    return Err(Break::Chain { line, position });
                }
            }
        }
        if event.event == TRIMMED {
            let first = event.field(FIRST).and_then(|first| first.parse().ok());
            trimmed = first.ok_or(Break::Line { line })?;
        }
        met |= expected == Some(event.hash());
        newest = Some(event);
        log.events += 1;
    }
    if log.first > trimmed {
        return Err(Break::Beginning { first: log.first });
    }
    if let Some(newest) = newest {
        (log.to, log.head) = (newest.time, hex(&newest.hash()));
    }
    if expected.is_some() && !met { Err(Break::Expected) } else { Ok(log) }
}

/// A hash as people note it: 64 hexadecimal digits.
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

fn read(text: &str, line: usize) -> Result<LoggedEvent, Break> {
    let bad = Break::Line { line };
    let Ok(parsed) = serde_json::from_str::<Line>(text) else { return Err(bad) };
    let Line { position, time, event, fields, previous, hash } = parsed;
    let (Some(previous), Some(hash)) = (parse_hash(&previous), parse_hash(&hash)) else {
        return Err(bad);
    };
    let event =
        LoggedEvent { position, time, event, fields: fields.into_iter().collect(), previous };
    if event.hash() != hash {
        return Err(Break::Changed { line, position });
    }
    // Members twice, other orders, other escapes: a reader could see something else in them.
    if event.line() == text { Ok(event) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log from a position on; the trimming is said in its last event where it has to be.
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

    fn check(lines: &[String], expected: Option<Hash>) -> Result<Log, Break> {
        verify(lines.iter().map(String::as_str), expected)
    }

    fn hash_of(line: &str) -> Hash {
        read(line, 1).unwrap().hash()
    }

    #[test]
    fn a_whole_log_is_described() {
        let lines = log(0, 5);
        let head = hex(&hash_of(&lines[4]));
        let whole = Log { events: 5, first: 0, from: 100, to: 104, head };
        assert_eq!(check(&lines, None), Ok(whole));
        let none = Log { events: 0, first: 0, from: 0, to: 0, head: "0".repeat(64) };
        assert_eq!(check(&[], None), Ok(none));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
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
    fn a_line_that_is_gone_twice_there_moved_or_put_in_is_noticed() {
        let lines = log(0, 6);
        for at in 0..6 {
            let mut dropped = lines.clone();
            dropped.remove(at);
            // The newest may be gone: only a noted hash tells.
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

    /// Whoever makes a line anew has to make all after it anew.
    #[test]
    fn a_line_that_is_made_anew_does_not_fit() {
        let lines = log(0, 4);
        let mut forged = read(&lines[1], 1).unwrap();
        forged.fields[0].1 = "Eve".into();
        let mut with = lines.clone();
        with[1] = forged.line();
        assert_eq!(check(&with, None), Err(Break::Chain { line: 3, position: 2 }));
        let mut first = read(&lines[0], 1).unwrap();
        first.previous = [1; 32];
        assert_eq!(check(&[first.line()], None), Err(Break::Chain { line: 1, position: 0 }));
    }

    #[test]
    fn a_noted_hash_tells_of_a_log_that_was_cut() {
        let lines = log(0, 5);
        for (noted, line) in lines.iter().enumerate() {
            for left in 0..=5 {
                let found = check(&lines[..left], Some(hash_of(line)));
                assert_eq!(found.is_ok(), left > noted, "{noted} noted, {left} left");
            }
        }
        assert_eq!(check(&lines, Some([9; 32])), Err(Break::Expected));
    }

    #[test]
    fn a_log_that_was_trimmed_says_so() {
        let lines = log(40, 4);
        let found = check(&lines, None).unwrap();
        assert_eq!((found.first, found.events), (40, 4));
        // The newest of what was dropped is named by the first that is left.
        assert!(check(&lines, Some([7; 32])).is_ok());
        assert_eq!(check(&lines[1..], None), Err(Break::Beginning { first: 41 }));
        assert_eq!(check(&lines[..3], None), Err(Break::Beginning { first: 40 }));
    }

    #[test]
    fn there_is_one_spelling() {
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
            assert_eq!(check(&[other], None), Err(Break::Line { line: 1 }), "{to}");
        }
        let upper = line.replace("\"previous\":\"0", "\"previous\":\"G");
        assert_eq!(check(&[upper], None), Err(Break::Line { line: 1 }));
    }

    #[test]
    fn hashes_are_64_digits() {
        assert_eq!(parse_hash(&"aB".repeat(32)), Some([0xab; 32]));
        for bad in ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"gg".repeat(32), &"é".repeat(32)]
        {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }
}
