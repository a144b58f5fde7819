//! A real nginx with the Lock's certificate and the map that the Lock writes.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use keywright_bus_tests::port;
use keywright_proto::{
    Certificate,
    Effect::{Allow, Deny},
    Role,
};

use crate::common::{
    self, Ca, Key, Lock, pem_of, revocation,
    server::{Server, key_file},
};

const NGINX: &str = "/usr/sbin/nginx";

/// Reloads nginx and returns when the new lists are in force.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../systemd/keywright-lock-nginx");

struct Nginx {
    port: u16,
    _server: Server,
}

impl Nginx {
    fn start(lock: &Lock) -> Self {
        let (state, dir) = (lock.state(), lock.dir.path());
        let (port, state, base) = (port::free(), state.display(), dir.display());
        // As in docs/lock.md.
        let config = format!(
            "daemon off;\npid {base}/nginx.pid;\nworker_processes 1;\nerror_log stderr notice;\n\
             events {{}}\n\
             http {{\n\
               access_log off;\n\
               client_body_temp_path {base}/t1; proxy_temp_path {base}/t2; fastcgi_temp_path {base}/t3;\n\
               uwsgi_temp_path {base}/t4; scgi_temp_path {base}/t5;\n\
               map_hash_bucket_size 128;\n\
               map $ssl_client_fingerprint $keywright_key {{ include {state}/lists/nginx.map; }}\n\
               server {{\n\
                 listen 127.0.0.1:{port} ssl;\n\
                 ssl_certificate {state}/chain.pem;\n\
                 ssl_certificate_key {state}/identity.key;\n\
                 ssl_client_certificate {state}/lists/ca.pem;\n\
                 ssl_verify_client on;\n\
                 ssl_verify_depth 5;\n\
                 location / {{\n\
                   if ($keywright_key = \"\") {{ return 403; }}\n\
                   return 200 \"key $keywright_key\\n\";\n\
                 }}\n\
               }}\n\
             }}\n"
        );
        let file = config_file(lock);
        fs::write(&file, config).unwrap();
        let server = Server::start(Command::new(NGINX).args(["-c", file.to_str().unwrap()]));
        server.until("start worker process ");
        Self { port, _server: server }
    }

