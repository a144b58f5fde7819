//! Topics and limits of the link between stations and Locks, over an MQTT 5 broker that is not trusted.
//!
//! ```text
//! keywright/1/<name of the Lock>/grant/<Key id>          retained, by a station: one whole grant
//! keywright/1/<name of the Lock>/confirmation/<Key id>   retained, by the Lock: its last confirmation on that Key
//! keywright/1/<name of the Lock>/chain                   retained, by a station: the Lock's newest certificate and what leads
//!                                                        to the root, PEM, as AddLock answers it
//! keywright/1/<name of the Lock>/papers                  retained, by a Lock that knows no Key yet: its certificate,
//!                                                        as in a family's file, for stations that do not know it
//! keywright/1/<name of the Lock>/issuers                 retained, by the Lock: the CA certificates that it believes, PEM
//! keywright/1/<name of the Lock>/presence                retained, by the Lock and its last will: `online`, `offline`
//! keywright/1/stations/<family id>/<station>/here        retained, by a station: send me the file of this family
//! keywright/1/stations/<family id>/<station>/revocations/<number>
//!                                                        retained, by a station: a piece of the file with the family's
//!                                                        revocations alone, which is published first
//! keywright/1/stations/<family id>/<station>/<number>    retained, by a station: a piece of the family's file
//! ```
//! Only stations may read the last three topics, because the file says who may access which Lock. A station's name is derived
//! from the certificate that it shows to the broker.
//!
//! The name of a Lock is the common name of its certificate, so that the broker can restrict a Lock to its own topics with
//! one pattern. The broker retains the last message of each topic, so no message depends on an earlier one. Only a family's
//! file takes several messages: see [`crate::pieces`].

use sha2::{Digest, Sha256};

use crate::{Id, grant::MAX_GRANT};

/// What every topic begins with.
pub const PREFIX: &str = "keywright/1";
/// The longest packet, in bytes: the longest grant, its topic and the MQTT headers.
pub const MAX_PACKET: u32 = MAX_GRANT as u32 + 1024;
/// The birth message: a hint that a Lock is connected.
pub const ONLINE: &[u8] = b"online";
/// The last will: a hint that it is not.
pub const OFFLINE: &[u8] = b"offline";
/// The message by which a station asks the others for a family's file.
pub const HERE: &[u8] = b"here";
const LOCK: &str = "Keywright lock ";
/// No Lock has such a name, so no Lock may use the topics below it.
const STATIONS: &str = "stations";
const REVOCATIONS: &str = "revocations";

