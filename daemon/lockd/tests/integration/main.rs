//! `keywright-lockd` as a library, as a program and with real servers, a module for each subject. One program: it is linked once, and its
//! tests run beside each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod bounds;
mod certificates;
mod clocks;
mod common;
mod delay;
mod descriptors;
mod grants;
mod link;
mod nginx;
mod service;
mod ssh;
