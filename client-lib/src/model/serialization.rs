//! The object `org.keywright1.Serialization`: one job, from its offer to its end.

use std::collections::{BTreeMap, HashMap};

use keywright_proto::{
    ErrorName, Kind,
    words::{Stage, Step, Who},
};
use serde::{Serialize, Serializer};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::{
    error::Result,
    model::{Properties, take, word_or_empty},
    words::Word,
};

/// `org.keywright1.Serialization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "properties of docs/dbus.md, by their names")]
pub struct Serialization {
    /// The object's path.
    pub path: String,
    /// The issuer's object path; `/` if a Master is made.
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
    pub step: Word<Step>,
    pub steps: Vec<Word<Step>>,
    pub revision: u32,
    pub pins_needed: Vec<Word<Who>>,
    pub progress: Progress,
    pub owner: String,
    pub stage: Word<Stage>,
    /// None while nothing went wrong.
    pub outcome: Option<Outcome>,
    pub outcome_details: BTreeMap<String, String>,
}

/// Progress of the write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Parts done.
    pub done: u32,
    /// Parts in all; 0 before the write.
    pub total: u32,
}

/// Result of a serialization, or why it is waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The error; None on success and for a name that this version does not know.
    #[serde(skip)]
    pub error: Option<ErrorName>,
    /// The D-Bus error name as received; empty on success.
    pub name: String,
    /// What happened and what to do next, in English.
    pub text: String,
}

/// Summary that `Review` returns before `Save`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "entries of docs/dbus.md, by their names")]
pub struct Review {
    #[serde(serialize_with = "word_or_empty")]
    pub kind: Option<Kind>,
    pub name: String,
    pub locks: u32,
    pub pending: u32,
    /// Pairs of a code and an English text.
    pub warnings: Vec<(String, String)>,
    /// Revision to pass to `Save`.
    pub revision: u32,
}

impl Serialization {
    /// A serialization at this path with every other property empty.
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
            step: "".into(),
            steps: Vec::new(),
            revision: 0,
            pins_needed: Vec::new(),
            progress: Progress::default(),
            owner: String::new(),
            stage: "".into(),
            outcome: None,
            outcome_details: BTreeMap::new(),
        }
    }

    /// Overwrites the given properties.
    pub(crate) fn set(&mut self, properties: Properties) -> Result<()> {
        for (property, value) in properties {
            let name = property.as_str();
            match name {
                "Issuer" => self.issuer = path(name, value)?,
                "Candidate" => self.candidate = path(name, value)?,
                "Result" => self.result = path(name, value)?,
                "Kinds" => {
                    // A front-end cannot offer a kind that this version does not know.
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
                "Outcome" => self.outcome = outcome(name, value)?,
                "OutcomeDetails" => {
                    let details: HashMap<String, OwnedVariant> = take(name, value)?;
                    self.outcome_details =
                        details.into_iter().map(|(key, value)| (key, plain(&value))).collect();
                }
                _ => {} // a property that this version does not know
            }
        }
        Ok(())
    }

    /// Whether the job is still open: neither finished, cancelled nor failed.
    pub fn is_live(&self) -> bool {
        !self.step.known().is_some_and(Step::is_end)
    }
}

/// Converts a property that has an error name and a text; None if both are empty.
pub(super) fn outcome(property: &str, value: OwnedVariant) -> Result<Option<Outcome>> {
    let (name, text): (String, String) = take(property, value)?;
    let is_none = name.is_empty() && text.is_empty();
    Ok((!is_none).then(|| Outcome { error: name.parse().ok(), name, text }))
}

fn path(name: &str, value: OwnedVariant) -> Result<String> {
    Ok(take::<OwnedObjectPath>(name, value)?.to_string())
}

fn words<T: From<String>>(name: &str, value: OwnedVariant) -> Result<Vec<T>> {
    Ok(take::<Vec<String>>(name, value)?.into_iter().map(T::from).collect())
}

/// Formats an outcome detail of any type for display.
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
        assert_eq!(job.step, Word::Unknown("dancing".into()));
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
