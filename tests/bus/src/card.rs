//! A card in the test's own process: it answers by a script, on its own or in front of a virtual
//! Key whose commands it passes on, counts, and cuts off.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The instruction GENERATE ASYMMETRIC KEY PAIR: the first command of a write that cannot be undone.
pub const GENERATE: u8 = 0x47;

/// What the card does with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The virtual Key executes and answers it.
    Forward,
    /// The card answers with these bytes, whatever they are.
    Answer(Vec<u8>),
    /// The connection is cut; the command is not executed.
    Cut,
    /// The virtual Key executes it, and the connection is cut instead of an answer.
    ExecuteAndCut,
    /// No answer, ever.
    Silence,
}

/// Decides on the n-th command APDU since the script was set, counted from 1.
pub type Script = Box<dyn FnMut(usize, &[u8]) -> Reaction + Send>;

/// A card in a reader; pulled out when dropped.
pub struct Card {
    plugged: Instant,
    reader: UnixStream,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

/// A message from the reader, and what the card did with it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// A command APDU, or one byte: a control code of vpcd.
    pub message: Vec<u8>,
    /// When the card received it.
    pub came: Instant,
    /// How long the virtual Key took to answer it; zero if it was not forwarded.
    pub took: Duration,
}

struct Shared {
    script: Script,
    count: usize,
    exchanges: Vec<Exchange>,
}

/// The answer to "power on, tell your ATR" of a [`Card`] without a virtual Key.
const ATR: &[u8] = b"\x3B\x80\x01\x81";
const GET_ATR: &[u8] = &[4];

impl Card {
    /// Plugs a card that only knows its script into the reader that listens on a socket.
    pub fn plug(reader: &Path, script: Script) -> Self {
        Self::plug_with_atr(reader, ATR.into(), script)
    }

    /// Like [`Card::plug`], with this answer to reset.
    pub fn plug_with_atr(reader: &Path, atr: Vec<u8>, script: Script) -> Self {
        Self::run(reader, script, move |message| {
            Ok(if message == GET_ATR { Some(atr.clone()) } else { None })
        })
    }

    /// Plugs the virtual Key that is about to connect to `listener` into the reader, through this
    /// card, which forwards every command until a script is set.
    pub fn in_front_of(listener: &UnixListener, reader: &Path) -> Self {
        Self::scripted_in_front_of(listener, reader, Box::new(|_, _| Reaction::Forward))
    }

    /// Like [`Card::in_front_of`], with a script from the first command on.
    pub fn scripted_in_front_of(listener: &UnixListener, reader: &Path, script: Script) -> Self {
        let (mut key, _) = listener.accept().unwrap();
        Self::run(reader, script, move |message| {
            send(&mut key, message)?;
            if is_answered(message) { receive(&mut key).map(Some) } else { Ok(None) }
        })
    }

    fn run(
        reader: &Path,
        script: Script,
        key: impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>> + Send + 'static,
    ) -> Self {
        let plugged = Instant::now();
        let reader = UnixStream::connect(reader).unwrap();
        let shared = Arc::new(Mutex::new(Shared { script, count: 0, exchanges: Vec::new() }));
        let (stream, known) = (reader.try_clone().unwrap(), shared.clone());
        // The thread ends when the reader, the Key or this card closes a connection.
        let thread = thread::spawn(move || {
            let _ = serve(&stream, &known, key);
            let _ = stream.shutdown(Shutdown::Both);
        });
        Self { plugged, reader, shared, thread: Some(thread) }
    }

    /// When it began to connect to the reader.
    pub fn plugged(&self) -> Instant {
        self.plugged
    }

    /// Replaces the script and restarts the count at 1.
    pub fn script(&self, script: impl FnMut(usize, &[u8]) -> Reaction + Send + 'static) {
        let mut shared = self.shared.lock().unwrap();
        shared.script = Box::new(script);
        shared.count = 0;
    }

