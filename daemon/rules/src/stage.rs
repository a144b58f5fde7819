//! The stages of a write, as they are shown while it runs.

pub use keywright_proto::words::Stage;
