//! What the bus shows, as plain values: it makes properties and signals of them.

use keywright_proto::{ErrorName, Kind};
use keywright_rules::decision::Reason;
use keywright_token::PinState;

use crate::{
    error::Error,
    serialization::{
        stage::Stage,
        wizard::{Step, Who},
    },
};

pub use crate::families::Label;

/// The properties of `org.keywright1.Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Its id; empty while blank.
    pub id: String,
    /// Its name at this station.
    pub name: String,
    /// `blank`, `master`, `backup`, `sub`, `foreign`, `revoked`, `unusable`.
    pub state: &'static str,
    /// Family and role, the first family first.
    pub memberships: Vec<(String, String)>,
    /// Why it cannot be used, if so.
    pub trouble: Option<Trouble>,
    /// Whether it is plugged in.
    pub present: bool,
    /// The product name.
    pub model: String,
    /// The token's serial number if it is unique, otherwise the GUID of its CHUID in hex.
    pub serial: String,
    /// Where it is plugged in, or was.
    pub port: String,
    /// What is known of its PIN.
    pub pin: PinState,
    /// The PIN tries that are left; -1 if that is unknown.
    pub pin_retries: i32,
    /// Why it lacks the newest card of its family: a word, and a text for people.
    pub card: Option<(&'static str, &'static str)>,
    /// Whether something on it stays authorized until it is re-plugged.
    pub authorized: bool,
    /// How many rights are active.
    pub locks: u32,
    /// How many rights a Lock has not confirmed yet.
    pub pending_locks: u32,
    /// When it was last plugged in, in Unix seconds.
    pub last_seen: u64,
}

/// Why a Key that is plugged in cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The error.
    pub error: ErrorName,
    /// What happened, and what to do next.
    pub text: String,
    /// The program that holds it, if that is the reason.
    pub holder: Option<String>,
    /// Whether the token is looked at again without a person's doing.
    pub passes: bool,
}

/// What the station is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Whether the daemon must stay: a usable Key is plugged in, somebody drives a serialization, or a recovery code has
    /// not been taken.
    pub needed: bool,
    /// Whether commands are being sent to a token.
    pub working: bool,
    /// Whether a Key is being written.
    pub writing: bool,
    /// When the next delayed revocation acts, in seconds of uptime.
    pub judges_at: Option<u64>,
}

/// The state of a serialization, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The error, if there is one.
    pub error: Option<ErrorName>,
    /// What happened, to what, and what to do next; may be empty.
    pub text: String,
    /// The values of the text, for front-ends that translate it.
    pub details: Vec<(&'static str, Detail)>,
}

/// One value of an [`Outcome`]'s details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A text.
    Text(String),
    /// A number.
    Number(u32),
    /// Yes or no.
    Flag(bool),
}

/// The properties of `org.keywright1.Serialization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerializationView {
    /// The Key that signs; `None` for a new Master.
    pub issuer: Option<Label>,
    /// The Key that is written.
    pub candidate: Label,
    /// The finished Key.
    pub result: Option<Label>,
    /// The kinds of Key that the pair can make.
    pub kinds: Vec<Kind>,
    /// The kind that was chosen.
    pub kind: Option<Kind>,
    /// The name that was chosen.
    pub name: String,
    /// How many Locks are selected.
    pub selected: u32,
    /// Whether all Locks of the family are selected.
    pub all_locks: bool,
    /// The step.
    pub step: Step,
    /// The steps of this kind of job.
    pub steps: Vec<Step>,
    /// Grows with every answer.
    pub revision: u32,
    /// The PINs that are still needed.
    pub pins_needed: Vec<Who>,
    /// Steps of the write that are done, and all of them.
    pub progress: (u32, u32),
    /// The stage of the write; `None` before it.
    pub stage: Option<Stage>,
    /// The unique bus name of the front-end that drives it.
    pub owner: Option<String>,
    /// Its state or end, in words.
    pub outcome: Outcome,
}

/// One entry of the Decisions property.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionView {
    /// The issuer, where the pair has one.
    pub issuer: Option<Label>,
    /// The Key that is written.
    pub other: Label,
    /// Why there is no offer.
    pub reason: Reason,
}

/// What `Review` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What is made.
    pub kind: Kind,
    /// How it is called.
    pub name: String,
    /// How many Locks it may access.
    pub locks: u32,
    /// How many of them have yet to confirm.
    pub pending: u32,
    /// What to know first: a word, and a text.
    pub warnings: Vec<(String, String)>,
    /// What `Save` has to be given.
    pub revision: u32,
}

impl Outcome {
    /// An error.
    pub fn failed(error: &Error) -> Self {
        Self { error: Some(error.name()), text: error.to_string(), details: Vec::new() }
    }

    /// Another Key is where this one is missed.
    pub fn wrong_key(missed: &str, port: &str) -> Self {
        Self {
            error: Some(ErrorName::WrongKey),
            text: format!("{port} holds another Key; take it out and plug {missed} in again"),
            details: vec![("port", Detail::Text(port.to_owned()))],
        }
    }

    /// Says one thing more.
    pub fn add(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(text);
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: Detail) -> Self {
        self.details.push((key, value));
        self
    }
}
