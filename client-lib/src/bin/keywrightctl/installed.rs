//! Collects facts for `doctor`: which files of the packages are installed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, statvfs};

/// The user that the daemon runs as, and its group.
pub const USER: &str = "keywright";
/// Where the daemon keeps its state.
pub const STATE_DIR: &str = "/var/lib/keywright";
/// Reinstalls the package from its file, because no apt repository need have it.
pub const REINSTALL: &str = "sudo apt install --reinstall ./keywrightd_*.deb";

/// The state of the packaged files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// Whether the D-Bus policy is installed: without it the daemon cannot own its bus name.
    pub policy: bool,
    /// The udev rule: without it the daemon cannot open tokens.
    pub rule: Rule,
    /// The user's id, if the user exists.
    pub user: Option<u32>,
    /// Whether the group exists.
    pub group: bool,
    /// The state directory; None before the first start.
    pub state: Option<StateDir>,
}

/// State of the udev rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rule {
    /// Not installed.
    #[default]
    Missing,
    /// Masked by this file, which is empty or a link to /dev/null.
    Masked(PathBuf),
    /// Installed and not masked.
    Installed,
}

/// The daemon's state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDir {
    /// Its file system is mounted read-only.
    pub read_only: bool,
    /// Free space in bytes, without what is reserved for root.
    pub free: u64,
    /// The owner's user id.
    pub owner: u32,
}

/// Inspects the machine below `root`, which is `/` except in tests.
pub fn inspect(root: &Path) -> Installed {
    Installed {
        policy: ["usr/share/dbus-1/system.d", "etc/dbus-1/system.d"]
            .iter()
            .any(|directory| has_text(&root.join(directory).join("org.keywright1.conf"))),
        rule: rule(root),
        user: entry(&root.join("etc/passwd")).and_then(|fields| fields.get(2)?.parse().ok()),
        group: entry(&root.join("etc/group")).is_some(),
        state: state(&root.join(STATE_DIR.trim_start_matches('/'))),
    }
}

/// Finds the rule as udev(7) does: the first file of this name is effective; an empty one, or a link to /dev/null,
/// masks the others.
fn rule(root: &Path) -> Rule {
    let mut places = ["etc", "run", "usr/local/lib", "usr/lib", "lib"]
        .iter()
        .map(|directory| Path::new(directory).join("udev/rules.d/70-keywright.rules"));
    match places.find(|path| root.join(path).symlink_metadata().is_ok()) {
        None => Rule::Missing,
        Some(path) if has_text(&root.join(&path)) => Rule::Installed,
        Some(path) => Rule::Masked(Path::new("/").join(path)),
    }
}

fn has_text(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}

/// Returns the fields of [`USER`]'s line in a passwd or group file.
fn entry(file: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    lines.find(|fields| fields.first().is_some_and(|name| name == USER))
}

fn state(directory: &Path) -> Option<StateDir> {
    let metadata = fs::metadata(directory).ok()?;
    let system = statvfs(directory).ok()?;
    Some(StateDir {
        read_only: system.f_flag.contains(StatVfsMountFlags::RDONLY),
        free: system.f_bavail.saturating_mul(system.f_frsize),
        owner: metadata.uid(),
    })
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Writes a file below `root`, with its directories.
    pub fn put(root: &Path, file: &str, contents: impl AsRef<[u8]>) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    #[test]
    fn empty_machine_has_nothing_installed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(inspect(root.path()), Installed::default());
    }

    #[test]
    fn installed_files_are_found_and_a_masked_rule_too() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        put(root, "usr/share/dbus-1/system.d/org.keywright1.conf", "x");
        put(root, "lib/udev/rules.d/70-keywright.rules", "x");
        put(
            root,
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nkeywright:!:996:995:K:/var/lib/keywright:/bin/false\n",
        );
        put(root, "etc/group", "keywrights:x:1:\n");
        put(root, "var/lib/keywright/registry/db", "");
        let found = inspect(root);
        assert!(found.policy && found.rule == Rule::Installed && !found.group);
        assert_eq!(found.user, Some(996));
        let state = found.state.unwrap();
        assert!(!state.read_only && state.free > 0);

        // Masked by an administrator.
        fs::create_dir_all(root.join("etc/udev/rules.d")).unwrap();
        let mask = "etc/udev/rules.d/70-keywright.rules";
        symlink("/dev/null", root.join(mask)).unwrap();
        assert_eq!(inspect(root).rule, Rule::Masked(Path::new("/").join(mask)));
    }
}
