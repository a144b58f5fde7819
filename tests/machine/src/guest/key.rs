//! Plugs virtual Keys into USB ports.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use keywright_bus_tests::programs;

use crate::vhci;

/// A Key that is plugged in; pulled out when dropped.
pub struct UsbKey {
    process: Child,
    /// Its port of the hub.
    pub port: usize,
}

impl UsbKey {
    /// Plugs a Key with this memory file and serial into a port. `options` are more arguments for `virtual-key`.
    pub fn plug(memory: &Path, serial: &str, port: usize, options: &[&str]) -> Self {
        let mut process = Command::new(programs::find("virtual-key"))
            .args(["--usbip", "0", "--serial", serial, "--state"])
            .arg(memory)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let tcp_port = line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok());
        vhci::plug(tcp_port.unwrap_or_else(|| panic!("virtual-key says {line:?}")), port);
        Self { process, port }
    }
}

impl Drop for UsbKey {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            vhci::wait_until_free(self.port);
        }
    }
}
