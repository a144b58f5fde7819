//! The Keywright daemon, one way through the house:
//! hotplug → presence → decision → serialization → token and registry; the bus stands above and only asks.
//! Start reading in `docs/architecture.md`.
#![forbid(unsafe_code)]

pub mod audit;
pub mod bus;
pub mod caller;
pub mod config;
pub mod error;
pub mod families;
pub mod jobs;
pub mod journal;
pub mod keys;
pub mod lifecycle;
pub mod link;
pub mod outbox;
pub mod pending_signatures;
pub mod queries;
pub mod registry;
pub mod serialization;
pub mod station;
pub mod supervisor;
pub mod trust;
pub mod view;
