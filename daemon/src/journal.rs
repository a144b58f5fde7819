//! Writes the events of the audit log to the system's journal, in its native protocol (systemd, "Native Journal
//! Protocol"): one datagram an event, with fields that other programs can search for.

use std::{io, os::unix::net::UnixDatagram, path::Path};

use keywright_proto::audit::LoggedEvent;

/// The journal's socket.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// The `MESSAGE_ID` of every event of the log: `journalctl MESSAGE_ID=…` lists them.
pub const MESSAGE_ID: &str = "f40e5d29952647f19ce84f50344fd4a4";
/// The names of our fields begin with this.
const PREFIX: &str = "KEYWRIGHT_";
/// syslog's "notice": normal but significant.
const PRIORITY: &str = "5";

/// A connection to the journal.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// Connects to the journal at this path.
    ///
    /// # Errors
    /// No journal listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // Events are written by the thread that commits: a journal that hangs must not block it.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Writes an event.
    ///
    /// # Errors
    /// The journal is gone, or its queue is full.
    pub fn write(&self, event: &LoggedEvent) -> io::Result<()> {
        self.0.send(&entry(event)).map(drop)
    }
}

/// An event as one line for people.
pub fn text(event: &LoggedEvent) -> String {
    let fields = event.fields.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{}{}", event.event, fields.collect::<String>())
}

fn entry(event: &LoggedEvent) -> Vec<u8> {
    let mut entry = Vec::new();
    put(&mut entry, "MESSAGE", &text(event));
    put(&mut entry, "MESSAGE_ID", MESSAGE_ID);
    put(&mut entry, "PRIORITY", PRIORITY);
    put(&mut entry, "SYSLOG_IDENTIFIER", "keywrightd");
    put(&mut entry, &name("event"), &event.event);
    put(&mut entry, &name("position"), &event.position.to_string());
    put(&mut entry, &name("hash"), &hex::encode(event.hash()));
    for (field, value) in &event.fields {
        match field.as_str() {
            // One field for each Lock, so that each can be searched for.
            "lock" => value.split(' ').for_each(|lock| put(&mut entry, &name(field), lock)),
            _ => put(&mut entry, &name(field), value),
        }
    }
    entry
}

fn name(field: &str) -> String {
    format!("{PREFIX}{}", field.to_ascii_uppercase())
}

/// Appends a field. A value with line ends is written with its length in front.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fields: &[(&str, &str)]) -> LoggedEvent {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        LoggedEvent {
            position: 3,
            time: 1,
            event: "rights-confirmed".into(),
            fields: fields.collect(),
            previous: [0; 32],
        }
    }

    #[test]
    fn journal_gets_the_documented_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Journal::connect(&path).is_err());
        let there = UnixDatagram::bind(&path).unwrap();
        let event = event(&[("key", "a1"), ("lock", "b1 b2"), ("uid", "1000")]);
        Journal::connect(&path).unwrap().write(&event).unwrap();
        let mut datagram = [0; 4096];
        let length = there.recv(&mut datagram).unwrap();
        let hash = hex::encode(event.hash());
        assert_eq!(
            std::str::from_utf8(&datagram[..length]).unwrap(),
            format!(
                "MESSAGE=rights-confirmed key=a1 lock=b1 b2 uid=1000\n\
                 MESSAGE_ID=f40e5d29952647f19ce84f50344fd4a4\nPRIORITY=5\n\
                 SYSLOG_IDENTIFIER=keywrightd\nKEYWRIGHT_EVENT=rights-confirmed\n\
                 KEYWRIGHT_POSITION=3\nKEYWRIGHT_HASH={hash}\nKEYWRIGHT_KEY=a1\n\
                 KEYWRIGHT_LOCK=b1\nKEYWRIGHT_LOCK=b2\nKEYWRIGHT_UID=1000\n"
            )
        );
    }

    #[test]
    fn documentation_names_the_message_id() {
        for document in [
            include_str!("../../docs/formats.md"),
            include_str!("../../docs/security.md"),
            include_str!("../../docs/man/keywrightd.8"),
        ] {
            assert!(document.contains(MESSAGE_ID));
        }
    }

    /// A name that people choose must not add a field.
    #[test]
    fn line_end_in_a_value_adds_no_field() {
        let entry = entry(&event(&[("name", "a\nKEYWRIGHT_UID=0")]));
        let text = "KEYWRIGHT_NAME\n\x11\0\0\0\0\0\0\0a\nKEYWRIGHT_UID=0\n";
        assert!(entry.ends_with(text.as_bytes()), "{}", String::from_utf8_lossy(&entry));
    }

    #[test]
    fn full_journal_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _there = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let refused = (0..100_000).find_map(|_| journal.write(&event(&[])).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
