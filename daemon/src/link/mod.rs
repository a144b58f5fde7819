//! The link to the Locks: an MQTT broker in between, which is believed nothing. Off unless configured.

pub mod connection;
mod room;

pub use room::{LinkError, start};
