//! Keywright's vocabulary: what a station, a Lock and a front-end have to agree on.
//!
//! No I/O, no clock, no async: everything here is a function of its arguments. Formats are
//! described for other implementers in `docs/formats.md`.
#![forbid(unsafe_code)]

pub mod bus;
pub mod error_name;
pub mod id;
pub mod role;

pub use error_name::ErrorName;
pub use id::Id;
pub use role::{Kind, Role};
