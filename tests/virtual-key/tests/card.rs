//! Tests the built `virtual-key` program with a small vpcd reader.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cipher::{BlockCipherEncrypt, KeyInit};
use des::TdesEde3;
use p256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
use tempfile::TempDir;

const SELECT: &[u8] = b"\x00\xA4\x04\x00\x09\xA0\x00\x00\x03\x08\x00\x00\x10\x00\x00";
const VERIFY: &[u8] = b"\x00\x20\x00\x80\x08123456\xFF\xFF";
const WRONG_PIN: &[u8] = b"\x00\x20\x00\x80\x08654321\xFF\xFF";
const RETRIES: &[u8] = b"\x00\x20\x00\x80";
const GET_CHUID: &[u8] = b"\x00\xCB\x3F\xFF\x05\x5C\x03\x5F\xC1\x02\x00";
const FACTORY_KEY: [u8; 24] = *b"\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x08";

/// A vpcd reader, and the directory of the Keys that are plugged into it.
struct TestReader {
    dir: TempDir,
    listener: UnixListener,
}

/// A Key in the reader.
struct Key {
    process: Child,
    stream: UnixStream,
}

impl TestReader {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let listener = UnixListener::bind(dir.path().join("reader")).unwrap();
        Self { dir, listener }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plug(&self, options: &[&str]) -> Key {
        let process = Command::new(env!("CARGO_BIN_EXE_virtual-key"))
            .arg("--socket")
            .arg(self.path("reader"))
            .arg("--state")
            .arg(self.path("state"))
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Key { process, stream }
    }
}

