//! Tests of the PC/SC transport with a real pcscd and a simulated card in its virtual reader (Debian packages `pcscd`,
//! `vsmartcard-vpcd`).

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use pcsc::{Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use tempfile::TempDir;

use super::management_key::KeyType;
use super::pcsc::{PcscTransport, begin_transaction};
use super::pin::Pin;
use super::simulated::{Card, NITROKEY, Quirks, Shared};
use super::verbs::Token;
use super::{Limits, Transport, TransportError};

/// The file with pcscd's debug log, which names every command that it receives.
const LOG: &str = "log";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
/// The environment variable that tells libpcsclite the socket of pcscd.
const SOCKET: &str = "PCSCLITE_CSOCK_NAME";
const LIMITS: Limits = Limits { extended: true, longest_command: 3062 };
const TIMEOUT: Duration = Duration::from_secs(30);
/// The timeouts for another program's transaction and for a reader to appear.
const TIMEOUTS: [Duration; 2] = [TIMEOUT, Duration::ZERO];
const T1: &[u8] = &[0x3B, 0x80, 0x01, 0x81];
/// An ATR with a protocol that pcscd does not support.
const T2: &[u8] = &[0x3B, 0x80, 0x02, 0x82];
/// VERIFY without a PIN: reports whether the PIN is verified.
const IS_VERIFIED: &[u8] = &[0, 0x20, 0, 0x80];

/// A pcscd of this test, with a virtual reader.
struct Pcscd {
    process: Child,
    port: u16,
    dir: TempDir,
}

impl Pcscd {
    /// Passes the socket as systemd does, so that pcscd does not check for another running pcscd.
    fn start() -> (Self, std::path::PathBuf) {
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let readers = dir.path().join("readers");
        fs::create_dir(&readers).unwrap();
        let reader = format!(
            "FRIENDLYNAME \"Test\"\nDEVICENAME /dev/null:{port:#X}\nLIBPATH {DRIVER}\nCHANNELID {port:#X}\n"
        );
        fs::write(readers.join("test"), reader).unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec pcscd --foreground --debug --config \"$0\"";
        let process = Command::new("sh")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["-c", script])
            .arg(&readers)
            .stdin(OwnedFd::from(listener))
            .stdout(fs::File::create(dir.path().join(LOG)).unwrap())
            .spawn()
            .unwrap();
        (Self { process, port, dir }, socket)
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A card in the reader. Dropping it removes the card.
struct Inserted {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Inserted {
    /// Inserts a card. The slots of the reader listen on consecutive ports.
    fn insert(card: &Shared, slot: u16, atr: &'static [u8]) -> Self {
        let port = env::var("TEST_PORT").unwrap().parse::<u16>().unwrap() + slot;
        let stream = until("the reader listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        let (mut reader, card) = (stream.try_clone().unwrap(), card.clone());
        let thread = thread::spawn(move || while serve(&mut reader, &card, atr).is_ok() {});
        let inserted = Self { stream, thread: Some(thread) };
        await_card(slot.into());
        inserted
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers one message of the vpcd protocol.
fn serve(stream: &mut TcpStream, card: &Shared, atr: &[u8]) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    let answer = match message[..] {
        [4] => atr.to_vec(),
        [_] => {
            card.reset();
            return Ok(());
        }
        _ => card.transmit_once(&message),
    };
    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &answer].concat())
}

/// Waits until pcscd reports a card in this slot.
fn await_card(slot: usize) {
    let context = Context::establish(Scope::System).unwrap();
    // The driver listens for its card before pcscd lists its readers.
    let name = until("the reader is listed", || {
        let listed = context.list_readers_owned().ok()?;
        listed.into_iter().nth(slot)
    });
    let mut reader = [ReaderState::new(name, State::UNAWARE)];
    while !reader[0].event_state().contains(State::PRESENT) {
        context.get_status_change(TIMEOUT, &mut reader).unwrap();
        reader[0].sync_current_state();
    }
}

/// Polls until `check` returns a value, because pcscd does not report when it is ready.
fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

fn is_test(name: &CStr, _place: Option<super::pcsc_reader::UsbAddress>) -> bool {
    name.to_bytes() == b"Test 00 00"
}

fn open() -> Result<Option<PcscTransport>, TransportError> {
    PcscTransport::start(TIMEOUTS, "", LIMITS, is_test)
}

fn token() -> Token {
    Token::open(Box::new(open().unwrap().unwrap())).unwrap()
}

fn pin() -> Pin {
    Pin::new(b"123456").unwrap()
}

/// Sends a command as another program does.
fn transmit(card: &pcsc::Card, command: &[u8]) -> Result<Vec<u8>, pcsc::Error> {
    card.transmit(command, &mut [0; 256]).map(<[u8]>::to_vec)
}

/// Runs each scenario in a child process, because libpcsclite reads the path of its socket from the environment.
#[test]
fn scenarios_pass_on_a_real_pcscd() {
    if env::var_os(SOCKET).is_some() {
        return;
    }
    for name in [
        "token_is_reset_only_if_it_stays_authorized",
        "other_programs_are_kept_apart",
        "reset_before_our_transaction_is_harmless",
        "unresponsive_cards_are_skipped",
        "unplugged_token_is_noticed",
        "ended_pcscd_is_noticed",
    ] {
        let (pcscd, socket) = Pcscd::start();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("pcsc_tests::{name}"), "--ignored", "--nocapture"])
            .env(SOCKET, socket)
            .env("TEST_PORT", pcscd.port.to_string())
            .env("TEST_PID", pcscd.process.id().to_string())
            .env("TEST_LOG", pcscd.dir.path().join(LOG))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let ran = child.status.success() && text.contains("1 passed");
        assert!(ran, "{name}:\n{text}{}", String::from_utf8_lossy(&child.stderr));
    }
}

fn card(quirks: Quirks) -> (Shared, Inserted) {
    let card = Card::blank(quirks, KeyType::Tdes);
    let inserted = Inserted::insert(&card, 0, T1);
    (card, inserted)
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn token_is_reset_only_if_it_stays_authorized() {
    let (card, _inserted) = card(NITROKEY);
    let resets = card.with(|card| card.resets);
    let mut token = token();
    token.read_usage(&pin()).unwrap();
    token.authenticate_management().unwrap();
    token.write_certificate(super::Container::AccessCertificate, &[0x30; 1800]).unwrap();
    token.protect_management_key(&pin()).unwrap();
    // This firmware keeps the management key authenticated, and only then is the token reset.
    assert!(token.clear().unwrap().authorized);
    drop(token);
    assert_eq!(card.with(|card| card.resets), resets + 1);
    let mut token = self::token();
    token.verify_pin(&pin()).unwrap();
    assert!(!token.clear().unwrap().authorized);
    drop(token);
    assert_eq!(card.with(|card| card.resets), resets + 1, "left as it is for the other programs");
    let mut token = self::token();
    token.verify_pin(&pin()).unwrap();
    drop(token);
    assert_eq!(card.with(|card| (card.resets, card.verified)), (resets + 2, false));
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn other_programs_are_kept_apart() {
    let (card, _inserted) = card(NITROKEY);
    let context = Context::establish(Scope::System).unwrap();
    let name = context.list_readers_owned().unwrap().remove(0);
    let connect = |mode| context.connect(&name, mode, Protocols::ANY);

    // No other program can use a PIN that we verified: its command waits until our transaction ends.
    let mut theirs = connect(ShareMode::Shared).unwrap();
    let mut token = token();
    token.verify_pin(&pin()).unwrap();
    thread::scope(|scope| {
        let (asking, asks) = mpsc::channel();
        let answer = scope.spawn(|| {
            let asking = asking;
            asking.send(()).unwrap();
            transmit(&theirs, IS_VERIFIED).unwrap()
        });
        asks.recv().unwrap();
        token.read_usage(&pin()).unwrap();
        assert!(card.with(|card| card.verified));
        assert!(!token.clear().unwrap().authorized);
        drop(token);
        assert_eq!(answer.join().unwrap(), [0x63, 0xC3]);
    });

    // A PIN that another program verified does not count as verified by us.
    transmit(&theirs, b"\x00\x20\x00\x80\x08123456\xFF\xFF").unwrap();
    let mut token = self::token();
    assert!(!token.verified);
    card.commands();
    let signed = token.sign_with(super::Slot::Access, &pin(), &[1; 32]);
    assert!(signed.is_err(), "there is no key");
    assert!(card.commands() >= 2, "the PIN was presented again");
    token.clear().unwrap();
    drop(token);

    // We wait for their transaction, up to the timeout; then the token is busy, and their transaction goes on.
    let transaction = theirs.transaction().unwrap();
    let waited =
        PcscTransport::start([Duration::from_millis(300), Duration::ZERO], "", LIMITS, is_test);
    assert!(matches!(waited.err(), Some(TransportError::Busy { .. })));
    transaction.end(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    assert!(open().unwrap().is_some(), "free again");

    theirs.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    let alone = until("nobody else is connected", || connect(ShareMode::Exclusive).ok());
    assert!(matches!(open().err(), Some(TransportError::Busy { .. })));
    drop(alone);
    assert!(open().unwrap().is_some());
    let other = PcscTransport::start(TIMEOUTS, "", LIMITS, |_, place| place.is_some());
    assert!(other.unwrap().is_none(), "a reader that is on no USB is no USB token's");
}

/// How often pcscd received this command.
fn asked(what: &str) -> usize {
    let log = fs::read(env::var_os("TEST_LOG").unwrap()).unwrap();
    String::from_utf8_lossy(&log).matches(&format!("command: {what}")).count()
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn reset_before_our_transaction_is_harmless() {
    let (card, _inserted) = card(NITROKEY);
    let resets = card.with(|card| card.resets);
    let context = Context::establish(Scope::System).unwrap();
    let name = context.list_readers_owned().unwrap().remove(0);
    let connect = || context.connect(&name, ShareMode::Shared, Protocols::ANY).unwrap();
    let (mut ours, mut theirs) = (connect(), connect());
    // Another program begins a transaction first and ends it with a reset.
    let transaction = theirs.transaction().unwrap();
    let begun = asked("BEGIN_TRANSACTION");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let transaction = begin_transaction(&mut ours).unwrap();
            transaction.transmit(IS_VERIFIED, &mut [0; 256]).map(<[u8]>::to_vec)
        });
        until("ours begins", || (asked("BEGIN_TRANSACTION") > begun).then_some(()));
        let ended = transaction.end(Disposition::ResetCard);
        ended.map_err(|(_, error)| error).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(vec![0x63, 0xC3]));
    });
    assert!(card.with(|card| card.resets) > resets, "it was reset");
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn unresponsive_cards_are_skipped() {
    let (_card, _inserted) = card(NITROKEY);
    let _other = Inserted::insert(&Card::blank(NITROKEY, KeyType::Tdes), 1, T2);
    let context = Context::establish(Scope::System).unwrap();
    let name = context.list_readers_owned().unwrap().remove(1);
    let refused = context.connect(&name, ShareMode::Shared, Protocols::ANY).err();
    assert_eq!(refused, Some(pcsc::Error::ProtoMismatch));
    assert!(open().unwrap().is_some(), "a card that cannot be talked to hides no token");
    let elsewhere = PcscTransport::start(TIMEOUTS, "", LIMITS, |_, _| false);
    assert!(elsewhere.unwrap().is_none(), "nor one that pcscd does not have");
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn unplugged_token_is_noticed() {
    let (_card, inserted) = card(NITROKEY);
    let mut transport = open().unwrap().unwrap();
    assert_eq!(transport.transmit(IS_VERIFIED), Ok(vec![0x63, 0xC3]));
    drop(inserted);
    assert!(transport.transmit(IS_VERIFIED).is_err());
    drop(transport);
    until("pcscd sees that it is gone", || matches!(open(), Ok(None)).then_some(()));
}

#[test]
#[ignore = "run by scenarios_pass_on_a_real_pcscd"]
fn ended_pcscd_is_noticed() {
    let (_card, _inserted) = card(NITROKEY);
    let mut transport = open().unwrap().unwrap();
    assert_eq!(transport.transmit(IS_VERIFIED), Ok(vec![0x63, 0xC3]));
    let pid = env::var("TEST_PID").unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let gone = until("pcscd has ended", || transport.transmit(IS_VERIFIED).err());
    assert_eq!(gone, TransportError::ServiceGone);
    drop(transport);
    // The kernel closes pcscd's connections before its listening socket. A connection made in between is reset, which
    // libpcsclite reports like a refusal by polkit (SCARD_W_SECURITY_VIOLATION): so both errors mean "try again" here.
    let opened = until("the socket of pcscd is closed", || match open() {
        Err(TransportError::ServiceGone | TransportError::Unusable(_)) => None,
        opened => Some(opened.map(|opened| opened.is_none())),
    });
    assert_eq!(opened, Ok(true), "without pcscd, no reader is found");
}
