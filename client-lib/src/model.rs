//! Owned snapshots of what the daemon shows.
//!
//! Serialized (serde), a field has the name of its D-Bus property in snake_case. Object paths are
//! opaque strings. Times are Unix seconds.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
};

use keywright_proto::{ErrorName, Kind, Role};
use serde::{Serialize, Serializer};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::{
    error::{Error, Result},
    words::words,
};

/// The properties of an object, or those that changed.
pub(crate) type Properties = HashMap<String, OwnedVariant>;

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

words! {
    /// A step of the wizard.
    Step {
        /// What to make.
        Kind = "kind",
        /// What to call it.
        Name = "name",
        /// Which Locks (Sub Keys only).
        Locks = "locks",
        /// Look at it once more.
        Review = "review",
        /// Give the PINs.
        Pins = "pins",
        /// The tokens are being written.
        Writing = "writing",
        /// Done.
        Finished = "finished",
        /// Given up.
        Cancelled = "cancelled",
        /// Went wrong.
        Failed = "failed",
        /// A Key was unplugged; plug it in again.
        AwaitingKey = "awaiting-key",
    }
}

words! {
    /// What the write is doing.
    Stage {
        /// Looking at the tokens.
        Checking = "checking",
        /// Generating keys.
        Keys = "keys",
        /// Signing and writing certificates.
        Certificates = "certificates",
        /// Signing the statement.
        Statement = "statement",
        /// Setting PIN, management key and PUK.
        Secrets = "secrets",
        /// Reading everything back.
        Verifying = "verifying",
        /// Committing.
        Saving = "saving",
    }
}

words! {
    /// Whose PIN.
    Who {
        /// The already-serialized Key.
        Issuer = "issuer",
        /// The second Key, as it is now.
        Candidate = "candidate",
        /// The new PIN of the second Key.
        CandidateNew = "candidate-new",
    }
}

/// A family that a Key belongs to, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The family's id.
    pub family: String,
    /// None for a role that only a newer daemon knows.
    #[serde(serialize_with = "word")]
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
    pub present: bool,
    pub model: String,
    pub serial: String,
    pub port: String,
    pub pin: PinState,
    /// Tries left; -1 where the token does not tell.
    pub pin_retries: i32,
    pub authorized: bool,
    pub locks: u32,
    pub pending_locks: u32,
    pub last_seen: u64,
}

/// `org.keywright1.Serialization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's properties, by their names")]
pub struct Serialization {
    /// The object's path.
    pub path: String,
    /// The path of the issuing Key; `/` where a Master is made.
    pub issuer: String,
    pub candidate: String,
    pub result: String,
    #[serde(serialize_with = "words_of_kinds")]
    pub kinds: Vec<Kind>,
    /// None until chosen.
    #[serde(serialize_with = "word")]
    pub kind: Option<Kind>,
    pub name: String,
    pub selected: u32,
    pub all_locks: bool,
    pub step: Step,
    pub steps: Vec<Step>,
    pub revision: u32,
    pub pins_needed: Vec<Who>,
    pub progress: Progress,
    pub owner: String,
    pub stage: Stage,
    /// None while all is well.
    pub outcome: Option<Outcome>,
    pub outcome_details: BTreeMap<String, String>,
}

/// How far the write is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Parts done.
    pub done: u32,
    /// Parts in all; 0 before the write.
    pub total: u32,
}

/// How a serialization ended, or why it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which of the contract's errors; none where it ended well, or for a newer daemon's name.
    #[serde(skip)]
    pub error: Option<ErrorName>,
    /// The error's name as it came; empty where it ended well.
    pub name: String,
    /// What happened and what to do next; English.
    pub text: String,
}

/// A present pair without an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The possible issuer's path, or `/`.
    pub issuer: String,
    /// The other Key's path.
    pub other: String,
    /// Why there is no offer: a word of the contract, section 2.
    pub reason: String,
}

/// A Key in `ListKeys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's columns, by their names")]
pub struct KeyRow {
    pub id: String,
    pub name: String,
    /// None for a role that only a newer daemon knows.
    #[serde(serialize_with = "word")]
    pub role: Option<Role>,
    pub family: String,
    pub last_seen: u64,
}

/// A Lock in `ListLocks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's columns, by their names")]
pub struct LockRow {
    pub id: String,
    pub name: String,
    pub family: String,
    pub online: bool,
    pub last_seen: u64,
}

