//! What is signed and who is believed, through the public interface; a module for each subject. One program: it is linked once, and its
//! tests run beside each other.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests read files and run openssl"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod authorities;
mod cards;
mod chains;
#[path = "../common/mod.rs"]
mod common;
mod family;
mod hostile;
mod requests;
mod statements;
mod vectors;
