//! Runs a guest on a temporary overlay: booted, or restored from a saved state.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{Options, payload, qmp::Qmp};

const QEMU: &str = "qemu-system-x86_64";
/// Name of the saved state in its overlay.
const SAVED: &str = "booted";
const MEMORY: &str = "1024";
/// Limit for a boot, under emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const KERNEL_LINE: &str =
    "root=/dev/vda rw console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off audit=0";

/// Why the guest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// QEMU is missing.
    #[error(
        "{QEMU} cannot be started ({0}), so nothing was tested; install it with tests/machine/install-qemu"
    )]
    NoQemu(io::Error),
    /// The guest did not boot.
    #[error("the guest did not boot; its console ended with:\n{0}")]
    NoBoot(String),
    /// The command took too long.
    #[error("stopped after {} minutes", .0.as_secs() / 60)]
    TooLong(Duration),
    /// A file or process of the host failed.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

/// A running guest; killed when dropped.
pub struct Guest {
    qemu: Child,
    dir: TempDir,
    key: PathBuf,
    port: u16,
    restored: bool,
}

impl Guest {
    /// Starts a guest and waits until ssh works.
    pub fn start(options: &Options) -> Result<Self, GuestError> {
        let saved = options.image.join("booted.qcow2");
        if !options.fresh && saved.exists() {
            match Self::launch(options, Some(&saved)) {
                Ok(guest) => return Ok(guest),
                // Perhaps saved by another version of QEMU.
                Err(GuestError::NoBoot(_)) => {
                    let _ = fs::remove_file(&saved);
                }
                Err(error) => return Err(error),
            }
        }
        let guest = Self::launch(options, None)?;
        if !options.fresh {
            guest.save(&saved).map_err(|error| GuestError::Host("saving the guest", error))?;
        }
        Ok(guest)
    }

    fn launch(options: &Options, saved: Option<&Path>) -> Result<Self, GuestError> {
        let host = |what| move |error| GuestError::Host(what, error);
        let dir = TempDir::new().map_err(host("a directory"))?;
        let overlay = dir.path().join("disk.qcow2");
        match saved {
            Some(saved) => fs::copy(saved, &overlay).map(drop),
            None => make_overlay(&options.image.join("root.ext4"), &overlay),
        }
        .map_err(host("an overlay"))?;
        let payload = dir.path().join("payload.ext4");
        payload::make_disk(&options.payload, &payload).map_err(host("a disk of what was built"))?;
        let port = free_port().map_err(host("a TCP port"))?;
        Command::new(QEMU)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .map_err(GuestError::NoQemu)?;
        let qemu = command(options, dir.path(), port, saved.is_some())
            .stdin(Stdio::null())
            .spawn()
            .map_err(host("QEMU"))?;
        let key = options.image.join("ssh-key");
        let mut guest = Self { qemu, dir, key, port, restored: saved.is_some() };
        guest.wait_until_up()?;
        guest.set_clock();
        Ok(guest)
    }

    /// How it was started, for messages.
    pub fn how(&self) -> &'static str {
        if self.restored { "restored" } else { "booted" }
    }

    fn wait_until_up(&mut self) -> Result<(), GuestError> {
        let deadline = Instant::now() + BOOT_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.qemu.try_wait(), Ok(None)) {
                break;
            }
            let login = self.ssh("true").stderr(Stdio::null()).status();
            if login.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(300));
        }
        Err(GuestError::NoBoot(self.console()))
    }

    /// Sets the guest's clock, which is wrong after a restore.
    fn set_clock(&self) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let _ = self.ssh(&format!("date -s @{now} >/dev/null")).status();
    }

    /// Saves the guest's state for later runs.
    fn save(&self, saved: &Path) -> io::Result<()> {
        let mut qmp = Qmp::connect(&self.dir.path().join("qmp"))?;
        qmp.monitor(&format!("savevm {SAVED}"))?;
        // The guest is stopped while its disk is copied.
        qmp.execute("stop", json!({}))?;
        let half = saved.with_extension("half");
        fs::copy(self.dir.path().join("disk.qcow2"), &half)?;
        qmp.execute("cont", json!({}))?;
        fs::rename(half, saved)
    }

    /// Runs a command in the guest with the payload mounted, on this program's standard output and error. True if its
    /// exit status is 0.
    ///
    /// # Errors
    /// [`GuestError::TooLong`] after `limit`.
    pub fn run(&self, command: &str, limit: Duration) -> Result<bool, GuestError> {
        let line = format!(
            "mkdir -p /payload && mount -o ro /dev/vdb /payload && cd /payload && {command}"
        );
        let host = |error| GuestError::Host("ssh", error);
        let mut ssh = self.ssh(&line).spawn().map_err(host)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = ssh.try_wait().map_err(host)? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                let _ = ssh.kill();
                let _ = ssh.wait();
                return Err(GuestError::TooLong(limit));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn ssh(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-q", "-p", &self.port.to_string(), "-i"]).arg(&self.key);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=30",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["root@127.0.0.1", "--", command]).stdin(Stdio::null());
        ssh
    }

    fn console(&self) -> String {
        let text = fs::read(self.dir.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Killing is safe: the overlay is deleted.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn make_overlay(root: &Path, overlay: &Path) -> io::Result<()> {
    let root = root.canonicalize()?;
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&root, overlay])
        .status()?;
    if made.success() { Ok(()) } else { Err(io::Error::other("qemu-img failed")) }
}

fn command(options: &Options, dir: &Path, port: u16, restore: bool) -> Command {
    let file = |name: &str| dir.join(name).display().to_string();
    let image = |name: &str| options.image.join(name).display().to_string();
    // QEMU is killed when this program ends, however it ends.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", QEMU]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.args(["-machine", "q35", "-m", MEMORY, "-smp", &options.processors.to_string()]);
    if has_kvm() {
        qemu.args(["-accel", "kvm", "-cpu", "host"]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    }
    qemu.args(["-kernel", &image("vmlinuz"), "-initrd", &image("initrd.img")]);
    qemu.args(["-append", KERNEL_LINE]);
    for (id, file, format, read_only) in
        [("d0", file("disk.qcow2"), "qcow2", "off"), ("d1", file("payload.ext4"), "raw", "on")]
    {
        let drive = format!(
            "if=none,id={id},file={file},format={format},cache=unsafe,readonly={read_only}"
        );
        qemu.args(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}")]);
    }
    qemu.args(["-netdev", &format!("user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:22")]);
    qemu.args(["-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci"]);
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", file("qmp"))]);
    qemu.args(["-serial", &format!("file:{}", file("console"))]);
    if restore {
        qemu.args(["-loadvm", SAVED]);
    }
    qemu
}

/// Whether KVM works. /dev/kvm alone is no proof: it may exist and not run an unmodified kernel.
fn has_kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtual_machines = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    virtual_machines && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Finds a free TCP port, which QEMU then binds.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
