//! A Lock on a real mosquitto that runs out of file descriptors.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    sync::mpsc::{self, Receiver},
    thread,
};

use keywright_bus_tests::broker::Broker;
use keywright_proto::Effect::Allow;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::common::{
    Ca, Key, LIMIT, Lock, Running, pem_of,
    station::{Station, presence},
};

fn start(lock: &Lock, broker: &Broker) -> (Running, Receiver<String>) {
    let (log, write) = io::pipe().unwrap();
    let (address, ca) = (broker.address(), broker.ca());
    let config = format!("[link]\nbroker = \"{address}\"\nca = \"{}\"\n", ca.display());
    let running = lock.start_with_log(&config, write);
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            eprintln!("{line}");
            let _ = send.send(line);
        }
    });
    (running, lines)
}

/// Limits how many files the process may open from now on; returns the earlier limit.
fn limit_files(of: &Running, to: Option<u64>) -> Option<u64> {
    let process = Pid::from_raw(of.id() as i32);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(process, Resource::Nofile, Rlimit { current: to, maximum }).unwrap().current
}

/// The Lock has to reconnect for a grant that it could not save, and cannot. It keeps the present connection, handles
/// its messages, and tries again.
#[test]
fn connection_is_kept_when_no_new_one_can_be_made() {
    let (ca, bob, eve, carol) = (Ca::at_depth(1), Key::new(30), Key::new(31), Key::new(32));
    let lock = Lock::of(&ca);
    let broker = Broker::start(lock.dir.path(), &pem_of(&ca.chain));
    let (running, log) = start(&lock, &broker);
    let mut station = Station::start(&broker);
    station.until(presence(&lock), |payload| payload == b"online");
    // No record of Bob can be written.
    let obstacle = lock.state().join(format!("keys/{}.cbor", hex::encode(bob.public().hash())));
    fs::create_dir(&obstacle).unwrap();
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 5, Allow));
    station.grant(&lock, &eve, &lock.grant(&ca, &eve, 5, Allow));
    station.confirmed(&lock, &eve, Allow, 5);
    fs::remove_dir(&obstacle).unwrap();

    let before = limit_files(&running, Some(0));
    // An error about a file has its path.
    let is_refused = |line: &str| line.contains("Too many open files") && !line.contains('/');
    while !is_refused(&log.recv_timeout(LIMIT).expect("it connects reissued after a while")) {}
    limit_files(&running, before);
    station.kept.remove(&presence(&lock).name());
    station.grant(&lock, &carol, &lock.grant(&ca, &carol, 5, Allow));
    station.confirmed(&lock, &carol, Allow, 5);
    assert!(!station.kept.contains_key(&presence(&lock).name()), "by the same connection");
    station.confirmed(&lock, &bob, Allow, 5);
}
