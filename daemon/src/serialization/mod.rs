//! Making one Key with another: what the person is asked, and what is then written.

pub mod card;
mod commit;
mod look;
pub mod order;
mod papers;
pub mod signing;
pub mod write;

pub use keywright_rules::{stage, wizard};

pub use crate::token::{random_serial, validity};
pub use commit::{left_behind, new_issuer, roll_back};
