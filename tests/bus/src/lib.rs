//! The daemon on a private bus, with real PIV firmware behind its virtual reader, driven by a
//! client that is written against `docs/dbus.md` alone.
//!
//! A test starts a [`Station`], plugs Keys into it and calls its [`Client`]; it waits with
//! [`Watch`], for signals and never for time. A [`card::Script`] imitates misbehaviour that the firmware lacks.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

/// Far longer than any step takes, even on a busy or emulated machine: a test that waits this long has found a defect.
pub const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

pub mod api;
pub mod broker;
pub mod bus;
pub mod card;
pub mod certs;
pub mod client;
pub mod command;
pub mod daemon;
pub mod error_monitor;
pub mod gate;
pub mod job;
pub mod key;
pub mod lockd;
pub mod objects;
pub mod pins;
pub mod port;
pub mod programs;
pub mod station;
pub mod watch;

pub use client::Client;
pub use gate::Gate;
pub use job::{Answers, Ended, Pins};
pub use objects::{Object, Objects};
pub use station::{Plugged, Station};
pub use watch::Watch;
