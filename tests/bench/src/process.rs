//! What `/proc` says of a process: memory, and how often its threads were woken.

use std::{collections::BTreeMap, fs};

use rustix::process::Pid;

/// Memory, in kB (1024 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (VmRSS).
    pub resident: u64,
    /// The most that was ever resident (VmHWM).
    pub peak: u64,
    /// Resident now, pages shared with other processes divided among them.
    pub proportional: u64,
}

/// Context switches of a thread, both kinds: each is one time that it was put on a processor.
pub type ContextSwitches = BTreeMap<(u32, String), u64>;

/// A process's memory.
pub fn memory(pid: Pid) -> Memory {
    let status = read(pid, "status");
    let rollup = read(pid, "smaps_rollup");
    Memory {
        resident: field(&status, "VmRSS"),
        peak: field(&status, "VmHWM"),
        proportional: field(&rollup, "Pss"),
    }
}

/// Forgets the peak: from now on VmHWM is that of what follows (proc(5), `clear_refs`).
pub fn reset_peak(pid: Pid) {
    fs::write(format!("/proc/{}/clear_refs", pid.as_raw_nonzero()), "5").unwrap();
}

/// Context switches of all threads, by thread id and name.
pub fn context_switches(pid: Pid) -> ContextSwitches {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    statuses
        .map(|status| {
            let id = field(&status, "Pid").try_into().unwrap();
            let name = status.lines().next().and_then(|line| line.split('\t').nth(1));
            let both = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
            let count = both.iter().map(|name| field(&status, name)).sum();
            ((id, name.unwrap_or_default().to_owned()), count)
        })
        .collect()
}

fn read(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap()
}

/// The number in the line `<name>: <number> …`.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.and_then(|value| value.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).expect("a field of /proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_field_is_matched_by_its_whole_name() {
        let status = "Name:\tx\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nVmRSS:\t  12 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches"), 5);
        assert_eq!(field(status, "VmRSS"), 12);
    }

    #[test]
    fn own_process_has_memory_and_threads() {
        let pid = rustix::process::getpid();
        let memory = memory(pid);
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert!(!context_switches(pid).is_empty());
    }
}