/// A topic of the link.
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
    /// The newest certificate of a Lock with its chain, for the Lock.
    Chain {
        /// The Lock.
        lock: Id,
    },
    /// The certificate of a Lock, by the Lock, for stations that do not know it.
    OwnCertificate {
        /// The Lock.
        lock: Id,
    },
    /// The CA certificates that a Lock believes, by the Lock.
    Issuers {
        /// The Lock.
        lock: Id,
    },
    /// Whether a Lock is connected.
    Presence {
        /// The Lock.
        lock: Id,
    },
    /// A station that asks for a family's file.
    Here {
        /// The family.
        family: Id,
        /// The station.
        station: Id,
    },
    /// A piece of the file with a family's revocations.
    RevocationPiece {
        /// The family.
        family: Id,
        /// The station that has it.
        station: Id,
        /// Which piece.
        number: u32,
    },
    /// A piece of a family's file.
    Piece {
        /// The family.
        family: Id,
        /// The station that has it.
        station: Id,
        /// Which piece.
        number: u32,
    },
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> String {
        match self {
            Self::Grant { lock, key } => format!("{PREFIX}/{LOCK}{lock}/grant/{key}"),
            Self::Confirmation { lock, key } => format!("{PREFIX}/{LOCK}{lock}/confirmation/{key}"),
            Self::Chain { lock } => format!("{PREFIX}/{LOCK}{lock}/chain"),
            Self::OwnCertificate { lock } => format!("{PREFIX}/{LOCK}{lock}/papers"),
            Self::Issuers { lock } => format!("{PREFIX}/{LOCK}{lock}/issuers"),
            Self::Presence { lock } => format!("{PREFIX}/{LOCK}{lock}/presence"),
            Self::Here { family, station } => {
                format!("{PREFIX}/{STATIONS}/{family}/{station}/here")
            }
            Self::RevocationPiece { family, station, number } => {
                format!("{PREFIX}/{STATIONS}/{family}/{station}/{REVOCATIONS}/{number}")
            }
            Self::Piece { family, station, number } => {
                format!("{PREFIX}/{STATIONS}/{family}/{station}/{number}")
            }
        }
    }

    /// Reads a topic's name; none where it is not one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let mut levels = name.strip_prefix(PREFIX)?.strip_prefix('/')?.split('/');
        let first = levels.next()?;
        if first == STATIONS {
            return Self::of_station(levels);
        }
        let lock = first.strip_prefix(LOCK)?.parse().ok()?;
        let topic = match (levels.next()?, levels.next()) {
            ("grant", Some(key)) => Self::Grant { lock, key: key.parse().ok()? },
            ("confirmation", Some(key)) => Self::Confirmation { lock, key: key.parse().ok()? },
            ("chain", None) => Self::Chain { lock },
            ("papers", None) => Self::OwnCertificate { lock },
            ("issuers", None) => Self::Issuers { lock },
            ("presence", None) => Self::Presence { lock },
            _ => return None,
        };
        levels.next().is_none().then_some(topic)
    }

    fn of_station<'a>(mut levels: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (family, station) = (levels.next()?.parse().ok()?, levels.next()?.parse().ok()?);
        let topic = match levels.next()? {
            "here" => Self::Here { family, station },
            REVOCATIONS => {
                Self::RevocationPiece { family, station, number: number(levels.next()?)? }
            }
            piece => Self::Piece { family, station, number: number(piece)? },
        };
        levels.next().is_none().then_some(topic)
    }
}

/// The number of a piece, without leading zeros: each piece has one topic.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

/// The topics that a Lock subscribes to: the grants for it, and its certificate.
pub fn lock_subscriptions(lock: Id) -> [String; 2] {
    ["grant/+", "chain"].map(|what| format!("{PREFIX}/{LOCK}{lock}/{what}"))
}

/// The topics of other stations that a station of this family subscribes to: revocations first, because the broker
/// sends its retained messages in this order.
pub fn family_subscriptions(family: Id) -> [String; 2] {
    ["+/revocations/+", "+/+"].map(|below| format!("{PREFIX}/{STATIONS}/{family}/{below}"))
}

/// The id of the station that shows this certificate (PEM or DER) to the broker. It is a label and proves nothing.
pub fn station_id(certificate: &[u8]) -> Id {
    Id::of_hash(&Sha256::digest(certificate).into())
}

/// The topics of Locks that a station subscribes to.
pub fn station_subscriptions() -> [String; 4] {
    ["confirmation/+", "papers", "issuers", "presence"].map(|what| format!("{PREFIX}/+/{what}"))
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
            Topic::Chain { lock },
            Topic::OwnCertificate { lock },
            Topic::Issuers { lock },
            Topic::Presence { lock },
        ] {
            assert_eq!(Topic::parse(&topic.name()), Some(topic));
            assert_eq!(Topic::parse(&(topic.name() + "/x")), None);
            assert_eq!(Topic::parse(&topic.name().replace("lock ", "")), None);
        }
        let (family, station) = (lock, key);
        for topic in [
            Topic::Here { family, station },
            Topic::Piece { family, station, number: 0 },
            Topic::Piece { family, station, number: 1092 },
            Topic::RevocationPiece { family, station, number: 68 },
        ] {
            assert_eq!(Topic::parse(&topic.name()), Some(topic));
            let [_, all] = family_subscriptions(family);
            assert!(topic.name().starts_with(all.trim_end_matches("/+/+")));
            for bad in [topic.name() + "/x", topic.name() + " ", topic.name() + "99999999999"] {
                assert_eq!(Topic::parse(&bad), None, "{bad}");
            }
        }
        let first = Topic::Piece { family, station, number: 1 }.name();
        for bad in [first.replace("/1", "/01"), first.clone() + "/", first.replace("ns/", "n/")] {
            assert_eq!(Topic::parse(&bad), None, "{bad}");
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
