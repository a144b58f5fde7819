//! Owned snapshots of the daemon's D-Bus objects.
//!
//! Serde serializes each field under the name of its D-Bus property in snake_case. Object paths are
//! opaque strings. Times are Unix seconds.

mod key;
mod rows;
mod serialization;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
};

use serde::{Serialize, Serializer};
use zbus::OwnedVariant;

use crate::{
    error::{Error, Result},
    words::Word,
};

pub use key::{Key, Membership};
pub use keywright_proto::words::{KeyState, PinState, Reason, Stage, Step, Who};
pub use rows::{GroupRow, IssuerRow, KeyRow, LockRow, RightRow, WaitingRow};
pub use serialization::{Outcome, Progress, Review, Serialization};

/// All properties of an object, or the changed ones.
pub(crate) type Properties = HashMap<String, OwnedVariant>;

/// All D-Bus objects of the daemon at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Whether the daemon is on the bus. If it is not, the other fields have its last state.
    pub running: bool,
    /// Keys by object path.
    pub keys: BTreeMap<String, Key>,
    /// Serializations by object path.
    pub serializations: BTreeMap<String, Serialization>,
    /// Pairs of present Keys for which there is no offer.
    pub decisions: Vec<Decision>,
}

/// A pair of present Keys for which there is no offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The possible issuer's object path; `/` if there is none.
    pub issuer: String,
    /// The other Key's object path.
    pub other: String,
    /// Why there is no offer.
    pub reason: Word<Reason>,
}

/// Converts a property's value to its documented type.
pub(crate) fn take<T>(name: &str, value: OwnedVariant) -> Result<T>
where
    T: TryFrom<OwnedVariant>,
{
    T::try_from(value).map_err(|_| Error::malformed(format_args!("property {name}")))
}

/// Serializes an optional word as on the bus: None is the empty string.
fn word_or_empty<T: Display, S: Serializer>(
    word: &Option<T>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match word {
        Some(word) => to.collect_str(word),
        None => to.serialize_str(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts `PinRetries` to `pin_retries`.
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

    fn documented(names: &str) -> Vec<String> {
        let mut names: Vec<String> = names.split_whitespace().map(snake).collect();
        names.push("path".into());
        names.sort();
        names
    }

    #[test]
    fn json_has_the_names_of_the_properties() {
        let key = "Id Name State Memberships Trouble Present Model Serial Port Pin PinRetries Authorized \
            Card Locks PendingLocks LastSeen";
        assert_eq!(fields(&Key::at("/k")), documented(key));
        let job = "Issuer Candidate Result Kinds Kind Name Selected AllLocks Step Steps Revision \
            PinsNeeded Progress Owner Stage Outcome OutcomeDetails";
        assert_eq!(fields(&Serialization::at("/s")), documented(job));
    }
}
