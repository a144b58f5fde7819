//! Free loopback ports, for servers whose port must be configured.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that the kernel gives to outgoing connections, above those of `tests/demo/run.sh`: no other program
/// takes one before the server listens, or while it restarts.
const FIRST: u16 = 30_000;
const COUNT: u16 = 2_768;

/// A port on which nothing listens and which no other test of this process gets.
pub fn free() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time start far from each other.
    let start = (process::id().wrapping_mul(997) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + offset) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}
