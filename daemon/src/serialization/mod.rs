//! Making one Key with another: the write that runs after the person's review.
//!
//! | file | what |
//! | --- | --- |
//! | `order` | what a write is given, what it reports, and how it can end |
//! | `write` | runs the steps of a write in their order |
//! | `closer_look` | checks after the PIN that a token that looked blank is not in use |
//! | `to_sign` | signs a job's objects: certificates, the first CRL, the statement |
//! | `commit` | commits a finished write to the registry; rolls a job back |
//! | `card` | chooses the Locks on a family's card, and writes the card |
//! | `signing` | signs with an issuing Key outside of a serialization |

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