    /// The response to a client with this chain.
    fn answers(&self, lock: &Lock, number: u8, chain: &[Certificate]) -> String {
        let dir = lock.dir.path();
        let (key, cert) = (key_file(dir, number), dir.join(format!("chain-{number}")));
        fs::write(&cert, pem_of(chain)).unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_quiet"])
            .args(["-connect", &format!("127.0.0.1:{}", self.port)])
            .args(["-CAfile", &path(&lock.state().join("lists/ca.pem"))])
            .args(["-key", &path(&key), "-cert", &path(&cert), "-cert_chain", &path(&cert)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept open until the response has arrived.
        let mut to = client.stdin.take().unwrap();
        to.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let output = client.wait_with_output().unwrap();
        drop(to);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

fn config_file(lock: &Lock) -> std::path::PathBuf {
    lock.dir.path().join("nginx.conf")
}

/// A Lock that has written its lists, and an nginx that uses them.
fn stage() -> (Ca, Lock, Nginx) {
    let lock = Lock::of(&Ca::at_depth(2));
    lock.service().settle().unwrap();
    let nginx = Nginx::start(&lock);
    (Ca::at_depth(1), lock, nginx)
}

fn pid_file(lock: &Lock) -> String {
    lock.dir.path().join("nginx.pid").display().to_string()
}

fn stamp(lock: &Lock) -> String {
    lock.dir.path().join("stamp").display().to_string()
}

/// `keywright-lock-nginx reload`, as the service manager runs it.
fn reload(lock: &Lock) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args(["reload", &pid_file(lock)]);
    command.env("KEYWRIGHT_LISTS", lock.state().join("lists"));
    command.env("KEYWRIGHT_NGINX_STAMP", stamp(lock));
    command
}

/// Connects right after each confirmation, several times, without waiting for nginx.
fn is_enforced_when_confirmed(hook: &str, master: &Ca, lock: &Lock, nginx: &Nginx) {
    let backup = Ca::at_depth(2);
    let running = lock.start(hook);
    let (bob, eve) = (Key::new(30), Key::new(31));
    // Two Sub Keys, one by a Backup and one by the Master; only one has the right.
    let bobs = backup.issue(&bob, Role::Sub, &[5]);
    let eves = master.issue(&eve, Role::Sub, &[6]);
    let inside = format!("key {}", bob.public().id());
    for round in 0..3 {
        let grant = backup.grant(&bob, Some(5 + 2 * round), &[lock.leaf(Allow)], 0, &bobs);
        running.drop_grant("bob", &grant.encode()).unwrap();
        let answer = nginx.answers(lock, 30, &bobs);
        assert!(answer.contains("200 OK") && answer.contains(&inside), "{answer}");
        let grant = backup.grant(&bob, Some(6 + 2 * round), &[lock.leaf(Deny)], 0, &[]);
        running.drop_grant("no-bob", &grant.encode()).unwrap();
        let answer = nginx.answers(lock, 30, &bobs);
        assert!(answer.contains("403 Forbidden") && !answer.contains(&inside), "{answer}");
    }
    let grant = backup.grant(&bob, Some(20), &[lock.leaf(Allow)], 0, &bobs);
    running.drop_grant("bob", &grant.encode()).unwrap();
    let answer = nginx.answers(lock, 30, &bobs);
    assert!(answer.contains("200 OK") && answer.contains(&inside), "{answer}");
    let answer = nginx.answers(lock, 31, &eves);
    assert!(answer.contains("403 Forbidden"), "{answer}");
    // A thief's CA can put any name into a certificate, but it does not lead to the root and has another fingerprint.
    let thief = Ca::master(Key::new(77));
    let answer = nginx.answers(lock, 31, &thief.issue(&eve, Role::Sub, &[5]));
    assert!(answer.contains("400 Bad Request"), "{answer}");

    running.drop_grant("revoked", &revocation(master, &bob).encode()).unwrap();
    let answer = nginx.answers(lock, 30, &bobs);
    assert!(answer.contains("403 Forbidden") && !answer.contains(&inside), "{answer}");
}

#[test]
fn nginx_admits_the_keys_that_the_lock_admits() {
    let (master, lock, nginx) = stage();
    let hook = format!(
        "hook = ['env', 'KEYWRIGHT_NGINX_STAMP={}', '{SCRIPT}', 'reload', '{}']",
        stamp(&lock),
        pid_file(&lock)
    );
    is_enforced_when_confirmed(&hook, &master, &lock, &nginx);
}

/// As in the packages: another unit may signal nginx, and does so when a file has changed.
#[test]
fn hook_waits_until_another_program_has_reloaded_nginx() {
    let (master, lock, nginx) = stage();
    let changes = common::watch(&lock.state().join("lists"));
    let mut first = reload(&lock);
    let mut again = reload(&lock);
    assert!(first.status().unwrap().success());
    // It ends with the test; if it does not reload nginx, nothing is confirmed.
    std::thread::spawn(move || {
        while changes.recv().is_ok() {
            while changes.try_recv().is_ok() {}
            let _ = again.stderr(Stdio::null()).status();
        }
    });
    let hook =
        format!("hook = ['env', 'KEYWRIGHT_NGINX_STAMP={}', '{SCRIPT}', 'wait']", stamp(&lock));
    is_enforced_when_confirmed(&hook, &master, &lock, &nginx);
}

#[test]
fn nothing_is_confirmed_before_nginx_enforces_it() {
    let (_, lock, nginx) = stage();
    let ends = |command: &mut Command| {
        let output = command.env("KEYWRIGHT_NGINX_SECONDS", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!lock.dir.path().join("stamp").exists());
        String::from_utf8(output.stderr).unwrap()
    };
    // Nobody reloads nginx.
    let mut wait = Command::new(SCRIPT);
    wait.arg("wait").env("KEYWRIGHT_LISTS", lock.state().join("lists"));
    wait.env("KEYWRIGHT_NGINX_STAMP", stamp(&lock));
    assert!(ends(&mut wait).contains("does not have the new list"));
    assert!(reload(&lock).status().unwrap().success());
    assert!(wait.status().unwrap().success());
    // nginx refuses its configuration, so its old workers stay.
    let good = fs::read(config_file(&lock)).unwrap();
    fs::write(config_file(&lock), "garbage").unwrap();
    assert!(ends(&mut reload(&lock)).contains("still has its old workers"));
    fs::write(config_file(&lock), good).unwrap();
    drop(nginx);
    assert!(ends(&mut reload(&lock)).contains("nginx does not run"));
}
