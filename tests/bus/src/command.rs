//! Runs `keywrightctl` as a script does, and at a pseudo-terminal as a person does.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{Station, programs};

/// Far longer than any command takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of a command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Panics unless the exit status is 0.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self
    }

    /// Its standard output, parsed as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.done().stdout).unwrap()
    }
}

impl Station {
    /// Runs `keywrightctl`; words that begin with `@` are files of the station's directory.
    pub async fn ctl(&self, arguments: &[&str]) -> Ran {
        let output = timeout(LIMIT, self.ctl_command(arguments).output());
        let output = output.await.expect("keywrightctl ends").unwrap();
        Ran {
            status: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// A file of the station's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the station's directory.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// Starts `keywrightctl --json watch`.
    pub fn ctl_watch(&self) -> Events {
        let mut process = self.ctl_command(&["--json", "watch"]).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Events { lines, seen: Vec::new(), _process: process }
    }

    /// Starts `keywrightctl` at a pseudo-terminal.
    pub fn ctl_at_terminal(&self, arguments: &str) -> Terminal {
        let program = programs::find("keywrightctl");
        let line = format!("'{}' --bus '{}' {arguments}", program.display(), self.bus.address());
        let mut process = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("script is installed (Debian: bsdutils)");
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Terminal { process, to, from, screen: String::new(), read: 0 }
    }

    fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::find("keywrightctl"));
        command.args(["--bus", self.bus.address()]);
        for word in arguments {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.file(name)),
                None => command.arg(word),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }
}

/// A running `watch`.
pub struct Events {
    lines: Lines<BufReader<ChildStdout>>,
    /// Events that were received and not waited for yet.
    seen: Vec<Value>,
    _process: Child,
}

impl Events {
    /// Waits for an event that `check` accepts, among those not waited for yet.
    ///
    /// Panics with the events received so far if none arrives in time.
    pub async fn until(&mut self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.seen.iter().position(&check) {
            return self.seen.remove(at);
        }
        loop {
            let line = timeout(LIMIT, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("no {what} among: {:?}", self.seen));
            let event = serde_json::from_str(&line.unwrap().expect("watch goes on")).unwrap();
            if check(&event) {
                return event;
            }
            self.seen.push(event);
        }
    }
}

/// A person at a terminal.
pub struct Terminal {
    process: Child,
    to: ChildStdin,
    from: ChildStdout,
    screen: String,
    /// How much of the screen [`Terminal::see`] has consumed.
    read: usize,
}

impl Terminal {
    /// Waits for this text after the text waited for last, and types a line.
    pub async fn answer(&mut self, question: &str, answer: &str) {
        self.see(question).await;
        self.to.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }

    /// Waits for this text after the text waited for last.
    pub async fn see(&mut self, text: &str) {
        loop {
            if let Some(at) = self.screen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(self.more().await, "no {text:?} on:\n{}", self.screen);
        }
    }

    /// Waits until the command ends; returns its exit status and the whole screen.
    pub async fn end(mut self) -> (i32, String) {
        while self.more().await {}
        let status = timeout(LIMIT, self.process.wait()).await.expect("it ends").unwrap();
        (status.code().unwrap(), self.screen)
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = timeout(LIMIT, self.from.read(&mut bytes)).await;
        let length = read.unwrap_or_else(|_| panic!("nothing more on:\n{}", self.screen)).unwrap();
        self.screen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        length > 0
    }
}
