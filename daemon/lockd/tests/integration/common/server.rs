//! Real servers on a loopback port, and software keys in files.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use p256::{
    SecretKey,
    pkcs8::{EncodePrivateKey, LineEnding},
};

use super::LIMIT;

/// A server; killed when dropped.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    /// Starts the server; [`Server::until`] reads its standard error.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let from = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            from.lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        Self { child, lines }
    }

    /// Waits for a line with this text on standard error.
    pub fn until(&self, text: &str) {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => lines.push(line),
                Err(_) => panic!("no {text:?} among: {}", lines.join("\n")),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM also ends its workers.
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Writes the private key of the test key with this number to a file that ssh and openssl can read.
pub fn key_file(directory: &Path, number: u8) -> PathBuf {
    let path = directory.join(format!("key-{number}"));
    let key = SecretKey::from_slice(&[number; 32]).unwrap();
    fs::write(&path, key.to_pkcs8_pem(LineEnding::LF).unwrap()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Whether the test runs as root, which its server needs; prints a note if not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!(
            "not run: sshd's AuthorizedKeysCommand wants a program of root's; run the tests as root"
        );
    }
    root
}
