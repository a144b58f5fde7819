//! A client of the QEMU Machine Protocol (QMP): runs one command at a time.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

/// Limit for a reply; saving the guest's memory takes longest.
const LIMIT: Duration = Duration::from_secs(120);

/// A connection to QEMU.
pub struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket and negotiates capabilities.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut qmp = Self { lines: BufReader::new(stream.try_clone()?), stream };
        qmp.next()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command.
    ///
    /// # Errors
    /// QEMU's refusal, and errors of the socket.
    pub fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.next()?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("QEMU refuses {command}: {error}")));
            }
            // Skips events.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Executes a command of the human monitor, whose output is empty on success.
    ///
    /// # Errors
    /// The output, and errors of the socket.
    pub fn monitor(&mut self, line: &str) -> io::Result<()> {
        match self.execute("human-monitor-command", json!({ "command-line": line }))? {
            Value::String(text) if !text.is_empty() => Err(io::Error::other(text)),
            _ => Ok(()),
        }
    }

    fn next(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