/// A right in `ListRights`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's columns, by their names")]
pub struct RightRow {
    pub lock_id: String,
    pub name: String,
    /// `pending`, `active` or `removing`.
    pub state: String,
    pub since: u64,
}

/// What `Review` shows before `Save`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's entries, by their names")]
pub struct Review {
    #[serde(serialize_with = "word")]
    pub kind: Option<Kind>,
    pub name: String,
    pub locks: u32,
    pub pending: u32,
    /// Code and English text.
    pub warnings: Vec<(String, String)>,
    /// What `Save` has to carry.
    pub revision: u32,
}

/// Everything that the daemon shows, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Whether the daemon is on the bus. Where it is not, the rest is what it showed last.
    pub running: bool,
    /// By path.
    pub keys: BTreeMap<String, Key>,
    /// By path.
    pub serializations: BTreeMap<String, Serialization>,
    /// Present pairs without an offer.
    pub decisions: Vec<Decision>,
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
            present: false,
            model: String::new(),
            serial: String::new(),
            port: String::new(),
            pin: PinState::Unknown,
            pin_retries: -1,
            authorized: false,
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
                "Present" => self.present = take(name, value)?,
                "Model" => self.model = take(name, value)?,
                "Serial" => self.serial = take(name, value)?,
                "Port" => self.port = take(name, value)?,
                "Pin" => self.pin = take::<String>(name, value)?.into(),
                "PinRetries" => self.pin_retries = take(name, value)?,
                "Authorized" => self.authorized = take(name, value)?,
                "Locks" => self.locks = take(name, value)?,
                "PendingLocks" => self.pending_locks = take(name, value)?,
                "LastSeen" => self.last_seen = take(name, value)?,
                _ => {} // of a newer daemon
            }
        }
        Ok(())
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

impl Serialization {
    /// A serialization of which nothing is known but its path.
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            issuer: "/".into(),
            candidate: "/".into(),
            result: "/".into(),
            kinds: Vec::new(),
            kind: None,
            name: String::new(),
            selected: 0,
            all_locks: false,
            step: Step::Other(String::new()),
            steps: Vec::new(),
            revision: 0,
            pins_needed: Vec::new(),
            progress: Progress::default(),
            owner: String::new(),
            stage: Stage::Other(String::new()),
            outcome: None,
            outcome_details: BTreeMap::new(),
        }
    }

    pub(crate) fn set(&mut self, properties: Properties) -> Result<()> {
        for (property, value) in properties {
            let name = property.as_str();
            match name {
                "Issuer" => self.issuer = path(name, value)?,
                "Candidate" => self.candidate = path(name, value)?,
                "Result" => self.result = path(name, value)?,
                "Kinds" => {
                    // A kind that is not known here cannot be chosen here either.
                    let words: Vec<String> = take(name, value)?;
                    self.kinds = words.iter().filter_map(|word| word.parse().ok()).collect();
                }
                "Kind" => self.kind = take::<String>(name, value)?.parse().ok(),
                "Name" => self.name = take(name, value)?,
                "Selected" => self.selected = take(name, value)?,
                "AllLocks" => self.all_locks = take(name, value)?,
                "Step" => self.step = take::<String>(name, value)?.into(),
                "Steps" => self.steps = words_of(name, value)?,
                "Revision" => self.revision = take(name, value)?,
                "PinsNeeded" => self.pins_needed = words_of(name, value)?,
                "Progress" => {
                    let (done, total) = take(name, value)?;
                    self.progress = Progress { done, total };
                }
                "Owner" => self.owner = take(name, value)?,
                "Stage" => self.stage = take::<String>(name, value)?.into(),
                "Outcome" => {
                    let (error, text) = take(name, value)?;
                    self.outcome = outcome(error, text);
                }
                "OutcomeDetails" => {
                    let details: HashMap<String, OwnedVariant> = take(name, value)?;
                    self.outcome_details =
                        details.into_iter().map(|(key, value)| (key, plain(&value))).collect();
                }
                _ => {} // of a newer daemon
            }
        }
        Ok(())
    }

    /// Whether the job still needs somebody: it is not finished, cancelled or failed.
    pub fn is_live(&self) -> bool {
        !matches!(self.step, Step::Finished | Step::Cancelled | Step::Failed)
    }
}

