//! The link of stations and Locks: one connection to an MQTT 5 broker over TLS, made again with a back-off, and what is
//! refused from it.
//!
//! This crate moves messages. It knows no topic, no grant and no rule: the daemon and `keywright-lockd` say what to
//! listen to, and judge what comes.
#![forbid(unsafe_code)]

mod address;
mod connection;
mod refusals;

pub use address::{broker_address, check_settings};
pub use connection::{Connection, LinkEvent, Settings};
pub use refusals::Refusals;
