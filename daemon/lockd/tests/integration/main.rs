//! `keywright-lockd` as a library, as a program and with real servers. All modules are linked into one test program,
//! which runs them in parallel.
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
mod issuers;
mod link;
mod memory;
mod nginx;
mod service;
mod ssh;
mod theft;
