//! Notifies the service manager (`sd_notify(3)`) that the daemon is ready, that it stops, and when to watch it. Without
//! a service manager every notification is a no-op.

use std::{
    env, io,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    pipe::{PipeFlags, pipe_with},
};

/// The environment variable with the service manager's socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// How long the service manager may take to read a notification. It is busy while a machine boots.
const BARRIER: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The service manager that started this process, if one did and listens.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
}

impl Supervisor {
    /// The service manager that the environment names.
    pub fn from_environment() -> Self {
        let socket = env::var_os(SOCKET_VARIABLE).map(|name| connect(name.as_bytes()));
        let socket = socket.transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told anything");
            None
        });
        Self { socket }
    }

    /// Whether a service manager runs this daemon, and so can start it again.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Notifies that the daemon accepts calls.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// Notifies that the daemon stops: from now on a request to start the service means a new process. Returns once the
    /// service manager has read this; requests that came before were meant for this process.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
        if let Some(socket) = &self.socket
            && let Err(error) = barrier(socket)
        {
            tracing::warn!(%error, "the service manager did not say that it has read everything");
        }
    }

    /// Starts the watchdog: the service manager kills this process if [`Supervisor::alive`] is not called for this
    /// long.
    pub fn watch(&self, limit: Duration) {
        self.tell(&format!("WATCHDOG_USEC={}\nWATCHDOG=1", limit.as_micros()));
    }

    /// Resets the watchdog.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Stops the watchdog.
    pub fn unwatch(&self) {
        self.tell("WATCHDOG_USEC=0");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(state, %error, "cannot notify the service manager");
        }
    }
}

/// Parses a path, or the name of an abstract socket after `@`.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Sends one end of a pipe. The service manager closes it when it has read everything sent before.
fn barrier(socket: &UnixDatagram) -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    {
        let descriptors = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(socket, &[IoSlice::new(b"BARRIER=1")], &mut message, SendFlags::NOSIGNAL)?;
    }
    drop(theirs);
    let mut closed = [PollFd::new(&ours, PollFlags::empty())];
    match poll(&mut closed, Some(&BARRIER))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::IoSliceMut, thread};

    use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};

    use super::*;

    fn supervised() -> (Supervisor, UnixDatagram, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        listening.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let socket = connect(path.as_os_str().as_bytes()).unwrap();
        (Supervisor { socket: Some(socket) }, listening, directory)
    }

    fn received(listening: &UnixDatagram) -> String {
        let mut buffer = [0; 128];
        let length = listening.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_said_in_the_words_of_sd_notify() {
        let (supervisor, listening, _directory) = supervised();
        supervisor.ready();
        assert_eq!(received(&listening), "READY=1");
        supervisor.watch(Duration::from_secs(30));
        assert_eq!(received(&listening), "WATCHDOG_USEC=30000000\nWATCHDOG=1");
        supervisor.alive();
        assert_eq!(received(&listening), "WATCHDOG=1");
        supervisor.unwatch();
        assert_eq!(received(&listening), "WATCHDOG_USEC=0");
    }

    #[test]
    fn stopping_returns_when_everything_was_read() {
        let (supervisor, listening, _directory) = supervised();
        let manager = thread::spawn(move || {
            let first = received(&listening);
            let mut buffer = [0; 16];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &listening,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let descriptors = ancillary.drain().count();
            (first, buffer[..received.unwrap().bytes].to_vec(), descriptors)
            // `ancillary` is dropped here, which closes the received descriptor.
        });
        supervisor.stopping();
        let (first, second, descriptors) = manager.join().unwrap();
        assert_eq!(
            (first.as_str(), &second[..], descriptors),
            ("STOPPING=1", &b"BARRIER=1"[..], 1)
        );
    }

    #[test]
    fn an_abstract_socket_is_found() {
        let name = format!("keywright-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listening = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(format!("@{name}").as_bytes()).unwrap();
        Supervisor { socket: Some(socket) }.ready();
        assert_eq!(received(&listening), "READY=1");
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let supervisor = Supervisor { socket: None };
        supervisor.ready();
        supervisor.stopping();
        assert!(!supervisor.is_there());
    }
}
