//! The daemon on a private bus, a module for each subject. One program: it is linked once, and its
//! tests run beside each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod attack;
mod audit;
mod bad_input;
mod cards;
mod command;
mod decisions;
mod delays;
mod demo;
mod exchange;
mod groups;
mod harness;
mod hostile_broker;
mod idle;
mod interruptions;
mod link;
mod lock_certificates;
mod lock_port;
mod main_job;
mod pins;
mod registry_files;
mod removals;
mod revocations;
mod rights;
mod soft_keys;
mod stations;
mod suspend;
mod trust;
mod watching;
mod wizard;
