//! The daemon under a service manager: its notifications, its watchdog and its idle exit.

use std::{
    fs, io::IoSliceMut, mem::MaybeUninit, os::unix::net::UnixDatagram, path::PathBuf, sync::mpsc,
};

use keywright_bus_tests::{LIMIT, Station, card::Reaction, daemon::Launch};
use rustix::{
    fd::OwnedFd,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid},
};
use zbus::fdo::DBusProxy;

/// A service manager: hears what the daemon says.
struct Manager {
    heard: mpsc::Receiver<(String, Option<OwnedFd>)>,
}

impl Manager {
    /// Listens where the daemon is told to speak, and has the daemon end when it is not needed for so many seconds.
    fn supervise(launch: &mut Launch, seconds: u32) -> Self {
        let directory = launch.state_dir.parent().unwrap();
        let (notify, config): (PathBuf, PathBuf) =
            (directory.join("notify"), directory.join("config.toml"));
        let socket = UnixDatagram::bind(&notify).unwrap();
        fs::write(&config, format!("idle_exit_seconds = {seconds}\n")).unwrap();
        launch.notify = Some(notify);
        launch.config = Some(config);
        // At once, as a service manager does: the kernel keeps only some that nobody has read, and the daemon waits then.
        let (send, heard) = mpsc::channel();
        std::thread::spawn(move || while send.send(hear(&socket)).is_ok() {});
        Self { heard }
    }

    /// Everything up to the barrier, and the descriptor by which it is held.
    fn until_barrier(&self) -> (Vec<String>, OwnedFd) {
        let mut heard = Vec::new();
        loop {
            let (state, descriptor) = self.heard.recv_timeout(LIMIT).unwrap();
            heard.push(state);
            if let Some(descriptor) = descriptor {
                return (heard, descriptor);
            }
        }
    }
}

/// The next message, and the descriptor that came with it.
fn hear(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let mut buffer = [0; 128];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    );
    let length = received.unwrap().bytes;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), descriptor)
}

async fn station(seconds: u32) -> (Station, Manager) {
    let mut manager = None;
    let prepare = |launch: &mut Launch| manager = Some(Manager::supervise(launch, seconds));
    let station = Station::prepared(prepare).await;
    (station, manager.unwrap())
}

#[tokio::test]
async fn watchdog_runs_during_work_and_the_idle_daemon_exits() {
    // Longer than a Key takes to come.
    let (mut station, manager) = station(5).await;
    let key = station.plug("1").await;
    station.make_master(&key, "M").await;
    station.unplug(key).await;
    let (heard, barrier) = manager.until_barrier();
    assert_eq!(heard.first().map(String::as_str), Some("READY=1"), "{heard:?}");
    assert_eq!(heard[heard.len() - 2..], ["STOPPING=1", "BARRIER=1"]);
    // The watch begins and ends, each time.
    let watch: Vec<_> = heard
        .iter()
        .filter(|state| state.starts_with("WATCHDOG_USEC="))
        .map(String::as_str)
        .collect();
    assert!(!watch.is_empty(), "{heard:?}");
    for pair in watch.chunks(2) {
        assert_eq!(pair, ["WATCHDOG_USEC=30000000\nWATCHDOG=1", "WATCHDOG_USEC=0"]);
    }

    // It has said that it stops; whoever calls before it has given its name back is answered. The bus has passed the
    // call on when it answers a later one of the same connection.
    let manager_proxy = station.client.manager().await;
    let call =
        tokio::spawn(async move { manager_proxy.list_keys(Default::default(), "", 10).await });
    let bus = DBusProxy::new(station.client.connection()).await.unwrap();
    tokio::task::yield_now().await;
    bus.get_id().await.unwrap();
    drop(barrier);
    let (keys, _) = call.await.unwrap().unwrap();
    assert_eq!(keys.len(), 1);
    let status = station.daemon.ended().await;
    assert!(status.success(), "{status}");

    // Back, with nothing lost.
    station.daemon.restart(station.client.connection()).await;
    let (keys, _) =
        station.client.manager().await.list_keys(Default::default(), "", 10).await.unwrap();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn key_plugged_during_idle_exit_restarts_the_daemon() {
    let (mut station, manager) = station(1).await;
    let (_, barrier) = manager.until_barrier();
    let (asked, is_asked) = mpsc::channel();
    let script = move |_, _: &[u8]| {
        // Nobody waits for the second command.
        let _ = asked.send(());
        Reaction::Forward
    };
    let key = station.insert_scripted("1", &[], Box::new(script));
    is_asked.recv_timeout(LIMIT).unwrap();
    drop(barrier);
    let status = station.daemon.ended().await;
    assert_eq!(status.code(), Some(75));
    drop(key);
}

/// Its front-end took the code and has gone, and so have both Keys.
#[tokio::test]
async fn unused_recovery_code_does_not_prevent_idle_exit() {
    let (mut station, manager) = station(5).await;
    let (master, candidate, job) = station.at_pins().await;
    let proxy = station.client.serialization(&job).await;
    proxy.take_recovery_code().await.unwrap();
    station.unplug(candidate).await;
    station.watch.until_step(&job, "awaiting-key").await;
    proxy.release().await.unwrap();
    station.unplug(master).await;
    let (_, barrier) = manager.until_barrier();
    drop(barrier);
    let status = station.daemon.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn daemon_exits_with_an_error_when_hotplug_fails() {
    let mut station = Station::start().await;
    let pid = station.daemon.pid();
    // The thread that hears of them waits for two descriptors, which the kernel refuses under this limit. A wait that is
    // under way is begun anew when the process goes on after a stop.
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let status = station.daemon.ended().await;
    assert_eq!(status.code(), Some(1), "{}", station.daemon.log());
    assert!(station.daemon.log().contains("plugs cannot be heard of"), "{}", station.daemon.log());
}
