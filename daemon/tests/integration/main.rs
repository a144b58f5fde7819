//! Stations with software keys and made-up tokens, a module for each subject. One program: it is linked once, and its
//! tests run beside each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod confirmations;
mod family;
mod known_keys;
mod merge;
mod pending_signatures;
mod roll_back;
mod station;
