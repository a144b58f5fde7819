//! Tests that the daemon leaks nothing while Keys are plugged in and pulled out many times.

use std::{
    fs,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    machine::{MASTER, Machine},
    system,
};

/// Number of cycles given on the command line.
pub static CYCLES: OnceLock<u32> = OnceLock::new();

/// Number of cycles: as given on the command line, or 30.
pub fn cycles() -> u32 {
    *CYCLES.get_or_init(|| 30)
}

/// How much the heap may grow, in KiB: memory that the allocator has not returned, as in `make bench`. It grows ever more
/// slowly; the allocations in it do not grow (docs/benchmarks.md).
const HEAP: usize = 512;
/// How much the mapped memory may grow, in KiB: sled fills segments of 512 KiB page by page.
const MAPPED: usize = 640;
/// How long the last reads may take to end.
const ENDING: Duration = Duration::from_secs(30);

/// Resources of the daemon's process.
#[derive(Debug)]
struct ProcessUsage {
    descriptors: usize,
    threads: usize,
    /// Anonymous memory in KiB, because mapped files depend on the machine's free memory. Counted from smaps, because
    /// VmRSS lags behind.
    heap: usize,
    mapped: usize,
}

fn usage() -> ProcessUsage {
    let process = system::unit("MainPID");
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let number = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
    // sled's pool starts and ends its threads on demand.
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    let threads = names.filter(|name| !name.starts_with("sled-io")).count();
    let (mut in_heap, mut heap, mut mapped) = (false, 0, 0);
    for line in read("smaps").lines() {
        match line.split_once(' ') {
            Some(("Anonymous:", _)) if in_heap => heap += number(line),
            Some(("Anonymous:", _)) => mapped += number(line),
            // The header of a mapping: range, permissions, offset, device, inode, name.
            Some((range, _)) if range.contains('-') => in_heap = line.ends_with("[heap]"),
            _ => {}
        }
    }
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    ProcessUsage { descriptors, threads, heap, mapped }
}

async fn cycle(machine: &mut Machine, times: u32) {
    for _ in 0..times {
        let (master, blank) = (machine.insert(MASTER, &[]), machine.insert("blank", &[]));
        let master = machine.until_shown(MASTER, master).await;
        let blank = machine.until_shown("blank", blank).await;
        machine.offer(&master, &blank).await;
        machine.unplug(master).await;
        machine.unplug(blank).await;
    }
}

pub async fn plug_cycles_leak_nothing() {
    let cycles = cycles();
    let mut machine = Machine::with_absent_master().await;
    let process = system::unit("MainPID");
    // The first cycles fill pools and caches.
    cycle(&mut machine, cycles / 3).await;
    let before = usage();
    cycle(&mut machine, cycles).await;
    // The last reads may not have ended yet.
    let end = Instant::now() + ENDING;
    let after = loop {
        let after = usage();
        let ended = after.descriptors <= before.descriptors && after.threads <= before.threads;
        if ended || Instant::now() > end {
            break after;
        }
        sleep(Duration::from_millis(100)).await;
    };
    println!("       {cycles} cycles: {before:?}, then {after:?}");
    assert_eq!(system::unit("MainPID"), process, "the daemon was not restarted");
    assert!(after.descriptors <= before.descriptors, "{before:?} {after:?}");
    assert!(after.threads <= before.threads, "{before:?} {after:?}");
    assert!(after.heap <= before.heap + HEAP, "{before:?} {after:?}");
    assert!(after.mapped <= before.mapped + MAPPED, "{before:?} {after:?}");
}
