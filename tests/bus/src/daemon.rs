//! The daemon as a process.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
};

use futures_util::StreamExt;
use rustix::process::{Pid, Signal};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use zbus::{Connection, fdo::DBusProxy};

use crate::{LIMIT, api::NAME, programs};

/// How the daemon is started.
#[derive(Clone)]
pub struct Launch {
    /// The bus's address.
    pub bus: String,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// The virtual reader's socket.
    pub reader: PathBuf,
    /// A configuration file, if any.
    pub config: Option<PathBuf>,
    /// The socket of a service manager, if any.
    pub notify: Option<PathBuf>,
    /// The file for its standard error.
    pub log: PathBuf,
}

/// A running daemon; killed when dropped. If a failing test drops it, its log is printed.
pub struct Daemon {
    launch: Launch,
    process: Child,
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = Command::new(programs::find("keywrightd"));
        command.arg("--bus").arg(&self.bus);
        command.arg("--state-dir").arg(&self.state_dir);
        command.arg("--virtual-reader").arg(&self.reader);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        match &self.notify {
            Some(notify) => command.env("NOTIFY_SOCKET", notify),
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        // As in keywrightd.service, so that memory is measured as for the installed daemon.
        command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "131072");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts it and returns when its name is on the bus.
    ///
    /// Panics with its log if it ends instead.
    pub async fn start(&self, connection: &Connection) -> Daemon {
        let dbus = DBusProxy::new(connection).await.unwrap();
        let mut owners = dbus.receive_name_owner_changed_with_args(&[(0, NAME)]).await.unwrap();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut process = self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let appears = async {
            while let Some(change) = owners.next().await {
                if change.args().unwrap().new_owner().is_some() {
                    return;
                }
            }
        };
        tokio::select! {
            status = process.wait() => panic!("keywrightd ended with {}:\n{}", status.unwrap(), self.log()),
            started = timeout(LIMIT, appears) => {
                assert!(started.is_ok(), "keywrightd did not take its name:\n{}", self.log());
            }
        }
        Daemon { launch: self.clone(), process }
    }

    /// Starts a daemon that is expected to end by itself, and returns its output.
    pub async fn run_to_end(&self) -> Output {
        let end = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        timeout(LIMIT, end).await.expect("keywrightd went on running").unwrap()
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        let id = self.process.id().expect("it was not waited for");
        Pid::from_raw(id.try_into().unwrap()).unwrap()
    }

    /// Kills it with SIGKILL, and returns when the process has ended.
    pub async fn kill_9(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Asks it to end (SIGTERM).
    pub async fn stop(&mut self) -> ExitStatus {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
        timeout(LIMIT, self.process.wait()).await.expect("SIGTERM is obeyed").unwrap()
    }

    /// Waits until the process has ended, for whatever reason.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(LIMIT, self.process.wait()).await.expect("it ends").unwrap()
    }

    /// Starts it again in the same way, after it has ended.
    pub async fn restart(&mut self, connection: &Connection) {
        *self = self.launch.clone().start(connection).await;
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        self.launch.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- keywrightd's log ---\n{}---", self.log());
        }
    }
}
