//! The demo (`make demo`) succeeds, and leaves no process and no file, however it ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use keywright_bus_tests::programs;
use tempfile::TempDir;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/run.sh");
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn demo_succeeds_and_leaves_no_file() {
    let place = TempDir::new().unwrap();
    let output = Command::new(DEMO)
        .env("DEMO_PROGRAMS", built())
        .env("TMPDIR", place.path())
        .output()
        .expect("bash is installed");
    let told = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{told}\n{failed}", output.status);
    // Three Keys and three Locks.
    assert_eq!(told.matches(".pem: OK").count(), 6, "{told}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{told}");
}

#[test]
fn closing_the_terminal_leaves_nothing_behind() {
    let mut demo = Interactive::start();
    // script(1) holds the terminal's other end.
    demo.terminal.kill().unwrap();
    demo.wait_until_nothing_is_left();
}

#[test]
fn killing_the_shell_leaves_nothing_behind() {
    let demo = Interactive::start();
    demo.send_to_shell("KILL");
    demo.wait_until_nothing_is_left();
}

#[test]
fn signal_to_the_shell_alone_leaves_nothing_behind() {
    for signal in ["HUP", "TERM"] {
        let demo = Interactive::start();
        demo.send_to_shell(signal);
        demo.wait_until_nothing_is_left();
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let mut demo = Interactive::start();
    demo.terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    demo.wait_until_nothing_is_left();
}

/// The demo on a terminal of its own, where its wizard asks the first question.
struct Interactive {
    terminal: Child,
    place: TempDir,
}

impl Interactive {
    fn start() -> Self {
        let place = TempDir::new().unwrap();
        let mut terminal = Command::new("script")
            .args(["--quiet", "--command", &format!("exec {DEMO} --interactive"), "/dev/null"])
            .env("DEMO_PROGRAMS", built())
            .env("TMPDIR", place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) is installed");
        let mut output = terminal.stdout.take().unwrap();
        let (mut told, mut piece) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&told).contains("Backup or sub?") {
            let length = output.read(&mut piece).unwrap();
            assert_ne!(length, 0, "{}", String::from_utf8_lossy(&told));
            told.extend_from_slice(&piece[..length]);
        }
        // Reads on, so that the demo's output never blocks while the terminal is open.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let demo = Self { terminal, place };
        assert_ne!(demo.processes(), [""; 0]);
        demo
    }

    fn send_to_shell(&self, signal: &str) {
        // The child of script(1); its subshells have the same command line.
        let mut all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let shell = all.find(|process| {
            self.owns(process)
                && command_line(process).contains("bash ")
                && parent(process)
                    .is_some_and(|parent| command_line(&parent).starts_with("script "))
        });
        let id = shell.unwrap().file_name().unwrap().to_owned();
        let status = Command::new("kill").arg(format!("-{signal}")).arg(id).status().unwrap();
        assert!(status.success());
    }

    /// The command lines of the demo's processes.
    fn processes(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        all.filter(|process| self.owns(process)).map(|process| command_line(&process)).collect()
    }

    /// Whether a process, as a directory of /proc, has this demo's environment.
    fn owns(&self, process: &Path) -> bool {
        let place = format!("TMPDIR={}", self.place.path().display());
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == place.as_bytes())
    }

    fn wait_until_nothing_is_left(mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            // script(1) itself has the environment too, until it is waited for.
            let _ = self.terminal.try_wait();
            let (processes, files) =
                (self.processes(), fs::read_dir(self.place.path()).unwrap().count());
            if processes.is_empty() && files == 0 {
                return;
            }
            assert!(Instant::now() < end, "{files} files left, and {processes:#?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
    }
}

fn command_line(process: &Path) -> String {
    String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default())
        .replace('\0', " ")
}

fn parent(process: &Path) -> Option<PathBuf> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let id = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(Path::new("/proc").join(id.trim()))
}

/// The directory of the built programs.
fn built() -> PathBuf {
    for program in ["keywrightctl", "keywright-lockd", "virtual-key"] {
        programs::find(program);
    }
    programs::find("keywrightd").parent().unwrap().to_owned()
}
