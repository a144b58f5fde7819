//! The Keywright daemon, one way through the house:
//! hotplug → presence → decision → serialization → token and registry; the bus stands above and only asks.
//! Start reading in `docs/architecture.md`.
//!
//! | module | what |
//! | --- | --- |
//! | [`bus`] | the D-Bus service: who calls, what is asked, what is shown |
//! | [`station`] | the one thread that owns [`keys`], [`jobs`] and [`families`]; [`outbox`] and [`view`]: what it shows |
//! | [`serialization`] | the write: what a job does to its tokens and to the registry, step by step |
//! | [`registry`] | what is kept on disk |
//! | [`trust`] [`pending_signatures`] [`queries`] | read from the registry: what is in force, what is still to be signed, lists and exports |
//! | [`link`] | Locks and other stations over an MQTT broker |
//! | [`audit`] [`journal`] | events of the log; the same in the system's journal |
//! | [`lifecycle`] [`supervisor`] | idle exit and delays; the service manager |
//! | [`config`] [`error`] [`caller`] | settings, refusals, who calls |
//!
//! The crates below: `keywright-proto` (formats), `keywright-rules` (pure rules), `keywright-token` (tokens and plugs),
//! `keywright-link` (the broker connection), `keywright-base` (log, clock, files).
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
