//! Reads a process's memory and context switches from `/proc`.

use std::{collections::BTreeMap, fs};

use rustix::process::Pid;

/// Memory, in kB (1024 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory (VmRSS).
    pub resident: u64,
    /// Peak of resident memory (VmHWM).
    pub peak: u64,
    /// Proportional set size (Pss): shared pages are divided among the processes that share them.
    pub proportional: u64,
}

/// Voluntary and involuntary context switches of each thread, by thread id and name: how often it was scheduled.
pub type ContextSwitches = BTreeMap<(u32, String), u64>;

/// Returns a process's memory.
pub fn memory(pid: Pid) -> Memory {
    let status = read(pid, "status");
    let rollup = read(pid, "smaps_rollup");
    Memory {
        resident: field(&status, "VmRSS"),
        peak: field(&status, "VmHWM"),
        proportional: field(&rollup, "Pss"),
    }
}

/// Resets the peak VmHWM (proc(5), `clear_refs`).
pub fn reset_peak(pid: Pid) {
    fs::write(format!("/proc/{}/clear_refs", pid.as_raw_nonzero()), "5").unwrap();
}

/// Returns the context switches of all threads of a process.
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

/// Returns the number in the line `<name>: <number> …`.
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
