//! Exchanges CCID messages over a pair of bulk pipes, and aborts a command that failed (CCID rev. 1.1, 5.3.1).

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::ccid::{self, Exchange, HEADER, Next, Reader};
use super::{Limits, Transport, TransportError};

/// How long to wait for one message. A token that needs longer asks for more time before that.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for one command, however often the token asks for more time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for a token that is being released or aborted.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The bulk pipes of a CCID interface.
pub trait Pipe: Send {
    /// The packet size of the bulk-in pipe, in bytes; never 0.
    fn packet(&self) -> usize;
    /// Writes to the bulk-out pipe and returns the number of bytes written.
    fn write(&mut self, bytes: &[u8], timeout: Duration) -> Result<usize, TransportError>;
    /// Reads from the bulk-in pipe until the buffer is full or a short packet arrives; returns the number of bytes read.
    fn read(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, TransportError>;
    /// Sends the class request ABORT (CCID 5.3.1).
    fn request_abort(&mut self, sequence: u8, timeout: Duration) -> Result<(), TransportError>;
    /// Clears the halt of both pipes.
    fn clear_halts(&mut self) -> Result<(), TransportError>;
}

/// A token behind a CCID interface. Dropping it powers the token off.
pub struct CcidTransport<P: Pipe> {
    pipe: P,
    reader: Reader,
    sequence: u8,
}

impl<P: Pipe> CcidTransport<P> {
    /// Powers the token on.
    ///
    /// # Errors
    /// [`TransportError::Unusable`] if no card is in the reader.
    pub fn open(pipe: P, reader: Reader) -> Result<Self, TransportError> {
        let mut transport = CcidTransport { pipe, reader, sequence: 0 };
        let answer = transport.exchange(|sequence| ccid::power_on(sequence, reader.power))?;
        ccid::check_atr(&answer)?;
        Ok(transport)
    }

    /// Sends one message and waits for the whole response; aborts the command after a failure.
    fn exchange(
        &mut self,
        message: impl FnOnce(u8) -> Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, TransportError> {
        self.sequence = self.sequence.wrapping_add(1);
        let answer = self.send_and_wait(&message(self.sequence));
        if matches!(answer, Err(TransportError::Timeout | TransportError::Protocol(_))) {
            self.abort();
        }
        answer
    }

    fn send_and_wait(&mut self, message: &[u8]) -> Result<Vec<u8>, TransportError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let mut exchange = Exchange::new(self.sequence);
        self.write(message, MESSAGE_TIMEOUT)?;
        while Instant::now() < deadline {
            let received = self.read(MESSAGE_TIMEOUT)?;
            match exchange.receive(&received)? {
                Next::Read => {}
                Next::Send(message) => {
                    self.sequence = exchange.sequence();
                    self.write(&message, MESSAGE_TIMEOUT)?;
                }
                Next::Done(answer) => return Ok(answer),
            }
        }
        Err(TransportError::Timeout)
    }

    fn write(&mut self, message: &[u8], timeout: Duration) -> Result<(), TransportError> {
        match self.pipe.write(message, timeout)? {
            written if written == message.len() => Ok(()),
            _ => Err(TransportError::Timeout),
        }
    }

    /// Reads one message, its header first. A message that fills its last packet may come without a zero-length packet
    /// after it; a longer read would then wait until its timeout.
    fn read(&mut self, timeout: Duration) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        let mut message = Zeroizing::new(Vec::new());
        let mut length = HEADER;
        while message.len() < length {
            let begin = message.len();
            let packets = (length - begin).div_ceil(self.pipe.packet());
            message.resize(begin + packets * self.pipe.packet(), 0);
            let read = self.pipe.read(&mut message[begin..], timeout)?;
            message.truncate(begin + read);
            if !message.is_empty() {
                length = ccid::message_length(&message, self.reader.longest_message)?;
            } // else: the zero-length packet after the previous message.
        }
        Ok(message)
    }

