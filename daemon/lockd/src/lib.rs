//! `keywright-lockd`, the Lock's daemon: it judges grants offline, trusting only its family's root, and writes the
//! lists that its host enforces.
//!
//! The path of a grant: it arrives (`inbox`, `link`), `gate` verifies it and asks `rules`, `store` saves it,
//! `outputs` writes the lists, the `hook` runs, and a signed confirmation goes out. Start reading in `gate.rs`.
//!
//! | file | what |
//! | --- | --- |
//! | `run` `service` | the running Lock: waits for grants, judges them, confirms them |
//! | `inbox` `outbox` `link` `in_flight` | grants and confirmations as files and over the link |
//! | `gate` `rules` `key` | verifies grants and decides which Keys are admitted |
//! | `store` `record` `exclusive` | the records on disk, and the lock on their directory |
//! | `outputs` `hook` `ssh` | lists for sshd and TLS servers, the administrator's hook, sshd's query |
//! | `identity` `membership` `joining` `port` | the Lock's own key, its certificate chain, and how it joins a family |
//! | `apply` | `keywright-lockd apply` |
//! | `clock` `uptime` `retry` | the two clocks, time that has certainly passed, when to retry |
//! | `config` `error` | settings, errors |
//!
//! Errors that a caller can only pass on, such as those of the operating system, are not described at each function.
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

use keywright_base::files;
pub use keywright_base::uptime;
