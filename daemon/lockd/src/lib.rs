//! The Lock's own program, `keywright-lockd`: it judges what it is told about Keys, offline and with nothing but its
//! family's root, and writes what its host enforces.
//!
//! One way through it: a grant comes in (`inbox`, `link`) → `gate` asks `rules` → `store` keeps it → `outputs` are
//! written and the `hook` runs → a signed confirmation goes out. Start reading in `gate.rs`.
#![forbid(unsafe_code)]

pub mod apply;
pub mod clock;
pub mod config;
pub mod error;
pub mod exclusive;
#[cfg(test)]
#[path = "../../../proto/tests/common/mod.rs"]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod family;
pub mod gate;
pub mod hook;
pub mod identity;
pub mod in_flight;
pub mod inbox;
pub mod joining;
pub mod key;
pub mod link;

pub mod membership;
pub mod outbox;
pub mod outputs;
pub mod port;
pub mod record;
pub mod retry;
pub mod rules;
pub mod run;
pub mod service;
pub mod ssh;
pub mod store;
pub mod uptime;

use keywright_base::files;
