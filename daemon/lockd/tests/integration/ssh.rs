//! A real sshd that runs `keywright-lockd authorized-keys`.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use keywright_bus_tests::port;
use keywright_proto::{
    Effect::{Allow, Deny},
    Target,
};
use tempfile::TempDir;

use crate::common::{
    Ca, Key, Lock, PROGRAM, leaf, revocation,
    server::{Server, key_file, root},
};

struct Sshd {
    directory: PathBuf,
    port: u16,
    _server: Server,
}

impl Sshd {
    fn start(lock: &Lock) -> Self {
        let directory = lock.dir.path().to_owned();
        let in_directory = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        // sshd only runs a program that root alone can change, as another user.
        let program = in_directory("keywright-lockd");
        fs::copy(PROGRAM, &program).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let host_key = in_directory("host-key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &host_key])
            .status();
        assert!(made.unwrap().success());
        let (port, config) = (port::free(), in_directory("sshd_config"));
        let command = format!(
            "{program} --state-dir {} --config {} authorized-keys %u %f",
            lock.state().display(),
            in_directory("lockd.toml"),
        );
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile none\nAuthenticationMethods publickey\nPermitRootLogin yes\n\
             AuthorizedKeysCommand {command}\nAuthorizedKeysCommandUser nobody\n"
        );
        fs::write(&config, text).unwrap();
        let server =
            Server::start(Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f", &config]));
        server.until("Server listening");
        Self { directory, port, _server: server }
    }

    /// Whether the key can log in; the session prints what `command` prints.
    fn lets_in(&self, key: &Path, user: &str) -> bool {
        let output = Command::new("ssh")
            .args(["-F", "none", "-p", &self.port.to_string(), "-i", key.to_str().unwrap()])
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "ConnectTimeout=30", &format!("{user}@127.0.0.1"), "echo", "inside"])
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let denied = String::from_utf8_lossy(&output.stderr).contains("Permission denied");
        let inside = output.status.success() && output.stdout == b"inside\n";
        assert!(inside != denied, "{output:?}");
        inside
    }
}

#[test]
fn sshd_admits_the_keys_that_the_lock_admits() {
    if !root() {
        return;
    }
    // Not in /tmp: everybody can write there, so sshd runs no program from it.
    let directory = TempDir::new_in("/var/lib").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let master = Ca::at_depth(1);
    let lock = Lock::in_directory(directory, &master);
    let running = lock.start("[[account]]\nname = \"root\"\noptions = \"restrict\"\n");
    let (bob, eve) = (Key::new(30), Key::new(31));
    running.drop_grant("bob", &lock.grant(&master, &bob, 5, Allow)).unwrap();
    // Eve has a right at another Lock only.
    let elsewhere = [leaf(Target::Lock([9; 32]), Allow)];
    running
        .drop_grant("eve", &master.grant(&eve, Some(5), &elsewhere, 0, &[]).encode())
        .unwrap_err();

    let sshd = Sshd::start(&lock);
    let (bobs, eves) = (key_file(lock.dir.path(), 30), key_file(lock.dir.path(), 31));
    assert!(sshd.lets_in(&bobs, "root"));
    assert!(!sshd.lets_in(&eves, "root"));
    // An account that is not in the configuration.
    assert!(!sshd.lets_in(&bobs, "daemon"));

    running.drop_grant("deny", &lock.grant(&master, &bob, 6, Deny)).unwrap();
    assert!(!sshd.lets_in(&bobs, "root"));
    running.drop_grant("again", &lock.grant(&master, &bob, 7, Allow)).unwrap();
    assert!(sshd.lets_in(&bobs, "root"));
    running.drop_grant("revoked", &revocation(&master, &bob).encode()).unwrap();
    assert!(!sshd.lets_in(&bobs, "root"));
    // The lists stay in force without the service.
    running.kill();
    assert!(!sshd.lets_in(&bobs, "root"));
}
