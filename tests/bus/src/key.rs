//! The virtual Key as a process.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::programs;

/// A Key that is plugged in; pulled out when dropped.
pub struct VirtualKey(Child);

impl VirtualKey {
    /// Plugs a Key into the reader that listens on a socket. Creates its memory file if there is
    /// none; the serial determines its GUID. `options` are more arguments for the program.
    pub fn plug(reader: &Path, state: &Path, serial: &str, options: &[&str]) -> Self {
        let process = Command::new(programs::find("virtual-key"))
            .arg("--socket")
            .arg(reader)
            .arg("--state")
            .arg(state)
            .arg("--serial")
            .arg(serial)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(process)
    }

    /// Pulls it out, even during a command.
    pub fn unplug(self) {}
}

impl Drop for VirtualKey {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
