//! Locks with their own state directories, and a family of software keys.
#![allow(dead_code, missing_docs, unused_imports)]

#[path = "../../../../../proto/tests/common/mod.rs"]
mod family;
pub mod server;
pub mod station;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

pub use family::{Ca, Key, NOW, VALIDITY, ders, leaf, signed_anew};
use keywright_lockd::{
    clock::Now,
    config::Config,
    error::Error,
    gate::{Gate, Limits},
    identity::Identity,
    inbox::{self, DirectoryEvent, Watch},
    membership::Membership,
    service::{Origin, Service},
};
use keywright_proto::{
    Certificate, Confirmation, Effect, Grant, Leaf, PublicKey, Role, Target,
    pem::{self, Label},
    profile::{self, Validity},
    read_csr,
    tree::Hash,
};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_keywright-lockd");
/// Longer than any step takes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A Lock with its state directory.
pub struct Lock {
    pub dir: TempDir,
    pub key: PublicKey,
    pub chain: Vec<Certificate>,
}

impl Lock {
    /// A Lock that has created its key and was claimed by the family.
    pub fn of(ca: &Ca) -> Self {
        Self::in_directory(TempDir::new().unwrap(), ca)
    }

    pub fn in_directory(dir: TempDir, ca: &Ca) -> Self {
        let state = dir.path().join("state");
        let request = done(run(&state, &["request"], b""));
        let key = read_csr(&request).unwrap();
        let chain = certify(ca, &key);
        done(run(&state, &["claim", "-"], pem_of(&chain).as_bytes()));
        Self { dir, key, chain }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn hash(&self) -> Hash {
        self.key.hash()
    }

    /// The service in this process.
    pub fn service(&self) -> Service {
        self.service_with(Config::default())
    }

    pub fn service_with(&self, config: Config) -> Service {
        Service::open(&self.state(), config).unwrap()
    }

    /// The gate alone, at a time that the test chooses.
    pub fn gate(&self, limits: Limits, now: Now) -> Gate {
        let identity = Identity::load_or_create(&self.state()).unwrap();
        let membership = Membership::load(&self.state(), identity.public()).unwrap().unwrap();
        Gate::open(&self.state(), identity, membership, limits, now).unwrap()
    }

    /// Runs `keywright-lockd apply` with one grant.
    pub fn apply(&self, name: &str, grant: &[u8]) -> Output {
        let path = self.dir.path().join(name);
        fs::write(&path, grant).unwrap();
        run(&self.state(), &["apply", path.to_str().unwrap()], b"")
    }

    pub fn list(&self, name: &str) -> String {
        fs::read_to_string(self.state().join("lists").join(name)).unwrap()
    }

    /// The confirmation in the outbox for a file.
    pub fn confirmation(&self, name: &str) -> Confirmation {
        let path = self.state().join("outbox").join(format!("{name}.confirmation"));
        Confirmation::verify(&fs::read(path).unwrap(), &self.key).unwrap()
    }

    /// All files of the state directory except the outbox.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.state(), &mut files);
        files
    }

    /// A leaf for this Lock.
    pub fn leaf(&self, effect: Effect) -> Leaf {
        leaf(Target::Lock(self.hash()), effect)
    }

    /// A Sub Key's grant for this Lock, among other Locks' leaves; an allow has the Key's certificate.
    pub fn grant(&self, ca: &Ca, key: &Key, version: u64, effect: Effect) -> Vec<u8> {
        let other = leaf(Target::Lock([7; 32]), Effect::Allow);
        let certificate = match effect {
            Effect::Allow => ca.issue(key, Role::Sub, &[5]),
            Effect::Deny => vec![],
        };
        ca.grant(key, Some(version), &[other, self.leaf(effect), other], 1, &certificate).encode()
    }

    /// Starts `keywright-lockd run`.
    pub fn start(&self, config: &str) -> Running {
        self.start_with_log(config, Stdio::inherit())
    }

