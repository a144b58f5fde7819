//! On what the figures were measured.

use std::fs;

/// Processor, number of processors, kernel, and how busy the machine was with this and anything else.
pub fn describe() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let built = if cfg!(debug_assertions) { "; DEBUG BUILD" } else { "" };
    format!("{model}, {count} processors, Linux {release}, load {load}{built}")
}