impl Key {
    fn write(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&length, message].concat()).unwrap();
    }

    fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        self.write(message);
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut answer).unwrap();
        answer
    }

    fn status(&mut self, message: &[u8]) -> u16 {
        u16::from_be_bytes(*self.exchange(message).last_chunk().unwrap())
    }

    /// Returns the data of an answer; asserts that its status is 9000.
    fn data(&mut self, message: &[u8]) -> Vec<u8> {
        let mut answer = self.exchange(message);
        assert_eq!(answer.split_off(answer.len() - 2), [0x90, 0x00], "to {message:02X?}");
        answer
    }

    /// Authenticates with the factory management key (external authentication, SP 800-73-4 part 2, A.1).
    fn authenticate(&mut self) {
        let answer = self.data(b"\x00\x87\x03\x9B\x04\x7C\x02\x81\x00\x00");
        let mut block: [u8; 8] = answer[4..].try_into().unwrap();
        TdesEde3::new(&FACTORY_KEY.into()).encrypt_block((&mut block).into());
        let response = [b"\x00\x87\x03\x9B\x0C\x7C\x0A\x82\x08" as &[u8], &block, b"\x00"].concat();
        self.data(&response);
    }

    fn generate(&mut self) -> VerifyingKey {
        let answer = self.data(b"\x00\x47\x00\x9A\x05\xAC\x03\x80\x01\x11\x00");
        VerifyingKey::from_sec1_bytes(&answer[5..]).unwrap()
    }

    fn sign(&mut self, digest: &[u8; 32]) -> Signature {
        let head = b"\x00\x87\x11\x9A\x26\x7C\x24\x82\x00\x81\x20";
        let answer = self.data(&[head, digest as &[u8], b"\x00"].concat());
        Signature::from_der(&answer[4..]).unwrap()
    }

    /// Kills the program, which pulls the Key out.
    fn unplug(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn generated_key_survives_an_unplug_and_signs() {
    let reader = TestReader::new();
    let mut key = reader.plug(&[]);
    assert_eq!(key.exchange(&[4])[0], 0x3B, "an ATR of the direct convention");
    assert!(!key.data(SELECT).is_empty());
    key.authenticate();
    let public = key.generate();
    key.unplug();

    let mut key = reader.plug(&[]);
    key.data(SELECT);
    assert_eq!(key.status(RETRIES), 0x63C3);
    assert_eq!(key.status(VERIFY), 0x9000);
    let signature = key.sign(&[7; 32]);
    public.verify_prehash(&[7; 32], &signature).unwrap();
}

#[test]
fn every_card_generates_different_keys() {
    let keys = [(); 2].map(|()| {
        let reader = TestReader::new();
        let mut key = reader.plug(&[]);
        key.data(SELECT);
        key.authenticate();
        key.generate()
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn serial_determines_the_guid() {
    let guid_of = |serial| {
        let reader = TestReader::new();
        let mut key = reader.plug(&["--serial", serial]);
        key.data(SELECT);
        key.data(GET_CHUID)
    };
    assert_eq!(guid_of("A"), guid_of("A"));
    assert_ne!(guid_of("A"), guid_of("B"));
}

#[test]
fn long_objects_are_written_and_read_chained_and_extended() {
    let reader = TestReader::new();
    let mut key = reader.plug(&[]);
    key.data(SELECT);
    key.authenticate();
    let object: Vec<u8> = (0..1500u32).map(|i| i.to_le_bytes()[0]).collect();
    let body = [b"\x5C\x03\x5F\xC1\x05\x53\x82\x05\xDC" as &[u8], &object].concat();

    let mut pieces = body.chunks(255).peekable();
    while let Some(piece) = pieces.next() {
        let class = if pieces.peek().is_some() { 0x10 } else { 0 };
        let head = [class, 0xDB, 0x3F, 0xFF, u8::try_from(piece.len()).unwrap()];
        key.data(&[&head, piece].concat());
    }
    let mut answer = key.exchange(b"\x00\xCB\x3F\xFF\x05\x5C\x03\x5F\xC1\x05\x00");
    while answer[answer.len() - 2] == 0x61 {
        answer.truncate(answer.len() - 2);
        answer.extend(key.exchange(b"\x00\xC0\x00\x00\x00"));
    }
    assert!(answer.ends_with(&[&object[..], &[0x90, 0x00]].concat()));

    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    key.data(&[b"\x00\xDB\x3F\xFF\x00" as &[u8], &length, &body].concat());
    let answer = key.data(b"\x00\xCB\x3F\xFF\x00\x00\x05\x5C\x03\x5F\xC1\x05\x00\x00");
    assert!(answer.ends_with(&object));
}

#[test]
fn pin_retries_survive_an_unplug() {
    let reader = TestReader::new();
    let mut key = reader.plug(&[]);
    key.data(SELECT);
    assert_eq!(key.status(WRONG_PIN), 0x63C2);
    key.unplug();
    let mut key = reader.plug(&[]);
    assert_eq!(key.status(RETRIES), 0x6A82, "nothing is selected after power-up");
    key.data(SELECT);
    assert_eq!(key.status(RETRIES), 0x63C2);
}

#[test]
fn card_boots_after_a_kill_during_writes() {
    let reader = TestReader::new();
    for round in 0..20u8 {
        let mut key = reader.plug(&[]);
        key.data(SELECT);
        key.authenticate();
        let put =
            [b"\x00\xDB\x3F\xFF\x09\x5C\x03\x5F\xC1\x05\x53\x02\x70" as &[u8], &[round]].concat();
        for _ in 0..round {
            key.data(&put);
        }
        key.write(&put);
        key.unplug();
    }
    reader.plug(&[]).data(SELECT);
}

#[test]
fn sign_delay_slows_private_key_operations() {
    let reader = TestReader::new();
    let mut key = reader.plug(&["--sign-delay-ms", "50"]);
    key.data(SELECT);
    key.authenticate();
    key.generate();
    key.data(VERIFY);
    let start = Instant::now();
    key.sign(&[7; 32]);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn log_has_command_names_and_no_secrets() {
    let reader = TestReader::new();
    let log = reader.path("log");
    let mut key = reader.plug(&["--log", log.to_str().unwrap()]);
    key.data(SELECT);
    key.status(WRONG_PIN);
    key.status(b"\x00\x20\x00\x80\x08123456\xFF\xFF");
    let text = fs::read_to_string(log).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.rsplit_once('\t').unwrap().0).collect();
    assert_eq!(names, ["SELECT\t9000", "VERIFY\t63C2", "VERIFY\t9000"]);
}

#[test]
fn program_exits_with_its_reader_and_refuses_a_foreign_state_file() {
    let reader = TestReader::new();
    let mut key = reader.plug(&[]);
    drop(key.stream);
    assert!(key.process.wait().unwrap().success());

    fs::write(reader.path("state"), b"not a memory").unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_virtual-key"))
        .arg("--socket")
        .arg(reader.path("reader"))
        .arg("--state")
        .arg(reader.path("state"))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not a virtual Key's memory"));
    reader.listener.set_nonblocking(true).unwrap();
    assert_eq!(reader.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}
