//! Keywright's vocabulary: what a station, a Lock and a front-end have to agree on.
//!
//! No I/O, no clock, no async: everything here is a function of its arguments. Formats are
//! described for other implementers in `docs/formats.md`.
#![forbid(unsafe_code)]

pub mod bus;
pub mod error_name;
pub mod certificate;
pub mod chain;
pub mod crl;
pub mod csr;
pub mod id;
pub mod name;
pub mod pem;
pub mod profile;
pub mod public_key;
pub mod role;
#[cfg(test)]
mod test_keys;
pub mod unsigned;
pub mod uri;

pub use error_name::ErrorName;
pub use certificate::{Certificate, Claim};
pub use chain::verify_chain;
pub use crl::Crl;
pub use csr::read_csr;
pub use id::Id;
pub use name::check_name;
pub use public_key::PublicKey;
pub use role::{Kind, Role};
pub use unsigned::Unsigned;
pub use uri::Uri;
