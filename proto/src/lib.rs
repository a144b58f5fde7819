//! What stations, Locks and front-ends have to agree on: formats, their verification, who is trusted, and the words of the
//! D-Bus interface.
//!
//! No I/O, no clock, no async: everything here is a function of its arguments. `docs/formats.md` describes the formats for
//! other implementers. Functions that read or verify bytes return an error that says what is wrong with them; the first
//! error ends the reading.
#![forbid(unsafe_code)]

pub mod audit;
pub mod bus;
pub mod card;
pub mod certificate;
pub mod chain;
pub mod confirmation;
mod cose;
pub mod crl;
pub mod csr;
pub mod error_name;
pub mod family;
pub mod grant;
pub mod id;
pub mod link;
pub mod name;
pub mod pem;
pub mod pieces;
pub mod profile;
pub mod public_key;
pub mod removal;
pub mod rights;
pub mod role;
pub mod statement;
#[cfg(test)]
mod test_keys;
pub mod tree;
pub mod trust;
pub mod unsigned;
pub mod uri;
pub mod words;

pub use card::Card;
pub use certificate::{Certificate, Claim};
pub use chain::verify_chain;
pub use confirmation::Confirmation;
pub use crl::Crl;
pub use csr::read_csr;
pub use error_name::ErrorName;
pub use family::SignedObjects;
pub use grant::{Grant, VerifiedGrant, verify_grant};
pub use id::Id;
pub use name::check_name;
pub use public_key::PublicKey;
pub use removal::{claimed_removal, removal, verify_removal};
pub use rights::RightState;
pub use role::{Kind, Role};
pub use statement::{
    RevokedIssuer, Statement, VerifiedStatement, denials_until, is_parked, next_version,
    verify_statement,
};
pub use tree::{Effect, Leaf, Target, Tree};
pub use trust::{Facts, Judgement, Standing};
pub use unsigned::Unsigned;
pub use uri::Uri;
