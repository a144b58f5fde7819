//! A Lock on a real mosquitto whose descriptors run out.

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

/// How many files it may open from now on; how many it might.
fn limit_files(of: &Running, to: Option<u64>) -> Option<u64> {
    let process = Pid::from_raw(of.id() as i32);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(process, Resource::Nofile, Rlimit { current: to, maximum }).unwrap().current
}

/// The connection is to be made anew, for a grant that could not be saved, and cannot be. It is tried again; what comes
/// meanwhile by the one that is there is heard.
#[test]
fn connection_is_kept_when_no_new_one_can_be_made() {
    let (ca, bob, eve, carol) = (Ca::at_depth(1), Key::new(30), Key::new(31), Key::new(32));
    let lock = Lock::of(&ca);
    let broker = Broker::start(lock.dir.path(), &pem_of(&ca.chain));
    let (running, log) = start(&lock, &broker);
    let mut station = Station::start(&broker);
    station.until(presence(&lock), |said| said == b"online");
    // There can be no record of Bob.
    let obstacle = lock.state().join(format!("keys/{}.cbor", hex::encode(bob.public().hash())));
    fs::create_dir(&obstacle).unwrap();
    station.grant(&lock, &bob, &lock.grant(&ca, &bob, 5, Allow));
    station.grant(&lock, &eve, &lock.grant(&ca, &eve, 5, Allow));
    station.confirmed(&lock, &eve, Allow, 5);
    fs::remove_dir(&obstacle).unwrap();

    let before = limit_files(&running, Some(0));
    // Of a file the name would be said.
    let is_refused = |line: &str| line.contains("Too many open files") && !line.contains('/');
    while !is_refused(&log.recv_timeout(LIMIT).expect("it connects anew after a while")) {}
    limit_files(&running, before);
    station.kept.remove(&presence(&lock).name());
    station.grant(&lock, &carol, &lock.grant(&ca, &carol, 5, Allow));
    station.confirmed(&lock, &carol, Allow, 5);
    assert!(!station.kept.contains_key(&presence(&lock).name()), "by the same connection");
    station.confirmed(&lock, &bob, Allow, 5);
}
