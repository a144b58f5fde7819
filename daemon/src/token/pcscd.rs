//! Whether pcscd runs here. Nobody starts it for us: its socket, which would, is touched only while it runs already.

use std::path::Path;

/// Whether pcscd runs: its process, or its unit.
pub fn is_active(root: &Path) -> bool {
    let pid = std::fs::read_to_string(root.join("run/pcscd/pcscd.pid")).unwrap_or_default();
    let alive = pid.trim().parse::<u32>().is_ok_and(|p| root.join(format!("proc/{p}")).exists());
    // A unit has its control group exactly while it is active.
    alive || root.join("sys/fs/cgroup/system.slice/pcscd.service").exists()
}

/// Who has claimed a token that is busy, where that can be known cheaply.
pub fn holder(root: &Path) -> String {
    if is_active(root) { "pcscd".into() } else { "another program".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_holder_is_named_where_it_lives() {
        for (files, expected) in [
            (&[][..], "another program"),
            (&["run/pcscd/pcscd.pid"], "another program"),
            (&["run/pcscd/pcscd.pid", "proc/42/stat"], "pcscd"),
            (&["proc/42/stat"], "another program"),
            (&["sys/fs/cgroup/system.slice/pcscd.service/cgroup.procs"], "pcscd"),
        ] {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "42\n").unwrap();
            }
            assert_eq!(holder(root.path()), expected, "{files:?}");
        }
    }
}