    /// Reacts like this to the n-th command from now, and forwards all others.
    pub fn at(&self, n: usize, reaction: Reaction) {
        self.script(move |now, _| if now == n { reaction.clone() } else { Reaction::Forward });
    }

    /// How many commands the card has received since the script was set.
    pub fn count(&self) -> usize {
        self.shared.lock().unwrap().count
    }

    /// All commands since it was plugged in or since this was last called.
    pub fn take_commands(&self) -> Vec<Vec<u8>> {
        let exchanges = self.take_exchanges().into_iter().map(|exchange| exchange.message);
        exchanges.filter(|message| message.len() > 1).collect()
    }

    /// Like [`Card::take_commands`], with times and control codes.
    pub fn take_exchanges(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.shared.lock().unwrap().exchanges)
    }

    /// Pulls it out.
    pub fn unplug(self) {}
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = self.reader.shutdown(Shutdown::Both);
        // A command that the Key is executing is executed to its end: a test decides where a token
        // is when it loses power, and not the moment.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut reader: &UnixStream,
    shared: &Mutex<Shared>,
    mut key: impl FnMut(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<()> {
    loop {
        let message = receive(&mut reader)?;
        let came = Instant::now();
        let reaction = {
            let mut shared = shared.lock().unwrap();
            let took = Duration::ZERO;
            shared.exchanges.push(Exchange { message: message.clone(), came, took });
            if message.len() == 1 {
                Reaction::Forward
            } else {
                shared.count += 1;
                let n = shared.count;
                (shared.script)(n, &message)
            }
        };
        match reaction {
            Reaction::Forward => {
                let answer = key(&message)?;
                if let Some(exchange) = shared.lock().unwrap().exchanges.last_mut() {
                    exchange.took = came.elapsed();
                }
                if let Some(answer) = answer {
                    send(&mut reader, &answer)?;
                }
            }
            Reaction::Answer(answer) => send(&mut reader, &answer)?,
            Reaction::Cut => return Ok(()),
            Reaction::ExecuteAndCut => return key(&message).map(drop),
            Reaction::Silence => (),
        }
    }
}

/// Whether the message has an answer: every command has, and of the control codes only the request for the ATR.
fn is_answered(message: &[u8]) -> bool {
    message.len() > 1 || message == GET_ATR
}

fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// The reader's end of a card that was just plugged in.
    fn plug(script: Script) -> (TempDir, Card, UnixStream) {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("reader");
        let listener = UnixListener::bind(&socket).unwrap();
        let card = Card::plug(&socket, script);
        let (reader, _) = listener.accept().unwrap();
        (dir, card, reader)
    }

    #[test]
    fn card_answers_by_its_script_and_records_commands() {
        let (_dir, card, mut reader) =
            plug(Box::new(|n, _| Reaction::Answer(vec![0x6F, u8::try_from(n).unwrap()])));
        for control in [GET_ATR, &[1]] {
            send(&mut reader, control).unwrap();
        }
        assert_eq!(receive(&mut reader).unwrap(), ATR);
        for n in 1..3 {
            send(&mut reader, &[0, 0xA4, 4, 0]).unwrap();
            assert_eq!(receive(&mut reader).unwrap(), [0x6F, n]);
        }
        assert_eq!(card.count(), 2);
        assert_eq!(card.take_commands(), [[0, 0xA4, 4, 0]; 2]);
    }

    #[test]
    fn card_cuts_the_connection_as_scripted() {
        let (_dir, card, mut reader) = plug(Box::new(|_, _| Reaction::Cut));
        card.script(|n, _| if n == 2 { Reaction::Cut } else { Reaction::Answer(vec![0x90, 0]) });
        send(&mut reader, &[0, 1, 2, 3]).unwrap();
        receive(&mut reader).unwrap();
        send(&mut reader, &[0, 1, 2, 3]).unwrap();
        assert_eq!(receive(&mut reader).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
