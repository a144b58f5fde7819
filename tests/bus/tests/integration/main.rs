//! The daemon on a private bus. All modules are linked into one test program, which runs them in
//! parallel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod audit;
mod cancels_and_races;
mod cards;
mod client_library;
mod command;
mod decisions;
mod demo;
mod family_files;
mod groups;
mod habits;
mod harness;
mod hostile_broker;
mod idle;
mod interruptions;
mod invalid_arguments;
mod link;
mod lock_certificates;
mod lock_port;
mod main_job;
mod pins;
mod registry_files;
mod removals;
mod revocation_delays;
mod revocations;
mod rights;
mod soft_keys;
mod stations;
mod suspend;
mod token_commands;
mod wizard;