    /// The same, with its log written there.
    pub fn start_with_log(&self, config: &str, log: impl Into<Stdio>) -> Running {
        let file = self.dir.path().join("lockd.toml");
        fs::write(&file, config).unwrap();
        let outbox = self.state().join("outbox");
        fs::create_dir_all(&outbox).unwrap();
        let answers = watch(&outbox);
        let child = Command::new(PROGRAM)
            .args(["run", "--state-dir", self.state().to_str().unwrap()])
            .args(["--config", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, answers, outbox, inbox: self.state().join("inbox") }
    }
}

fn collect(path: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        // Temporary files are renamed in a moment.
        if path.ends_with("outbox") || path.extension().is_some_and(|extension| extension == "new")
        {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// The revocation of a Key, the same for every Lock.
pub fn revocation(ca: &Ca, key: &Key) -> Grant {
    ca.grant(key, None, &[leaf(Target::All, Effect::Deny)], 0, &[])
}

/// A certificate chain for a Lock.
pub fn certify(ca: &Ca, key: &PublicKey) -> Vec<Certificate> {
    certify_at(ca, key, VALIDITY.not_before, 0x4c)
}

/// The same with this start of validity and serial number.
pub fn certify_at(ca: &Ca, key: &PublicKey, not_before: u64, serial: u8) -> Vec<Certificate> {
    let validity = Validity { not_before, ..VALIDITY };
    let unsigned =
        profile::end_entity(key, Role::Lock, ca.certificate(), &[serial], validity).unwrap();
    let certificate = Certificate::parse(&ca.key.sign(unsigned)).unwrap();
    [&[certificate][..], &ca.chain].concat()
}

pub fn pem_of(chain: &[Certificate]) -> String {
    pem::to_pem(Label::Certificate, chain.iter().map(Certificate::der)).unwrap()
}

pub fn run(state: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .args(["--state-dir", state.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The standard output of a program that succeeded.
#[track_caller]
pub fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The error message of a program that ended with status 1.
#[track_caller]
pub fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Reports files that appear in a directory from now on.
pub fn watch(directory: &Path) -> Receiver<DirectoryEvent> {
    let watch = Watch::start(directory).unwrap();
    let (send, files) = mpsc::channel();
    thread::spawn(move || watch.run(|dropped| send.send(dropped).is_ok()));
    files
}

/// A running `keywright-lockd`; killed when dropped.
pub struct Running {
    child: Child,
    answers: Receiver<DirectoryEvent>,
    outbox: PathBuf,
    inbox: PathBuf,
}

impl Running {
    /// Moves a grant into the inbox and waits for its answer: the confirmation, or the refusal.
    pub fn drop_grant(&self, name: &str, grant: &[u8]) -> Result<Vec<u8>, String> {
        let part = self.inbox.join(format!(".{name}"));
        fs::create_dir_all(&self.inbox).unwrap();
        fs::write(&part, grant).unwrap();
        fs::rename(part, self.inbox.join(name)).unwrap();
        self.answer(name)
    }

    /// Waits for the answer to a file.
    pub fn answer(&self, name: &str) -> Result<Vec<u8>, String> {
        let confirmation = OsString::from(format!("{name}.confirmation"));
        let refused = OsString::from(format!("{name}.refused"));
        loop {
            match self.answers.recv_timeout(LIMIT).expect("an answer comes") {
                DirectoryEvent::File(found) if found == confirmation => {
                    return Ok(fs::read(self.outbox.join(found)).unwrap());
                }
                DirectoryEvent::File(found) if found == refused => {
                    return Err(fs::read_to_string(self.outbox.join(found)).unwrap());
                }
                _ => {}
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a grant in this process, as from the link.
pub fn take(service: &mut Service, grant: &[u8]) -> Result<(), String> {
    service
        .take(grant, Origin::Link { retained: false })
        .map(drop)
        .map_err(|refusal| refusal.to_string())
}

/// How many files the inbox has.
pub fn files_in_inbox(lock: &Lock) -> usize {
    inbox::complete_files(&lock.state().join("inbox")).unwrap().len()
}

/// The revocation of a Master or Backup together with its issuing key.
pub fn revocation_of_issuer(
    ca: &Ca,
    key: &Key,
    revokes: keywright_proto::RevokedIssuer,
) -> Vec<u8> {
    let leaves = [leaf(Target::All, Effect::Deny)];
    let tree = keywright_proto::Tree::new(leaves).unwrap();
    let subject = key.public();
    let statement = keywright_proto::Statement {
        subject: &subject,
        version: None,
        tree: tree.head(),
        revokes: Some(revokes),
    };
    let statement = ca.key.sign(statement.unsigned(&ca.chain).unwrap());
    Grant { statement, ..ca.grant(key, None, &leaves, 0, &[]) }.encode()
}
