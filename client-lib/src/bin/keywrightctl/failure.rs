//! Why a command failed, and its exit status.

use std::process::ExitCode;

use keywright_client::{Error, ErrorName};

/// A command's failure.
#[derive(Debug)]
pub enum Failure {
    /// Refused by the daemon, by the bus or by this program: exit status 1.
    Refused {
        /// The D-Bus error name, if there is one.
        name: Option<String>,
        /// What happened and what to do next.
        text: String,
    },
    /// Wrong arguments or files: exit status 2.
    Usage(String),
    /// The reader of standard output has exited, as `head` does: no message, exit status 0.
    OutputClosed,
    /// The output already reports the failure: exit status 1.
    AlreadyReported,
}

impl Failure {
    /// A refusal by this program, without a D-Bus error name.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused { name: None, text: text.into() }
    }

    /// A refusal by this program, with the D-Bus error name that the daemon would use.
    pub fn named(name: ErrorName, text: impl Into<String>) -> Self {
        Self::Refused { name: Some(name.full().into()), text: text.into() }
    }

    /// Whether it has this D-Bus error name.
    pub fn is(&self, wanted: ErrorName) -> bool {
        matches!(self, Self::Refused { name: Some(name), .. } if *name == wanted.full())
    }

    /// The message for standard error; None if there is nothing to print.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Refused { name: Some(name), text } => Some(format!("{name}: {text}")),
            Self::Refused { name: None, text } | Self::Usage(text) => Some(text.clone()),
            Self::OutputClosed | Self::AlreadyReported => None,
        }
    }

    /// The exit status.
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
