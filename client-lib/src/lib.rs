//! Typed client of the Keywright daemon.
//!
//! A front-end needs no D-Bus library of its own:
//! [`Client`] calls the Manager's methods, [`Watch`] reports changes, [`Wizard`] drives one serialization.
//! `docs/front-ends.md` shows the same session with this library and with plain D-Bus.
//!
//! It needs a tokio runtime; a current-thread one is enough.
//!
//! | file | what |
//! | --- | --- |
//! | `client` `proxy` | calls the methods of the daemon, typed; the zbus proxies |
//! | `events` `snapshot` | reports changes as typed events; applies signals and snapshots to the state |
//! | `model` | what the daemon publishes: Keys, serializations, rows of lists |
//! | `wizard` | drives one serialization |
//! | `pin` | passes PINs and recovery codes as file descriptors |
//! | `words` | values that a newer daemon may extend |
//! | `audit` | verifies an exported audit log |
//! | `error` | errors between a front-end and the daemon |
//! | `bin/keywrightctl` | the command-line front-end |
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
    Decision, GroupRow, IssuerRow, Key, KeyRow, LockRow, Outcome, RightRow, Serialization, State,
    WaitingRow,
};
pub use pin::Pin;
pub use wizard::{Situation, Wizard};
pub use words::Word;

/// Types of `keywright-proto` that appear in this API.
pub use keywright_proto::{ErrorName, Kind, Role, bus};

/// Compiles the example of `docs/front-ends.md`.
#[cfg(doctest)]
#[doc = include_str!("../../docs/front-ends.md")]
struct FrontEnds;
