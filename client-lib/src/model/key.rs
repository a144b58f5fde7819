//! The object `org.keywright1.Key`.

use keywright_proto::{
    Role,
    words::{KeyState, PinState},
};
use serde::Serialize;

use crate::{
    error::Result,
    model::{KeyRow, Outcome, Properties, serialization::outcome, take, word_or_empty},
    words::Word,
};

/// Membership of a Key in a family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The family's id.
    pub family: String,
    /// The Key's role; None for a role that this version does not know.
    #[serde(serialize_with = "word_or_empty")]
    pub role: Option<Role>,
}

/// `org.keywright1.Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "properties of docs/dbus.md, by their names")]
pub struct Key {
    /// The object's path; empty for a Key known only from `ListKeys`.
    pub path: String,
    pub id: String,
    pub name: String,
    pub state: Word<KeyState>,
    pub memberships: Vec<Membership>,
    /// Why the Key is unusable; None if it is usable.
    pub trouble: Option<Outcome>,
    pub present: bool,
    pub model: String,
    pub serial: String,
    pub port: String,
    pub pin: Word<PinState>,
    /// PIN tries left; -1 if the token does not report them.
    pub pin_retries: i32,
    pub authorized: bool,
    /// Why the Key does not carry its family's card; None if it does.
    pub card: Option<Outcome>,
    pub locks: u32,
    pub pending_locks: u32,
    pub last_seen: u64,
}

impl Key {
    /// A Key at this path with every other property empty.
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            id: String::new(),
            name: String::new(),
            state: "".into(),
            memberships: Vec::new(),
            trouble: None,
            present: false,
            model: String::new(),
            serial: String::new(),
            port: String::new(),
            pin: Word::Known(PinState::Unknown),
            pin_retries: -1,
            authorized: false,
            card: None,
            locks: 0,
            pending_locks: 0,
            last_seen: 0,
        }
    }

    /// Converts a row of `ListKeys` for a Key that has no D-Bus object.
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

    /// Overwrites the given properties.
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
                "Trouble" => self.trouble = outcome(name, value)?,
                "Present" => self.present = take(name, value)?,
                "Model" => self.model = take(name, value)?,
                "Serial" => self.serial = take(name, value)?,
                "Port" => self.port = take(name, value)?,
                "Pin" => self.pin = take::<String>(name, value)?.into(),
                "PinRetries" => self.pin_retries = take(name, value)?,
                "Authorized" => self.authorized = take(name, value)?,
                "Card" => self.card = outcome(name, value)?,
                "Locks" => self.locks = take(name, value)?,
                "PendingLocks" => self.pending_locks = take(name, value)?,
                "LastSeen" => self.last_seen = take(name, value)?,
                _ => {} // a property that this version does not know
            }
        }
        Ok(())
    }

    /// The state for people: `soft` for a Sub Key whose private key is in software.
    pub fn kind(&self) -> String {
        let soft = self.memberships.iter().any(|membership| membership.role == Some(Role::Soft));
        match &self.state {
            Word::Known(KeyState::Sub) if soft => "soft".into(),
            Word::Known(KeyState::Revoked) if soft => "revoked, soft".into(),
            state => state.to_string(),
        }
    }

    /// Label for people: the Key's name, or its state, model and port.
    pub fn label(&self) -> String {
        match (self.name.as_str(), self.model.as_str()) {
            ("", "") => format!("{} Key", self.state),
            ("", model) => format!("{} {model} at {}", self.state, self.port),
            (name, _) => name.to_owned(),
        }
    }
}