/// An outcome, unless both parts are empty.
fn outcome(name: String, text: String) -> Option<Outcome> {
    if name.is_empty() && text.is_empty() {
        return None;
    }
    Some(Outcome { error: name.parse().ok(), name, text })
}

/// A property's value as its type in the contract.
pub(crate) fn take<T>(name: &str, value: OwnedVariant) -> Result<T>
where
    T: TryFrom<OwnedVariant>,
{
    T::try_from(value).map_err(|_| Error::malformed(format_args!("property {name}")))
}

fn path(name: &str, value: OwnedVariant) -> Result<String> {
    Ok(take::<OwnedObjectPath>(name, value)?.to_string())
}

fn words_of<T: From<String>>(name: &str, value: OwnedVariant) -> Result<Vec<T>> {
    Ok(take::<Vec<String>>(name, value)?.into_iter().map(T::from).collect())
}

/// A detail as text: details are for showing, whatever their type.
fn plain(value: &Variant<'_>) -> String {
    match value {
        Variant::Str(text) => text.to_string(),
        Variant::ObjectPath(path) => path.to_string(),
        Variant::Bool(value) => value.to_string(),
        Variant::U8(value) => value.to_string(),
        Variant::I32(value) => value.to_string(),
        Variant::U32(value) => value.to_string(),
        Variant::I64(value) => value.to_string(),
        Variant::U64(value) => value.to_string(),
        other => other.to_string(),
    }
}

/// The word on the bus; empty for none.
fn word<T: Display, S: Serializer>(
    word: &Option<T>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match word {
        Some(word) => to.collect_str(word),
        None => to.serialize_str(""),
    }
}

fn words_of_kinds<S: Serializer>(kinds: &[Kind], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(kinds.iter().map(|kind| kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PinRetries` as `pin_retries`.
    fn snake(name: &str) -> String {
        let mut snake = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        snake
    }

    fn fields(value: &impl Serialize) -> Vec<String> {
        let serde_json::Value::Object(object) = serde_json::to_value(value).unwrap() else {
            panic!("not an object")
        };
        let mut fields: Vec<String> = object.keys().cloned().collect();
        fields.sort();
        fields
    }

    fn contract(names: &str) -> Vec<String> {
        let mut names: Vec<String> = names.split_whitespace().map(snake).collect();
        names.push("path".into());
        names.sort();
        names
    }

    #[test]
    fn json_has_the_names_of_the_properties() {
        let key = "Id Name State Memberships Present Model Serial Port Pin PinRetries Authorized \
            Locks PendingLocks LastSeen";
        assert_eq!(fields(&Key::at("/k")), contract(key));
        let job = "Issuer Candidate Result Kinds Kind Name Selected AllLocks Step Steps Revision \
            PinsNeeded Progress Owner Stage Outcome OutcomeDetails";
        assert_eq!(fields(&Serialization::at("/s")), contract(job));
    }

    fn set(properties: &[(&str, Variant<'_>)]) -> Result<Serialization> {
        let owned = |(name, value): &(&str, Variant<'_>)| {
            ((*name).to_owned(), value.try_to_owned().unwrap())
        };
        let mut job = Serialization::at("/s");
        job.set(properties.iter().map(owned).collect()).map(|()| job)
    }

    #[test]
    fn words_of_a_newer_daemon_are_kept_and_wrong_types_are_not() {
        let job = set(&[("Step", "dancing".into()), ("NewProperty", 1_u32.into())]).unwrap();
        assert_eq!(job.step, Step::Other("dancing".into()));
        let wrong = set(&[("Revision", "7".into())]);
        assert!(matches!(wrong, Err(Error::Malformed { what }) if what == "property Revision"));
    }

    #[test]
    fn an_outcome_of_a_newer_daemon_keeps_its_name() {
        let outcome =
            |name: &str, text: &str| set(&[("Outcome", (name, text).into())]).unwrap().outcome;
        let known = outcome(ErrorName::WrongKey.full(), "another Key").unwrap();
        assert_eq!(known.error, Some(ErrorName::WrongKey));
        let newer = outcome("org.keywright1.Error.TooWarm", "let it cool").unwrap();
        assert_eq!((newer.error, newer.name.as_str()), (None, "org.keywright1.Error.TooWarm"));
        assert_eq!(outcome("", "unplug it now").unwrap().error, None);
        assert_eq!(outcome("", ""), None);
    }
}
