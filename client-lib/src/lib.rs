//! Typed client of the Keywright daemon.
//!
//! A front-end needs nothing else to talk to the daemon, not even a D-Bus library:
//! [`Client`] asks and orders, [`Watch`] tells what changes, [`Wizard`] drives a serialization.
//! `docs/front-ends.md` shows both ways, this library and plain D-Bus.
//!
//! It runs on a tokio runtime; the current-thread one is enough.
#![forbid(unsafe_code)]

pub mod audit;
pub mod client;
pub mod error;
pub mod events;
pub mod model;
pub mod pin;
pub mod proxy;
mod snapshot;
pub mod wizard;
mod words;

pub use client::{Bus, Client};
pub use error::{DaemonError, Error, Result};
pub use events::{ConfirmedRight, Watch, WatchEvent};
pub use model::{
    Decision, GroupRow, Key, KeyRow, LockRow, Outcome, RightRow, Serialization, State, WaitingRow,
};
pub use pin::Pin;
pub use wizard::{Situation, Wizard};

/// What a [`Client`] takes and returns of the shared vocabulary.
pub use keywright_proto::{ErrorName, Kind, Role, bus};

/// Compiles the guide's example.
#[cfg(doctest)]
#[doc = include_str!("../../docs/front-ends.md")]
struct FrontEnds;
