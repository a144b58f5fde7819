//! Stations with software keys and simulated tokens. All modules are linked into one test program, which runs them in
//! parallel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod confirmations;
mod delays;
mod family;
mod known_keys;
mod merge;
mod pending_signatures;
mod roll_back;
mod station;
