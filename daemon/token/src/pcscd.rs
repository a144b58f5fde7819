//! Detects whether pcscd is running.
//!
//! A connection to its socket would start pcscd by socket activation, so the daemon connects only if pcscd runs already.

use std::path::Path;

/// Whether pcscd's process runs or its systemd unit is active. `root` is `/`, except in tests.
pub fn is_active(root: &Path) -> bool {
    let pid = std::fs::read_to_string(root.join("run/pcscd/pcscd.pid")).unwrap_or_default();
    let alive = pid.trim().parse::<u32>().is_ok_and(|p| root.join(format!("proc/{p}")).exists());
    // A unit has a control group only while it is active.
    alive || root.join("sys/fs/cgroup/system.slice/pcscd.service").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pcscd_is_active_while_its_process_or_unit_lives() {
        for (files, expected) in [
            (&[][..], false),
            (&["run/pcscd/pcscd.pid"], false),
            (&["run/pcscd/pcscd.pid", "proc/42/stat"], true),
            (&["proc/42/stat"], false),
            (&["sys/fs/cgroup/system.slice/pcscd.service/cgroup.procs"], true),
        ] {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "42\n").unwrap();
            }
            assert_eq!(is_active(root.path()), expected, "{files:?}");
        }
    }
}
