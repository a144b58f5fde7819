//! What the bus shows: plain values that it turns into properties and signals.

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
    /// Its name here.
    pub name: String,
    /// `blank`, `master`, `backup`, `sub`, `foreign`, `revoked`, `unusable`.
    pub state: &'static str,
    /// Family and role, the first family first.
    pub memberships: Vec<(String, String)>,
    /// Why it cannot be used, and the error that says so; none where it can.
    pub trouble: Option<Trouble>,
    /// Plugged in.
    pub present: bool,
    /// The product name.
    pub model: String,
    /// The token's serial number where unique, else the CHUID GUID in hex.
    pub serial: String,
    /// Where it is plugged in, or was.
    pub port: String,
    /// What is known of its PIN.
    pub pin: PinState,
    /// Tries left; -1 unknown.
    pub pin_retries: i32,
    /// Why it does not carry its family's card, or not the newest: a word, and a text for people.
    pub card: Option<(&'static str, &'static str)>,
    /// Something on it stays authorized until it is re-plugged.
    pub authorized: bool,
    /// Active rights.
    pub locks: u32,
    /// Rights that a Lock has yet to confirm.
    pub pending_locks: u32,
    /// Unix seconds.
    pub last_seen: u64,
}

/// Why a Key that is plugged in cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The error.
    pub error: ErrorName,
    /// What happened, and what to do next.
    pub text: String,
    /// The program that holds it, where that is the trouble.
    pub holder: Option<String>,
    /// It passes: the token is looked at again by itself.
    pub passes: bool,
}

/// What the station is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// A Key that could be used is plugged in, somebody drives a serialization, or something has to be handed out:
    /// the daemon must stay.
    pub needed: bool,
    /// A token is being talked to.
    pub working: bool,
    /// A Key is being written.
    pub writing: bool,
    /// When a revocation that waits will act, in Unix seconds; none where none waits.
    pub judges_at: Option<u64>,
}

/// How a serialization stands or ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The error, if it is one.
    pub error: Option<ErrorName>,
    /// What happened, to what, and what to do next; empty while there is nothing to say.
    pub text: String,
    /// The same for translation.
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
    /// None for a new Master.
    pub issuer: Option<Label>,
    /// The other Key.
    pub candidate: Label,
    /// The finished Key.
    pub result: Option<Label>,
    /// What may be made.
    pub kinds: Vec<Kind>,
    /// What is to be made.
    pub kind: Option<Kind>,
    /// How it is to be called.
    pub name: String,
    /// How many Locks are selected.
    pub selected: u32,
    /// All Locks of the family are.
    pub all_locks: bool,
    /// Where it is.
    pub step: Step,
    /// The steps of this kind of job.
    pub steps: Vec<Step>,
    /// Grows with every answer.
    pub revision: u32,
    /// The PINs that are still needed.
    pub pins_needed: Vec<Who>,
    /// Done and total, in the job's own units.
    pub progress: (u32, u32),
    /// What the write is doing; none before it.
    pub stage: Option<Stage>,
    /// The unique bus name of the front-end that drives it.
    pub owner: Option<String>,
    /// How it stands.
    pub outcome: Outcome,
}

/// One entry of the Decisions property.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionView {
    /// The issuer, where the pair has one.
    pub issuer: Option<Label>,
    /// The other Key.
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
