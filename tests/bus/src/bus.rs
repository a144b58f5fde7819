//! A private message bus.

use std::{
    fs,
    io::{BufRead, BufReader},
    num::NonZeroUsize,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use zbus::{Connection, connection};

/// Longer than the daemon may take for any answer.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A `dbus-daemon` that ends when this is dropped.
pub struct Bus {
    process: Child,
    address: String,
}

impl Bus {
    /// Starts a bus whose socket and configuration are in this directory.
    pub fn start(dir: &Path) -> Self {
        let config = dir.join("bus.conf");
        fs::write(&config, configuration(&dir.join("bus"))).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address")
            .arg("--config-file")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("bus.log")).unwrap())
            .spawn()
            .expect("dbus-daemon is installed (Debian: dbus-daemon)");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "dbus-daemon did not start");
        Self { process, address: address.trim().to_owned() }
    }

    /// Its address, for `keywrightd --bus`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A new connection to it.
    pub async fn connect(&self) -> Connection {
        connection::Builder::address(self.address.as_str())
            .method_timeout(CALL_LIMIT)
            // Signals queue here while a test does something else.
            .max_queued(NonZeroUsize::new(0x10000).unwrap())
            .build()
            .await
            .unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The configuration: our uid may do everything, as on a session bus.
fn configuration(socket: &Path) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#,
        socket.display()
    )
}