    /// Aborts the current command (CCID 5.3.1): sends the class request and the bulk message ABORT, then discards messages
    /// until the abort is confirmed. If that fails, nothing more can be done.
    fn abort(&mut self) {
        let asked = self.pipe.request_abort(self.sequence, CLEANUP_TIMEOUT);
        let cleared = self.pipe.clear_halts();
        if asked.and(cleared).is_err()
            || self.write(&ccid::abort(self.sequence), CLEANUP_TIMEOUT).is_err()
        {
            return;
        }
        let deadline = Instant::now() + CLEANUP_TIMEOUT;
        while Instant::now() < deadline {
            match self.read(CLEANUP_TIMEOUT) {
                Ok(message) if ccid::ends_abort(&message, self.sequence) => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

impl<P: Pipe> Transport for CcidTransport<P> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.exchange(|sequence| ccid::transfer(sequence, command))
    }

    fn limits(&self) -> Limits {
        self.reader.limits()
    }
}

impl<P: Pipe> Drop for CcidTransport<P> {
    fn drop(&mut self) {
        // Best effort, because the token may be unplugged.
        let message = ccid::power_off(self.sequence.wrapping_add(1));
        if self.write(&message, CLEANUP_TIMEOUT).is_ok() {
            let _ = self.read(CLEANUP_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

    const READER: Reader = Reader { longest_message: 3072, extended: true, power: 0 };
    const ON: (&str, &[&str]) = ("62000000000001000000", &["800200000000010000003b80"]);

    /// Expected writes with the packets that answer them; "halt" and "abort" log the requests.
    #[derive(Default)]
    struct Script {
        steps: VecDeque<(&'static str, &'static [&'static str])>,
        packets: VecDeque<Vec<u8>>,
        log: Vec<String>,
    }

    #[derive(Clone, Default)]
    struct FakePipe(Arc<Mutex<Script>>);

    impl FakePipe {
        fn new(steps: &[(&'static str, &'static [&'static str])]) -> Self {
            let steps = [ON].iter().chain(steps).copied().collect();
            FakePipe(Arc::new(Mutex::new(Script { steps, ..Script::default() })))
        }

        fn log(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap().log)
        }
    }

    impl Pipe for FakePipe {
        fn packet(&self) -> usize {
            16
        }

        fn write(&mut self, bytes: &[u8], _: Duration) -> Result<usize, TransportError> {
            let mut script = self.0.lock().unwrap();
            script.log.push(hex::encode(bytes));
            let Some((expected, packets)) = script.steps.pop_front() else {
                return Err(TransportError::Gone);
            };
            assert_eq!(hex::encode(bytes), expected);
            let packets: Vec<_> = packets.iter().map(|p| hex::decode(p).unwrap()).collect();
            script.packets.extend(packets);
            Ok(bytes.len())
        }

        /// Like libusb: whole packets, until the buffer is full or a short packet arrives.
        fn read(&mut self, buffer: &mut [u8], _: Duration) -> Result<usize, TransportError> {
            let mut script = self.0.lock().unwrap();
            let mut read = 0;
            while read < buffer.len() {
                let packet = script.packets.pop_front().ok_or(TransportError::Timeout)?;
                buffer[read..read + packet.len()].copy_from_slice(&packet);
                read += packet.len();
                if packet.len() < 16 {
                    break;
                }
            }
            Ok(read)
        }

        fn request_abort(&mut self, sequence: u8, _: Duration) -> Result<(), TransportError> {
            self.0.lock().unwrap().log.push(format!("abort {sequence}"));
            Ok(())
        }

        fn clear_halts(&mut self) -> Result<(), TransportError> {
            self.0.lock().unwrap().log.push("halt".into());
            Ok(())
        }
    }

    fn transmit(packets: &'static [&'static str]) -> Result<String, TransportError> {
        let pipe = FakePipe::new(&[("6f04000000000200000000a40400", packets)]);
        let mut transport = CcidTransport::open(pipe, READER).unwrap();
        transport.transmit(&[0, 0xA4, 4, 0]).map(hex::encode)
    }

    /// Each row: the received packets (of at most 16 bytes), and the response assembled from them.
    #[test]
    fn messages_are_assembled_from_packets() {
        for (packets, expected) in [
            (&["800200000000020000009000"][..], Ok("9000")),
            // More than a packet.
            (&["80080000000002000000010203040506", "9000"], Ok("0102030405069000")),
            // A message that fills its last packet, without and with a zero-length packet before the next.
            (&["80060000000002000000010203049000"], Ok("010203049000")),
            (&["", "800200000000020000009000"], Ok("9000")),
            // More time.
            (&["80000000000002800000", "800200000000020000009000"], Ok("9000")),
            // The rest of the message never comes.
            (&["80080000000002000000010203040506"], Err(TransportError::Timeout)),
            (&[], Err(TransportError::Timeout)),
        ] {
            assert_eq!(transmit(packets), expected.map(str::to_owned), "{packets:?}");
        }
    }

    #[test]
    fn failed_command_is_aborted_and_the_next_one_works() {
        let pipe = FakePipe::new(&[
            // The command fails. The reader still answers the command late, then the abort.
            ("6f04000000000200000000a40400", &["8000000000000240fe00"]),
            ("72000000000002000000", &["800200000000020000009000", "81000000000002000000"]),
            ("6f04000000000300000000a40400", &["800200000000030000006a82"]),
            ("63000000000004000000", &["81000000000004000000"]),
        ]);
        let mut transport = CcidTransport::open(pipe.clone(), READER).unwrap();
        pipe.log();
        assert!(matches!(transport.transmit(&[0, 0xA4, 4, 0]), Err(TransportError::Protocol(_))));
        assert_eq!(pipe.log()[1..], ["abort 2", "halt", "72000000000002000000"]);
        assert_eq!(transport.transmit(&[0, 0xA4, 4, 0]), Ok(vec![0x6A, 0x82]));
        // Dropping it powers the token off.
        drop(transport);
        assert_eq!(pipe.log().last().unwrap(), "63000000000004000000");
        assert!(pipe.0.lock().unwrap().steps.is_empty());
    }

    #[test]
    fn unplugged_token_is_not_aborted() {
        let pipe = FakePipe::new(&[]);
        let mut transport = CcidTransport::open(pipe.clone(), READER).unwrap();
        assert_eq!(transport.transmit(&[0, 0xA4, 4, 0]), Err(TransportError::Gone));
        assert!(!pipe.log().contains(&"halt".to_owned()));
    }

    #[test]
    fn empty_reader_is_unusable() {
        let steps = [("62000000000001000000", &["8000000000000142fe00"][..])].into();
        let pipe = FakePipe(Arc::new(Mutex::new(Script { steps, ..Script::default() })));
        let error = CcidTransport::open(pipe, READER).err().unwrap();
        assert_eq!(error, TransportError::Unusable("no card is in its reader".into()));
    }
}
