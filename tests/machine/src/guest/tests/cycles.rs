//! Plugged in and pulled out again and again: nothing piles up in the daemon.

use std::{fs, sync::OnceLock};

use crate::{
    machine::{MASTER, Machine},
    system,
};

/// How often two Keys are plugged in and pulled out.
pub static CYCLES: OnceLock<usize> = OnceLock::new();

/// What the first cycles leave behind for good: pools, caches.
const WARM_UP: usize = 10;
/// By how much the memory may differ, in KiB: pages that the allocator has not given back.
const SLACK: usize = 512;

/// Of the daemon's process.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    memory: usize,
}

fn held() -> Held {
    let process = system::unit("MainPID");
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let number = |text: String, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Held {
        descriptors: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
        threads: number(read("status"), "Threads:"),
        // Of its own: what is mapped of programs and libraries comes and goes as the machine has memory. And counted page
        // by page: VmRSS is behind by what each thread has not reported yet.
        memory: number(read("smaps_rollup"), "Anonymous:"),
    }
}

async fn cycle(machine: &mut Machine, times: usize) {
    for _ in 0..times {
        let (master, blank) = (machine.insert(MASTER, &[]), machine.insert("blank", &[]));
        let master = machine.seen(MASTER, master).await;
        let blank = machine.seen("blank", blank).await;
        machine.offer(&master, &blank).await;
        machine.unplug(master).await;
        machine.unplug(blank).await;
    }
}

pub async fn fifty_cycles_of_two_keys_leave_nothing_behind() {
    let cycles = *CYCLES.get_or_init(|| 50);
    let mut machine = Machine::with_absent_master().await;
    let process = system::unit("MainPID");
    cycle(&mut machine, WARM_UP).await;
    let before = held();
    cycle(&mut machine, cycles).await;
    let after = held();
    println!("       {cycles} cycles: {before:?}, then {after:?}");
    assert_eq!(system::unit("MainPID"), process, "it is the same daemon");
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.threads <= before.threads, "{before:?} {after:?}");
    assert!(after.memory <= before.memory + SLACK, "{before:?} {after:?}");
}
