//! What keywrightd and keywright-lockd share: logging, clock, uptime, atomic files, instance lock, and back-off. Nothing here
//! knows about Keys.
#![forbid(unsafe_code)]

mod back_off;
pub mod clock;
mod config;
pub mod files;
mod instance_lock;
mod log;
pub mod uptime;

pub use back_off::{BackOff, jitter};
pub use config::toml_error_in_one_line;
pub use instance_lock::InstanceLock;
pub use log::start_log;
