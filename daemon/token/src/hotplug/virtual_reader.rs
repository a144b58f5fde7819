//! The virtual reader: a Unix stream socket to which card programs connect (vpcd protocol), each as one plugged-in token.
//!
//! For tests and demos. Packaged builds do not contain it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Device, DeviceId, PlugEvent, Sink, StartError};
use crate::vpcd::{ANSWER_TIMEOUT, VpcdConnector};

/// The port of all cards, because a connection has no physical place.
const PORT: &str = "virtual";

/// The virtual reader. Dropping it ends its thread and removes the socket file; present cards are not reported as
/// unplugged.
pub struct VirtualReader {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl VirtualReader {
    /// Listens on a socket and starts the thread "virtual-reader", which calls `sink` with [`PlugEvent::Settled`] and
    /// then for each card program that connects or disconnects.
    ///
    /// # Errors
    /// [`StartError::SocketInUse`], [`StartError::Socket`].
    pub fn start(path: &Path, sink: Sink) -> Result<Self, StartError> {
        let failed = |source| StartError::Socket { path: path.to_owned(), source };
        let listener = listen(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let thread = thread::Builder::new()
            .name("virtual-reader".into())
            .spawn(move || {
                sink(PlugEvent::Settled);
                let mut slots = Slots { sink, cards: Vec::new(), plugs: 0 };
                if let Err(error) = slots.serve(&listener, &stopped) {
                    tracing::error!(%error, "the virtual reader has stopped");
                }
            })
            .map_err(failed)?;
        Ok(VirtualReader { stop: Some(stop), thread: Some(thread), path: path.to_owned() })
    }
}

impl Drop for VirtualReader {
    fn drop(&mut self) {
        // The thread sees the other end close.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // A socket file that is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Slots {
    sink: Sink,
    cards: Vec<Card>,
    plugs: u64,
}

struct Card {
    id: DeviceId,
    /// Only watched for its end. Reading it would take responses from a job.
    watched: UnixStream,
}

impl Slots {
    /// Serves connections and disconnections until `stopped` is closed.
    fn serve(&mut self, listener: &UnixListener, stopped: &UnixStream) -> io::Result<()> {
        loop {
            let mut waiting = vec![
                PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            ];
            waiting.extend(
                self.cards
                    .iter()
                    .map(|card| PollFd::from_borrowed_fd(card.watched.as_fd(), PollFlags::RDHUP)),
            );
            match poll(&mut waiting, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            let [stop, connection, ref gone @ ..] = ready[..] else { return Ok(()) };
            if stop {
                return Ok(());
            }
            self.unplug(gone);
            if connection {
                self.plug(listener)?;
            }
        }
    }

    fn unplug(&mut self, gone: &[bool]) {
        let mut gone = gone.iter();
        let sink = &self.sink;
        self.cards.retain(|card| {
            let stays = gone.next() != Some(&true);
            if !stays {
                sink(PlugEvent::Unplugged(card.id.clone()));
            }
            stays
        });
    }

    fn plug(&mut self, listener: &UnixListener) -> io::Result<()> {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The program disconnected before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
            Err(error) => return Err(error),
        };
        let watched = stream.try_clone()?;
        let connector = VpcdConnector::new(stream, ANSWER_TIMEOUT)?;
        self.plugs += 1;
        let id = DeviceId(format!("{PORT}#{}", self.plugs));
        self.cards.push(Card { id: id.clone(), watched });
        (self.sink)(PlugEvent::Plugged(Device {
            id,
            port: PORT.into(),
            model: "Virtual reader".into(),
            usb_serial: None,
            connector: Arc::new(connector),
        }));
        Ok(())
    }
}

/// Binds the socket. A socket file without a listener is replaced.
fn listen(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |source| StartError::Socket { path: path.to_owned(), source };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(failed),
    }
    let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
    if !kind.is_socket() {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "it is not a socket")));
    }
    // A datagram socket cannot connect to a stream socket, but its error tells whether a program listens there, and the
    // listener does not see a connection.
    let probe = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    match probe {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)
        }
        _ => Err(StartError::SocketInUse(path.to_owned())),
    }
}
