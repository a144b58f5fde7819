//! Why a command did not do what it was asked to, and its exit status.

use std::process::ExitCode;

use keywright_client::{Error, ErrorName};

/// Anything but success.
#[derive(Debug)]
pub enum Failure {
    /// Refused, by the daemon, the bus or here: exit status 1.
    Refused {
        /// The D-Bus error's name, where there is one.
        name: Option<String>,
        /// What happened and what to do next.
        text: String,
    },
    /// Wrong arguments or files: exit status 2.
    Usage(String),
    /// Whoever read our output has gone, as `head` does: nothing to say, exit status 0.
    OutputClosed,
    /// Everything is said already: exit status 1.
    AlreadyReported,
}

impl Failure {
    /// Refused here, without a D-Bus error.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused { name: None, text: text.into() }
    }

    /// Refused here, with the name that the daemon would give it.
    pub fn named(name: ErrorName, text: impl Into<String>) -> Self {
        Self::Refused { name: Some(name.full().into()), text: text.into() }
    }

    /// Whether it carries this name.
    pub fn is(&self, wanted: ErrorName) -> bool {
        matches!(self, Self::Refused { name: Some(name), .. } if *name == wanted.full())
    }

    /// What to print on standard error.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Refused { name: Some(name), text } => Some(format!("{name}: {text}")),
            Self::Refused { name: None, text } | Self::Usage(text) => Some(text.clone()),
            Self::OutputClosed | Self::AlreadyReported => None,
        }
    }

    /// The status to exit with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused { .. } | Self::AlreadyReported => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused { name: error.dbus_name(), text: error.to_string() }
    }
}
