//! Errors as D-Bus replies: a name `org.keywright1.Error.*` and a text.

use keywright_proto::ErrorName;
use zbus::{DBusError, Message, message::Header, names};

use crate::error::Error;

/// The error reply of a method.
#[derive(Debug)]
pub struct BusError {
    name: ErrorName,
    text: String,
}

/// The result of every method.
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
