//! A Key as the daemon shows it.

use keywright_proto::Role;
use serde::Serialize;

use crate::{
    error::Result,
    model::{KeyRow, Outcome, Properties, serialization::outcome, take, word_or_empty},
    words::words,
};

words! {
    /// What a present Key is; `daemon` decides it from the token's certificates.
    KeyState {
        /// Nothing of anybody on it.
        Blank = "blank",
        /// Root of a family.
        Master = "master",
        /// A peer of a Master.
        Backup = "backup",
        /// A Key for some Locks.
        Sub = "sub",
        /// In use for something else.
        Foreign = "foreign",
        /// Never admitted again.
        Revoked = "revoked",
        /// Cannot be used.
        Unusable = "unusable",
    }
}

words! {
    /// What is known of a PIN.
    PinState {
        /// As the factory set it.
        Default = "default",
        /// A person set it.
        Set = "set",
        /// No tries left.
        Blocked = "blocked",
        /// The token does not tell.
        Unknown = "unknown",
    }
}

/// A family that a Key belongs to, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The family's id.
    pub family: String,
    /// None for a role that only a newer daemon knows.
    #[serde(serialize_with = "word_or_empty")]
    pub role: Option<Role>,
}

/// `org.keywright1.Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's properties, by their names")]
pub struct Key {
    /// The object's path; empty for a Key known only from `ListKeys`.
    pub path: String,
    pub id: String,
    pub name: String,
    pub state: KeyState,
    pub memberships: Vec<Membership>,
    /// Why it is unusable.
    pub trouble: Option<Outcome>,
    pub present: bool,
    pub model: String,
    pub serial: String,
    pub port: String,
    pub pin: PinState,
    /// Tries left; -1 where the token does not tell.
    pub pin_retries: i32,
    pub authorized: bool,
    /// Why it does not carry its family's card.
    pub card: Option<Outcome>,
    pub locks: u32,
    pub pending_locks: u32,
    pub last_seen: u64,
}

impl Key {
    /// A Key of which nothing is known but its path.
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            id: String::new(),
            name: String::new(),
            state: KeyState::Other(String::new()),
            memberships: Vec::new(),
            trouble: None,
            present: false,
            model: String::new(),
            serial: String::new(),
            port: String::new(),
            pin: PinState::Unknown,
            pin_retries: -1,
            authorized: false,
            card: None,
            locks: 0,
            pending_locks: 0,
            last_seen: 0,
        }
    }

    /// What `ListKeys` tells of a Key without an object.
    pub fn from_row(row: &KeyRow) -> Self {
        let membership = Membership { family: row.family.clone(), role: row.role };
        Self {
            id: row.id.clone(),
            name: row.name.clone(),
            state: row.role.map_or("", Role::as_str).into(),
            memberships: vec![membership],
            last_seen: row.last_seen,
            ..Self::at("")
        }
    }

    pub(crate) fn set(&mut self, properties: Properties) -> Result<()> {
        for (property, value) in properties {
            let name = property.as_str();
            match name {
                "Id" => self.id = take(name, value)?,
                "Name" => self.name = take(name, value)?,
                "State" => self.state = take::<String>(name, value)?.into(),
                "Memberships" => {
                    let pairs: Vec<(String, String)> = take(name, value)?;
                    self.memberships = pairs
                        .into_iter()
                        .map(|(family, role)| Membership { family, role: role.parse().ok() })
                        .collect();
                }
                "Trouble" => {
                    let (error, text) = take(name, value)?;
                    self.trouble = outcome(error, text);
                }
                "Present" => self.present = take(name, value)?,
                "Model" => self.model = take(name, value)?,
                "Serial" => self.serial = take(name, value)?,
                "Port" => self.port = take(name, value)?,
                "Pin" => self.pin = take::<String>(name, value)?.into(),
                "PinRetries" => self.pin_retries = take(name, value)?,
                "Authorized" => self.authorized = take(name, value)?,
                "Card" => {
                    let (word, why) = take(name, value)?;
                    self.card = outcome(word, why);
                }
                "Locks" => self.locks = take(name, value)?,
                "PendingLocks" => self.pending_locks = take(name, value)?,
                "LastSeen" => self.last_seen = take(name, value)?,
                _ => {} // of a newer daemon
            }
        }
        Ok(())
    }

    /// Its state for a person: `soft` for a Sub Key whose private key lives in software.
    pub fn kind(&self) -> String {
        let soft = self.memberships.iter().any(|membership| membership.role == Some(Role::Soft));
        match &self.state {
            KeyState::Sub if soft => "soft".into(),
            KeyState::Revoked if soft => "revoked, soft".into(),
            state => state.to_string(),
        }
    }

    /// What a person knows the Key by: its name, or what it is and where.
    pub fn label(&self) -> String {
        match (self.name.as_str(), self.model.as_str()) {
            ("", "") => format!("{} Key", self.state),
            ("", model) => format!("{} {model} at {}", self.state, self.port),
            (name, _) => name.to_owned(),
        }
    }
}
