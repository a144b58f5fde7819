//! A real mosquitto on a loopback port: TLS with a certificate on both sides, persistence on, and each Lock held to its
//! own topics.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::port;

/// A broker; killed when dropped.
pub struct Broker {
    directory: PathBuf,
    port: u16,
    process: Child,
}

impl Broker {
    /// Starts a broker in this directory. `locks` has the CAs that certify its Locks, PEM.
    pub fn start(directory: &Path, locks: &str) -> Self {
        let port = port::free();
        let directory = directory.join("broker");
        fs::create_dir(&directory).unwrap();
        certify(&directory);
        let own = fs::read_to_string(directory.join("ca.pem")).unwrap();
        fs::write(directory.join("clients.pem"), locks.to_owned() + &own).unwrap();
        let acl = String::from(
            "user station\ntopic readwrite keywright/1/#\n\
             user other\ntopic readwrite keywright/1/#\n\
             pattern read keywright/1/%u/grant/+\n\
             pattern read keywright/1/%u/chain\n\
             pattern write keywright/1/%u/confirmation/+\n\
             pattern write keywright/1/%u/papers\n\
             pattern write keywright/1/%u/issuers\n\
             pattern write keywright/1/%u/presence\n",
        );
        fs::write(directory.join("acl"), acl).unwrap();
        fs::set_permissions(
            directory.join("acl"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        let path = directory.display();
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        // As in docs/lock.md, but saved every second: a test may kill it at any time.
        let config = format!(
            "{user}listener {port} 127.0.0.1\ncafile {path}/clients.pem\n\
             certfile {path}/server.pem\nkeyfile {path}/server.key\n\
             require_certificate true\nuse_identity_as_username true\nacl_file {path}/acl\n\
             persistence true\npersistence_location {path}/\nautosave_interval 1\n\
             max_inflight_messages 100\nmax_queued_messages 100000\nlog_dest none\n"
        );
        fs::write(directory.join("mosquitto.conf"), config).unwrap();
        let process = run(&directory);
        let broker = Self { directory, port, process };
        broker.wait();
        broker
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file of the CA that certified the broker.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A station's certificate and key. A station may read and write every topic.
    pub fn station(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("station.pem"), self.directory.join("station.key"))
    }

    /// Another station's certificate and key.
    pub fn other(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("other.pem"), self.directory.join("other.key"))
    }

    /// A certificate by the broker's own CA, and its key, for the Lock of this id while it has none of its family.
    pub fn newcomer(&self, lock: &str) -> (PathBuf, PathBuf) {
        certify_one(&self.directory, "newcomer", &format!("Keywright lock {lock}"));
        (self.directory.join("newcomer.pem"), self.directory.join("newcomer.key"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again with the retained messages that it had saved.
    pub fn restart(&mut self) {
        self.process = run(&self.directory);
        self.wait();
    }

    /// Deletes its retained messages. The broker must not run.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.directory.join("mosquitto.db"));
    }

    /// Waits until the broker accepts a connection; there is no other sign that it listens.
    fn wait(&self) {
        for _ in 0..3000 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not listen; is it installed?");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn run(directory: &Path) -> Child {
    let config = directory.join("mosquitto.conf");
    Command::new("/usr/sbin/mosquitto")
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto is installed")
}

/// Makes a CA, and certifies the broker and two stations with it.
fn certify(directory: &Path) {
    openssl(
        directory,
        &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -days 36500 -subj /CN=broker-ca"),
    );
    let server = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    certify_with(directory, "server", "server", server);
    certify_one(directory, "station", "station");
    certify_one(directory, "other", "other");
}

/// Makes a client's certificate for this common name, in files of this name.
fn certify_one(directory: &Path, file: &str, name: &str) {
    certify_with(directory, file, name, "extendedKeyUsage=clientAuth\n");
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

fn certify_with(directory: &Path, file: &str, name: &str, extensions: &str) {
    // A space would end the argument.
    let name = name.replace(' ', SPACE);
    openssl(
        directory,
        &format!("req {NEW_KEY} -keyout {file}.key -out {file}.csr -subj /CN={name}"),
    );
    fs::write(directory.join("extensions"), extensions).unwrap();
    openssl(
        directory,
        &format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 36500 \
             -extfile extensions -out {file}.pem"
        ),
    );
}

const SPACE: &str = "\u{a0}";

fn openssl(directory: &Path, arguments: &str) {
    let arguments = arguments.split(' ').map(|argument| argument.replace(SPACE, " "));
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
}
