//! The client library and `keywrightctl` against a made-up daemon. One program: it is linked once, and its
//! tests run beside each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod fake;
mod keywrightctl;
mod library;
