//! Making one Key with another: what the person is asked, and what is then written.

pub mod card;
mod closer_look;
mod commit;
pub mod order;
pub mod signing;
mod to_sign;
pub mod write;

pub use keywright_rules::{stage, wizard};

pub use commit::{left_behind, new_issuer, roll_back};
pub use keywright_token::{random_serial, validity};
