//! Refusals on their way to the caller: `org.keywright1.Error.*` and a text.

use keywright_proto::ErrorName;
use zbus::{DBusError, Message, message::Header, names};

use crate::error::Error;

/// What a method answers when it does not do what was asked.
#[derive(Debug)]
pub struct BusError {
    name: ErrorName,
    text: String,
}

/// What every method answers.
pub type Result<T> = std::result::Result<T, BusError>;

impl From<Error> for BusError {
    fn from(error: Error) -> Self {
        Self { name: error.name(), text: error.to_string() }
    }
}

impl DBusError for BusError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.text)
    }

    fn name(&self) -> names::ErrorName<'_> {
        names::ErrorName::from_static_str_unchecked(self.name.full())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}
