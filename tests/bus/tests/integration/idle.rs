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

/// A service manager that receives the daemon's notifications.
struct Manager {
    messages: mpsc::Receiver<(String, Option<OwnedFd>)>,
}

impl Manager {
    /// Gives the daemon a notification socket, and an idle exit after so many seconds.
    fn supervise(launch: &mut Launch, seconds: u32) -> Self {
        let directory = launch.state_dir.parent().unwrap();
        let (notify, config): (PathBuf, PathBuf) =
            (directory.join("notify"), directory.join("config.toml"));
        let socket = UnixDatagram::bind(&notify).unwrap();
        fs::write(&config, format!("idle_exit_seconds = {seconds}\n")).unwrap();
        launch.notify = Some(notify);
        launch.config = Some(config);
        // Read at once, as a service manager does: the kernel queues only some messages, and then the daemon blocks.
        let (send, messages) = mpsc::channel();
        std::thread::spawn(move || while send.send(receive(&socket)).is_ok() {});
        Self { messages }
    }

    /// All messages up to the barrier, and the barrier's descriptor; closing it releases the daemon.
    fn until_barrier(&self) -> (Vec<String>, OwnedFd) {
        let mut messages = Vec::new();
        loop {
            let (state, descriptor) = self.messages.recv_timeout(LIMIT).unwrap();
            messages.push(state);
            if let Some(descriptor) = descriptor {
                return (messages, descriptor);
            }
        }
    }
}

/// The next message, and the descriptor that came with it.
fn receive(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
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
    // Longer than a Key takes to appear.
    let (mut station, manager) = station(5).await;
    let key = station.plug("1").await;
    station.make_master(&key, "M").await;
    station.unplug(key).await;
    let (messages, barrier) = manager.until_barrier();
    assert_eq!(messages.first().map(String::as_str), Some("READY=1"), "{messages:?}");
    assert_eq!(messages[messages.len() - 2..], ["STOPPING=1", "BARRIER=1"]);
    // Each time the watchdog is enabled, it is disabled again.
    let watch: Vec<_> = messages
        .iter()
        .filter(|state| state.starts_with("WATCHDOG_USEC="))
        .map(String::as_str)
        .collect();
    assert!(!watch.is_empty(), "{messages:?}");
    for pair in watch.chunks(2) {
        assert_eq!(pair, ["WATCHDOG_USEC=30000000\nWATCHDOG=1", "WATCHDOG_USEC=0"]);
    }

    // It has announced that it stops; a call made before it releases its name is answered. The bus has delivered the
    // call when it answers a later call of the same connection.
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

    // The daemon runs again, and nothing is lost.
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
        // Only the first command is waited for.
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

/// The front-end took the code and left, and both Keys are unplugged.
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
    // The hotplug thread polls two descriptors, which the kernel refuses under this limit. A poll in progress is
    // restarted when the process continues after a stop.
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let status = station.daemon.ended().await;
    assert_eq!(status.code(), Some(1), "{}", station.daemon.log());
    assert!(station.daemon.log().contains("plugs cannot be heard of"), "{}", station.daemon.log());
}
