//! The link between stations and Locks: one MQTT 5 connection over TLS that reconnects with back-off, and
//! rate-limited logging of refused messages.
//!
//! This crate moves messages and knows no topics, grants or rules. keywrightd and keywright-lockd choose the
//! subscriptions and judge every message.
#![forbid(unsafe_code)]

mod address;
mod connection;
mod refusals;

pub use address::{broker_address, check_settings};
pub use connection::{Connection, LinkEvent, Settings};
pub use refusals::Refusals;
