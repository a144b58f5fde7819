//! Talks to a card program on a Unix stream socket with the vpcd protocol of vsmartcard.
//!
//! A message is a two-byte big-endian length and that many bytes. A message of one byte is a control command; any other
//! is an APDU.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Connector, Limits, Transport, TransportError};

const POWER_OFF: u8 = 0;
const POWER_ON: u8 = 1;
const RESET: u8 = 2;
const GET_ATR: u8 = 4;
/// How long to wait for a response. The protocol has no request for more time, and the slowest command of a software card
/// takes milliseconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The APDU sizes of the product behind the card program when it is connected by USB.
const LIMITS: Limits = Limits { extended: true, longest_command: 3072 - 10 };

/// Opens a card program that connected to the virtual reader.
pub struct VpcdConnector {
    link: Arc<Mutex<Link>>,
}

struct Link {
    stream: UnixStream,
    /// A job has the card open.
    taken: bool,
}

impl VpcdConnector {
    /// Creates a connector for the card program at the other end of `stream`, with this timeout for each response.
    pub fn new(stream: UnixStream, timeout: Duration) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(VpcdConnector { link: Arc::new(Mutex::new(Link { stream, taken: false })) })
    }
}

impl Connector for VpcdConnector {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        {
            let mut link = lock(&self.link);
            if link.taken {
                return Err(TransportError::Busy { holder: "another job".into() });
            }
            link.taken = true;
        }
        // Dropping it from here on releases the card.
        let transport = VpcdTransport { link: Arc::clone(&self.link), failed: None };
        transport.drain()?;
        transport.send(&[POWER_ON])?;
        transport.send(&[RESET])?;
        transport.send(&[GET_ATR])?;
        check_atr(&transport.receive()?)?;
        Ok(Box::new(transport))
    }
}

struct VpcdTransport {
    link: Arc<Mutex<Link>>,
    /// The first failure. Every later command fails with it, because commands and responses may no longer match.
    failed: Option<TransportError>,
}

impl VpcdTransport {
    fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let length = u16::try_from(bytes.len())
            .map_err(|_| TransportError::Protocol("a command of more than 65,535 bytes".into()))?;
        // In one write, so that the message is sent at once.
        let message = Zeroizing::new([&length.to_be_bytes()[..], bytes].concat());
        lock(&self.link).stream.write_all(&message).map_err(|error| failure(&error))
    }

    fn receive(&self) -> Result<Vec<u8>, TransportError> {
        let stream = &mut lock(&self.link).stream;
        let mut length = [0; 2];
        stream.read_exact(&mut length).map_err(|error| failure(&error))?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes).map_err(|error| failure(&error))?;
        Ok(bytes)
    }

    /// Discards responses that an earlier job left unread.
    fn drain(&self) -> Result<(), TransportError> {
        let stream = &mut lock(&self.link).stream;
        stream.set_nonblocking(true).map_err(|error| failure(&error))?;
        let drained = loop {
            match stream.read(&mut [0; 1024]) {
                Ok(0) => break Err(TransportError::Gone),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(failure(&error)),
            }
        };
        stream.set_nonblocking(false).map_err(|error| failure(&error))?;
        drained
    }
}

impl Transport for VpcdTransport {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let answer = self.send(command).and_then(|()| self.receive());
        self.failed = answer.as_ref().err().cloned();
        answer
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

impl Drop for VpcdTransport {
    fn drop(&mut self) {
        // Best effort, because the program may have ended.
        let _ = self.send(&[POWER_OFF]);
        lock(&self.link).taken = false;
    }
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks an answer to reset (ISO/IEC 7816-3, 8.2): direct or inverse convention, at most 33 bytes.
fn check_atr(atr: &[u8]) -> Result<(), TransportError> {
    match atr {
        [0x3B | 0x3F, _, ..] if atr.len() <= 33 => Ok(()),
        _ => Err(TransportError::Protocol("an ATR that is none".into())),
    }
}

fn failure(error: &std::io::Error) -> TransportError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => TransportError::Timeout,
        _ => TransportError::Gone,
    }
}
