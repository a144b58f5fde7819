//! A serialization as the daemon shows it.

use std::collections::{BTreeMap, HashMap};

use keywright_proto::{ErrorName, Kind};
use serde::{Serialize, Serializer};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::{
    error::Result,
    model::{Properties, take, word_or_empty},
    words::words,
};

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
    #[serde(serialize_with = "serialize_kinds")]
    pub kinds: Vec<Kind>,
    /// None until chosen.
    #[serde(serialize_with = "word_or_empty")]
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

/// What `Review` shows before `Save`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's entries, by their names")]
pub struct Review {
    #[serde(serialize_with = "word_or_empty")]
    pub kind: Option<Kind>,
    pub name: String,
    pub locks: u32,
    pub pending: u32,
    /// Code and English text.
    pub warnings: Vec<(String, String)>,
    /// What `Save` has to carry.
    pub revision: u32,
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
                "Steps" => self.steps = words(name, value)?,
                "Revision" => self.revision = take(name, value)?,
                "PinsNeeded" => self.pins_needed = words(name, value)?,
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
pub(super) fn outcome(name: String, text: String) -> Option<Outcome> {
    if name.is_empty() && text.is_empty() {
        return None;
    }
    Some(Outcome { error: name.parse().ok(), name, text })
}

fn path(name: &str, value: OwnedVariant) -> Result<String> {
    Ok(take::<OwnedObjectPath>(name, value)?.to_string())
}

fn words<T: From<String>>(name: &str, value: OwnedVariant) -> Result<Vec<T>> {
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

fn serialize_kinds<S: Serializer>(kinds: &[Kind], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(kinds.iter().map(|kind| kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn set(properties: &[(&str, Variant<'_>)]) -> Result<Serialization> {
        let owned = |(name, value): &(&str, Variant<'_>)| {
            ((*name).to_owned(), value.try_to_owned().unwrap())
        };
        let mut job = Serialization::at("/s");
        job.set(properties.iter().map(owned).collect()).map(|()| job)
    }

    #[test]
    fn unknown_words_are_kept_and_wrong_types_are_refused() {
        let job = set(&[("Step", "dancing".into()), ("NewProperty", 1_u32.into())]).unwrap();
        assert_eq!(job.step, Step::Other("dancing".into()));
        let wrong = set(&[("Revision", "7".into())]);
        assert!(matches!(wrong, Err(Error::Malformed { what }) if what == "property Revision"));
    }

    #[test]
    fn outcome_with_an_unknown_error_keeps_its_name() {
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
