//! Locks as processes, and a station with a link to them.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use keywright_proto::read_csr;

use crate::{
    Plugged, Station,
    broker::Broker,
    certs,
    pins::{self, PIN},
    programs,
};

/// A `keywright-lockd` with its state directory; killed when dropped.
pub struct Lockd {
    /// The Lock's id.
    pub id: String,
    directory: PathBuf,
    process: Option<Child>,
}

impl Lockd {
    /// Adds a new Lock with this issuer. It is not running yet.
    pub async fn add(station: &Station, issuer: &Plugged, name: &str) -> Self {
        Self::add_below(station.dir.path(), station, issuer, name).await
    }

    /// Like [`Lockd::add`], with its state below this directory.
    pub async fn add_below(parent: &Path, station: &Station, issuer: &Plugged, name: &str) -> Self {
        let directory = parent.join(format!("lock-{name}"));
        fs::create_dir(&directory).unwrap();
        let request = run(&directory, &["request"], "");
        let manager = station.client.manager().await;
        let added = manager.add_lock(&issuer.path, name, &request, pins::pipe(PIN)).await;
        let (id, chain) = added.unwrap();
        run(&directory, &["claim", "-"], &chain);
        Self { id, directory, process: None }
    }

    /// A Lock that exists in this directory. It is not running yet.
    pub fn at(directory: PathBuf, id: String) -> Self {
        Self { id, directory, process: None }
    }

    /// A Lock without a family, and its request. It is not running yet.
    pub fn newcomer(station: &Station, name: &str) -> (Self, String) {
        let directory = station.dir.path().join(format!("lock-{name}"));
        fs::create_dir(&directory).unwrap();
        let request = run(&directory, &["request"], "");
        let id = read_csr(&request).unwrap().id().to_string();
        (Self { id, directory, process: None }, request)
    }

    /// Starts a Lock without a family, which waits at the broker for its certificate of this family.
    pub fn start_newcomer(&mut self, broker: &Broker, family: &str) {
        let (certificate, key) = broker.newcomer(&self.id);
        let shown =
            format!("certificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display());
        let family = format!("family = \"{family}\"");
        self.start_with(&broker.address(), &broker.ca(), &shown, &family);
    }

    /// Its certificate chain, PEM; empty if it has none.
    pub fn chain(&self) -> String {
        fs::read_to_string(self.directory.join("state/chain.pem")).unwrap_or_default()
    }

    /// Starts it with a link; `more` precedes the link in its configuration.
    pub fn start(&mut self, broker: &Broker, more: &str) {
        self.start_at(&broker.address(), &broker.ca(), 30, more);
    }

    /// Like [`Lockd::start`], with another address and this keep-alive interval in seconds.
    pub fn start_at(&mut self, address: &str, ca: &Path, keep_alive: u64, more: &str) {
        self.start_with(address, ca, &format!("keep_alive_seconds = {keep_alive}\n"), more);
    }

    fn start_with(&mut self, address: &str, ca: &Path, of_link: &str, more: &str) {
        let config = self.directory.join("lockd.toml");
        let link = format!("{more}\n[link]\nbroker = \"{address}\"\nca = \"{}\"\n", ca.display());
        fs::write(&config, link + of_link).unwrap();
        let log = File::create(self.directory.join("log")).unwrap();
        let process = command(&self.directory)
            .arg("--config")
            .arg(config)
            .arg("run")
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.unwrap());
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Its process id, while it runs.
    pub fn process(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// One of the lists that it writes for its host's servers.
    pub fn list(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join("state/lists").join(name)).unwrap_or_default()
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Lockd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(programs::find("keywright-lockd"));
    command.arg("--state-dir").arg(directory.join("state"));
    command
}

fn run(directory: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = command(directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "keywright-lockd {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

impl Station {
    /// Starts a broker for the family of this chain, and restarts the daemon with a link to it.
    pub async fn link(&mut self, chain: &str) -> Broker {
        let root = certs::certificates(chain).pop().unwrap();
        let broker = Broker::start(self.dir.path(), &root);
        self.join(&broker, broker.station()).await;
        broker
    }

    /// Restarts the daemon with a link to this broker, to which it presents this certificate.
    pub async fn join(&mut self, broker: &Broker, (certificate, key): (PathBuf, PathBuf)) {
        let config = format!(
            "[link]\nbroker = \"{}\"\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            broker.address(),
            broker.ca().display(),
            certificate.display(),
            key.display(),
        );
        let file = self.dir.path().join("keywrightd.toml");
        fs::write(&file, config).unwrap();
        self.launch.config = Some(file);
        assert!(self.daemon.stop().await.success());
        self.daemon = self.launch.start(self.client.connection()).await;
    }
}
