//! The stages of a write, which the daemon publishes while the write runs.

pub use keywright_proto::words::Stage;
