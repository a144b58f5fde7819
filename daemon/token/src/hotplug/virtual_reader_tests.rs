//! Tests of the virtual reader, with threads as card programs.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use super::virtual_reader::VirtualReader;
use super::{Device, DeviceId, PlugEvent, StartError};
use crate::vpcd::VpcdConnector;
use crate::{Connector, TransportError};

/// How long to wait for an expected event.
const TIMEOUT: Duration = Duration::from_secs(60);
const ATR: &[u8] = &[0x3B, 0x80, 0x80, 0x01, 0x01];

struct Events(mpsc::Receiver<PlugEvent>);

impl Events {
    fn next(&self) -> PlugEvent {
        self.0.recv_timeout(TIMEOUT).expect("an event in time")
    }

    fn plugged(&self) -> Device {
        match self.next() {
            PlugEvent::Plugged(device) => device,
            other => panic!("{other:?} instead of a plug"),
        }
    }

    fn unplugged(&self) -> DeviceId {
        match self.next() {
            PlugEvent::Unplugged(id) => id,
            other => panic!("{other:?} instead of an unplug"),
        }
    }
}

fn start(path: &Path) -> (VirtualReader, Events) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let sink = Arc::new(move |event| sender.lock().unwrap().send(event).unwrap());
    let reader = VirtualReader::start(path, sink).unwrap();
    let events = Events(receiver);
    assert!(matches!(events.next(), PlugEvent::Settled));
    (reader, events)
}

/// Runs a card, which answers each message with `answer` and disconnects at `None`.
fn card(mut stream: UnixStream, mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    thread::spawn(move || {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            let Some(reply) = answer(&message) else { return };
            stream.write_all(&reply).unwrap();
        }
    });
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// Answers like a correct card: its ATR, and 9000 to every command.
fn well_behaved(message: &[u8]) -> Option<Vec<u8>> {
    match message {
        [4] => Some(framed(ATR)),
        [_] => Some(vec![]),
        _ => Some(framed(&[0x90, 0])),
    }
}

#[test]
fn card_connections_are_plugs_and_unplugs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    let (reader, events) = start(&path);

    let one = UnixStream::connect(&path).unwrap();
    let first = events.plugged();
    let two = UnixStream::connect(&path).unwrap();
    let second = events.plugged();
    assert_eq!((first.port.as_str(), second.port.as_str()), ("virtual", "virtual"));
    assert_eq!(first.usb_serial, None);

    // Unplugged while idle. The port is reused, the id is not.
    drop(one);
    assert_eq!(events.unplugged(), first.id);
    let _one = UnixStream::connect(&path).unwrap();
    let again = events.plugged();
    assert_eq!(again.port, "virtual");
    assert_ne!(again.id, first.id);

    // A card that shuts down only its side is unplugged too.
    two.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(events.unplugged(), second.id);

    drop(reader);
    assert_eq!(events.0.try_recv().err(), Some(mpsc::TryRecvError::Disconnected));
    assert!(!path.exists());
}

#[test]
fn watching_a_card_does_not_disturb_its_job() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    let (_reader, events) = start(&path);
    card(UnixStream::connect(&path).unwrap(), well_behaved);
    let device = events.plugged();
    for _ in 0..3 {
        let mut transport = device.connector.open().unwrap();
        for _ in 0..100 {
            assert_eq!(transport.transmit(&[0, 0xA4, 4, 0]), Ok(vec![0x90, 0]));
        }
        // One job at a time.
        let busy = device.connector.open().err();
        assert_eq!(busy, Some(TransportError::Busy { holder: "another job".into() }));
    }
}

#[test]
fn card_leaving_during_a_job_is_unplugged_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    let (_reader, events) = start(&path);
    let mut apdus = 0;
    card(UnixStream::connect(&path).unwrap(), move |message| {
        apdus += usize::from(message.len() > 1);
        if apdus == 3 { None } else { well_behaved(message) }
    });
    let device = events.plugged();
    let mut transport = device.connector.open().unwrap();
    assert!(transport.transmit(&[0, 1, 0, 0]).is_ok());
    assert!(transport.transmit(&[0, 2, 0, 0]).is_ok());
    assert_eq!(transport.transmit(&[0, 3, 0, 0]), Err(TransportError::Gone));
    assert_eq!(transport.transmit(&[0, 4, 0, 0]), Err(TransportError::Gone));
    assert_eq!(events.unplugged(), device.id);
    drop(transport);
    assert_eq!(device.connector.open().err(), Some(TransportError::Gone));
    // The next event is the plug of another card, not a second unplug.
    let _next = UnixStream::connect(&path).unwrap();
    assert_eq!(events.plugged().port, "virtual");
}

