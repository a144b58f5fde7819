//! The link between stations and Locks: topics and limits on an MQTT 5 broker. The broker is believed nothing.
//!
//! ```text
//! keywright/1/<name of the Lock>/grant/<Key id>          retained, by a station: one whole grant
//! keywright/1/<name of the Lock>/confirmation/<Key id>   retained, by the Lock: its last confirmation on that Key
//! keywright/1/<name of the Lock>/papers                  retained, by a Lock that knows no Key yet: its certificate,
//!                                                        as in a family's file, for stations that do not know it
//! keywright/1/<name of the Lock>/presence                retained, by the Lock and its last will: `online`, `offline`
//! ```
//! The name of a Lock is the common name of its certificate, so that a broker can hold a Lock to its own topics by one
//! pattern. What is retained is the last message of a topic: each is whole, and none builds on one before it.

use crate::{Id, grant::MAX_GRANT};

/// What every topic begins with.
pub const PREFIX: &str = "keywright/1";
/// The longest packet, in bytes: a grant, its topic, and what MQTT adds.
pub const MAX_PACKET: u32 = MAX_GRANT as u32 + 1024;
/// The birth message: a hint that a Lock is there.
pub const ONLINE: &[u8] = b"online";
/// The last will: a hint that it is not.
pub const OFFLINE: &[u8] = b"offline";
const LOCK: &str = "Keywright lock ";

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A grant of a Key, for a Lock.
    Grant {
        /// The Lock.
        lock: Id,
        /// The Key.
        key: Id,
    },
    /// A confirmation by a Lock.
    Confirmation {
        /// The Lock.
        lock: Id,
        /// The Key.
        key: Id,
    },
    /// The certificate of a Lock.
    Papers {
        /// The Lock.
        lock: Id,
    },
    /// Whether a Lock is connected.
    Presence {
        /// The Lock.
        lock: Id,
    },
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> String {
        match self {
            Self::Grant { lock, key } => format!("{PREFIX}/{LOCK}{lock}/grant/{key}"),
            Self::Confirmation { lock, key } => format!("{PREFIX}/{LOCK}{lock}/confirmation/{key}"),
            Self::Papers { lock } => format!("{PREFIX}/{LOCK}{lock}/papers"),
            Self::Presence { lock } => format!("{PREFIX}/{LOCK}{lock}/presence"),
        }
    }

    /// Reads a topic's name; none where it is not one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let mut levels = name.strip_prefix(PREFIX)?.strip_prefix('/')?.split('/');
        let lock = levels.next()?.strip_prefix(LOCK)?.parse().ok()?;
        let topic = match (levels.next()?, levels.next()) {
            ("grant", Some(key)) => Self::Grant { lock, key: key.parse().ok()? },
            ("confirmation", Some(key)) => Self::Confirmation { lock, key: key.parse().ok()? },
            ("papers", None) => Self::Papers { lock },
            ("presence", None) => Self::Presence { lock },
            _ => return None,
        };
        levels.next().is_none().then_some(topic)
    }
}

/// What a Lock listens to: the grants for it.
pub fn for_lock(lock: Id) -> String {
    format!("{PREFIX}/{LOCK}{lock}/grant/+")
}

/// What a station listens to: what Locks say.
pub fn for_station() -> [String; 3] {
    ["confirmation/+", "papers", "presence"].map(|what| format!("{PREFIX}/+/{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back_and_others_do_not() {
        let (lock, key) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        for topic in [
            Topic::Grant { lock, key },
            Topic::Confirmation { lock, key },
            Topic::Papers { lock },
            Topic::Presence { lock },
        ] {
            assert_eq!(Topic::parse(&topic.name()), Some(topic));
            assert_eq!(Topic::parse(&(topic.name() + "/x")), None);
            assert_eq!(Topic::parse(&topic.name().replace("lock ", "")), None);
        }
        let grant = Topic::Grant { lock, key }.name();
        for bad in
            ["", "keywright/1", "keywright/1/", "keywright/2/x/presence", &grant[..grant.len() - 1]]
        {
            assert_eq!(Topic::parse(bad), None, "{bad}");
        }
    }

    /// The name in the topic is the common name that [`crate::profile`] gives a Lock.
    #[test]
    fn the_name_is_that_of_the_certificate() {
        use crate::{Certificate, Role, profile, test_keys::TestKey};
        let (ca, lock) = (TestKey::new(1), TestKey::new(2));
        let validity = profile::Validity { not_before: 0, not_after: 1 };
        let sign = |unsigned: crate::Unsigned| {
            let signature = ca.sign(&unsigned.digest());
            Certificate::parse(&unsigned.assemble(&signature).unwrap()).unwrap()
        };
        let root = sign(profile::master_ca(&ca.public(), &[1], validity).unwrap());
        let own = profile::end_entity(&lock.public(), Role::Lock, &root, &[2], validity).unwrap();
        let name = format!("{LOCK}{}", lock.public().id());
        assert!(String::from_utf8_lossy(sign(own).subject_der()).ends_with(&name));
    }
}
