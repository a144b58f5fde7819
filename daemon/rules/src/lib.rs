//! Rules of the daemon: what a present Key is ([`presence`]), which pairs are offered ([`decision`]), and the steps of the
//! wizard ([`wizard`]) with the stages of its write ([`stage`]).
//!
//! Every rule is a function of its arguments. Clocks, files, threads and sockets are kept out by this crate's
//! `clippy.toml`, and async by its dependencies.
#![forbid(unsafe_code)]

pub mod decision;
pub mod presence;
pub mod stage;
pub mod wizard;