#[test]
fn stale_socket_file_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (_reader, events) = start(&path);
    let _card = UnixStream::connect(&path).unwrap();
    assert_eq!(events.plugged().port, "virtual");
}

#[test]
fn socket_in_use_is_refused_and_not_disturbed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    let (_reader, events) = start(&path);
    let second = VirtualReader::start(&path, Arc::new(|_| {}));
    assert!(matches!(second.err(), Some(StartError::SocketInUse(in_use)) if in_use == path));
    // The first reader saw no card in the check.
    let _card = UnixStream::connect(&path).unwrap();
    assert_eq!(events.plugged().id, DeviceId("virtual#1".into()));
}

#[test]
fn other_file_at_the_socket_path_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reader");
    std::fs::write(&path, "precious").unwrap();
    let started = VirtualReader::start(&path, Arc::new(|_| {}));
    assert!(matches!(started.err(), Some(StartError::Socket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let nowhere = VirtualReader::start(&directory.path().join("no/reader"), Arc::new(|_| {}));
    assert!(matches!(nowhere.err(), Some(StartError::Socket { .. })));
}

type Answer = fn(&[u8]) -> Option<Vec<u8>>;

/// Connects a card. The timeout is short only if a timeout is expected.
fn connect(answer: Answer, expected: &str) -> VpcdConnector {
    let (ours, cards) = UnixStream::pair().unwrap();
    card(cards, answer);
    let timeout = if expected.contains("in time") { Duration::from_secs(1) } else { TIMEOUT };
    VpcdConnector::new(ours, timeout).unwrap()
}

#[test]
fn misbehaving_card_fails_to_open() {
    let rows: [(Answer, &str); 5] = [
        (|_| Some(vec![]), "did not answer in time"),
        (|_| None, "was unplugged"),
        (|m| Some(if m == [4] { framed(b"garbage") } else { vec![] }), "an ATR that is none"),
        (|m| Some(if m == [4] { framed(&[]) } else { vec![] }), "an ATR that is none"),
        (|m| Some(if m == [4] { framed(&[0x3B; 34]) } else { vec![] }), "an ATR that is none"),
    ];
    for (answer, expected) in rows {
        let error = connect(answer, expected).open().err().unwrap().to_string();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

#[test]
fn misbehaving_card_fails_the_job() {
    let rows: [(Answer, &str); 3] = [
        // No answer.
        (|m| if m.len() > 1 { Some(vec![]) } else { well_behaved(m) }, "did not answer in time"),
        // Fewer bytes than announced.
        (|m| if m.len() > 1 { Some(vec![0, 9, 1]) } else { well_behaved(m) }, "in time"),
        // Disconnected.
        (|m| if m.len() > 1 { None } else { well_behaved(m) }, "was unplugged"),
    ];
    for (answer, expected) in rows {
        let mut transport = connect(answer, expected).open().unwrap();
        for _ in 0..2 {
            let error = transport.transmit(&[0, 1, 0, 0]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} instead of {expected:?}");
        }
    }
}

/// An answer that arrives after its job timed out is not taken for an answer to the next job.
#[test]
fn late_answer_is_discarded() {
    let (ours, mut card) = UnixStream::pair().unwrap();
    let connector = VpcdConnector::new(ours, Duration::from_secs(1)).unwrap();
    card.set_read_timeout(Some(TIMEOUT)).unwrap();
    let respond = |card: &mut UnixStream, until: &[u8], reply: &[u8]| {
        let mut message = Vec::new();
        while message != until {
            let mut length = [0; 2];
            card.read_exact(&mut length).unwrap();
            message = vec![0; usize::from(u16::from_be_bytes(length))];
            card.read_exact(&mut message).unwrap();
        }
        card.write_all(reply).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| respond(&mut card, &[4], &framed(ATR)));
        let mut transport = connector.open().unwrap();
        assert_eq!(transport.transmit(&[0, 1, 0, 0]), Err(TransportError::Timeout));
    });
    respond(&mut card, &[0, 1, 0, 0], &framed(&[0x6F, 0]));
    thread::scope(|scope| {
        scope.spawn(|| {
            respond(&mut card, &[4], &framed(ATR));
            respond(&mut card, &[0, 2, 0, 0], &framed(&[0x90, 0]));
        });
        let mut transport = connector.open().unwrap();
        assert_eq!(transport.transmit(&[0, 2, 0, 0]), Ok(vec![0x90, 0]));
    });
}
