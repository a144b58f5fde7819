//! An event of a station's log as a line of JSON, in exactly one spelling, with its hash, which is the SHA-256 of that line.
//! So the chain of hashes can be checked without this program (`docs/formats.md`).

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// The previous hash of the very first event.
pub const NOTHING: Hash = [0; 32];
/// The event written when the oldest events were dropped; its field [`FIRST`] is the position of the oldest one left.
pub const TRIMMED: &str = "log-trimmed";
/// See [`TRIMMED`].
pub const FIRST: &str = "first";
/// The event written when events of an older form got new hashes.
pub const REWRITTEN: &str = "log-rewritten";

/// An event and its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its place, from 0 up, without a gap.
    pub position: u64,
    /// When, in Unix seconds.
    pub time: u64,
    /// What happened, as a stable word.
    pub event: String,
    /// To what, and who asked for it: names and values, sorted by name, each name once.
    pub fields: Vec<(String, String)>,
    /// The hash of the event before it; of the first one [`NOTHING`].
    pub previous: Hash,
}

impl LoggedEvent {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Its hash: SHA-256 of the line up to its last member.
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.hashed()).into()
    }

    /// The line, without an end.
    pub fn line(&self) -> String {
        let hashed = self.hashed();
        let hash = hex::encode(Sha256::digest(&hashed));
        format!("{hashed},\"hash\":\"{hash}\"}}")
    }

    fn hashed(&self) -> String {
        let mut line =
            format!("{{\"position\":{},\"time\":{},\"event\":", self.position, self.time);
        put_text(&mut line, &self.event);
        line.push_str(",\"fields\":{");
        for (number, (name, value)) in self.fields.iter().enumerate() {
            if number > 0 {
                line.push(',');
            }
            put_text(&mut line, name);
            line.push(':');
            put_text(&mut line, value);
        }
        line.push_str("},\"previous\":\"");
        line.push_str(&hex::encode(self.previous));
        line.push('"');
        line
    }
}

/// A JSON string: only what has to be escaped is, and always in the same way.
fn put_text(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            control if control < ' ' => {
                // Writing to a String does not fail.
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            other => line.push(other),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> LoggedEvent {
        LoggedEvent {
            position: 7,
            time: 1_764_105_600,
            event: "key-renamed".into(),
            fields: vec![
                ("key".into(), "0123".into()),
                ("name".into(), "Ä \"b\" \\ \n\u{7f}".into()),
            ],
            previous: [0xab; 32],
        }
    }

    /// Written out, because other programs are written against it.
    #[test]
    fn line_has_exactly_this_spelling() {
        let previous = "ab".repeat(32);
        let hashed = format!(
            "{{\"position\":7,\"time\":1764105600,\"event\":\"key-renamed\",\"fields\":{{\"key\":\"0123\",\
             \"name\":\"Ä \\\"b\\\" \\\\ \\u000a\u{7f}\"}},\"previous\":\"{previous}\""
        );
        let hash = hex::encode(Sha256::digest(&hashed));
        assert_eq!(event().line(), format!("{hashed},\"hash\":\"{hash}\"}}"));
        assert_eq!(hex::encode(event().hash()), hash);
    }

    #[test]
    fn every_part_is_in_the_hash() {
        let changes: [fn(&mut LoggedEvent); 6] = [
            |event| event.position += 1,
            |event| event.time += 1,
            |event| event.event.push('x'),
            |event| event.fields[0].1.push('x'),
            |event| event.fields[0].0.push('x'),
            |event| event.previous[31] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = event();
            change(&mut changed);
            assert_ne!(changed.hash(), event().hash(), "{number}");
        }
    }

    #[test]
    fn line_is_valid_json() {
        let line: serde_json::Value = serde_json::from_str(&event().line()).unwrap();
        assert_eq!(line["fields"]["name"], event().fields[1].1);
        assert_eq!((&line["position"], &line["event"]), (&7.into(), &"key-renamed".into()));
    }
}
