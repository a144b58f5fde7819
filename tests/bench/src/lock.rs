//! Measures an idle Lock with its link: memory, wake-ups and network traffic.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use keywright_bus_tests::{Station, broker::Broker, certs, lockd::Lockd};
use rustix::process::Pid;
use tokio::time::sleep;

use crate::{
    process,
    table::{Goal, Row},
};

/// Interval of the MQTT keep-alive in seconds: in the measurement, and by default.
const ASKED: (u64, u64) = (10, 300);
const DAY: u64 = 86_400;
/// Fewer bytes than a TLS handshake with certificates on both sides needs.
const HANDSHAKE: u64 = 2_000;

/// Watches an idle Lock for `window`.
pub async fn measure(window: Duration) -> Vec<Row> {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let mut lock = Lockd::add(&station, &master, "gate").await;
    let chain = station.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    let root = certs::certificates(&chain).pop().unwrap();
    let broker = Broker::start(station.dir.path(), &root);
    let (port, bytes) = counting(broker.port());
    lock.start_at(&format!("127.0.0.1:{port}"), &broker.ca(), ASKED.0, "");
    // Wait for the handshake and the first messages.
    while bytes.load(Ordering::Relaxed) < HANDSHAKE {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(3)).await;
    let pid = Pid::from_raw(lock.process().try_into().unwrap()).unwrap();
    let (before, passed) = (process::context_switches(pid), bytes.load(Ordering::Relaxed));
    sleep(window).await;
    let (after, passed) = (process::context_switches(pid), bytes.load(Ordering::Relaxed) - passed);
    let woken: u64 =
        after.iter().map(|(thread, n)| n - before.get(thread).copied().unwrap_or(0)).sum();
    let memory = process::memory(pid);
    let asked = window.as_secs() / ASKED.0;
    let day = passed / asked.max(1) * (DAY / ASKED.1) / 1024;
    let rows = [
        Row::memory("PSS (smaps_rollup)", Goal::at_most(6.0), memory.proportional),
        Row::memory("RSS (VmRSS)", Goal::NONE, memory.resident),
        Row::count(
            format!("wake-ups in {} s, the broker asked {asked} times", window.as_secs()),
            Goal::NONE,
            woken,
        ),
        Row::count(
            format!("bytes on the wire for {asked} times, TLS included, TCP/IP not"),
            Goal::NONE,
            passed,
        ),
        Row::count(
            format!("KiB a day, asked every {} s (calculated from that)", ASKED.1),
            Goal::at_most(100.0),
            day,
        ),
    ];
    rows.into_iter().map(|row| row.of("keywright-lockd idle, with the link")).collect()
}

/// Starts a proxy for the broker that counts the bytes in both directions; returns its port and the counter.
fn counting(broker: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&bytes);
    thread::spawn(move || {
        for inside in listener.incoming() {
            let inside = inside.unwrap();
            let outside = TcpStream::connect(("127.0.0.1", broker)).unwrap();
            for (from, to) in [(&inside, &outside), (&outside, &inside)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                thread::spawn(move || pass(from, to, &counted));
            }
        }
    });
    (port, bytes)
}

fn pass(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
