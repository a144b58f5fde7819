//! The daemon's rules: the state of a plugged-in Key ([`presence`]), which pairs are offered ([`decision`]), and the steps
//! of the wizard ([`wizard`]) with the stages of its write ([`stage`]).
//!
//! Every rule is a function of its arguments. This crate's `clippy.toml` forbids clocks, files, threads, sockets and
//! opening a token; async is impossible because no runtime is a dependency. From `keywright-token` the rules use what a
//! token claims ([`presence::Claims`]), as plain data.
#![forbid(unsafe_code)]

pub mod decision;
pub mod presence;
pub mod stage;
pub mod wizard;
