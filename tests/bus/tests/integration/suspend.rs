//! A suspend is delayed only while a Key is written; afterwards every token is read again. The test imitates logind; the
//! tests on the guest use the real one.

use std::{fs::File, io::Read, os::fd::OwnedFd, sync::mpsc, time::Duration};

use keywright_bus_tests::{
    Answers, Station,
    bus::Bus,
    card::{GENERATE, Reaction},
};
use keywrightd::{bus::sleep::guard, view::Activity};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use zbus::{interface, object_server::SignalEmitter};

const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a pipe for each inhibitor; the caller holds the inhibitor until it closes its end.
struct Logind(mpsc::Sender<([String; 4], OwnedFd)>);

#[interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn inhibit(&self, what: String, who: String, why: String, mode: String) -> zbus::OwnedFd {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        self.0.send(([what, who, why, mode], ours)).unwrap();
        theirs.into()
    }

    #[zbus(signal)]
    async fn prepare_for_sleep(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

fn is_held(inhibitor: &OwnedFd) -> bool {
    let mut closed = [PollFd::new(inhibitor, PollFlags::empty())];
    poll(&mut closed, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
}

#[tokio::test]
async fn suspend_is_delayed_while_a_key_is_written() {
    let mut station = Station::start().await;
    let (taken, inhibitors) = mpsc::channel();
    let logind = station.bus.connect().await;
    logind.object_server().at("/org/freedesktop/login1", Logind(taken)).await.unwrap();
    logind.request_name("org.freedesktop.login1").await.unwrap();

    let (found, held) = mpsc::channel();
    let mut inhibitors = Some(inhibitors);
    // The job makes its first key only after it holds the inhibitor.
    let script = move |_, command: &[u8]| {
        if command.get(1) == Some(&GENERATE)
            && let Some(inhibitors) = inhibitors.take()
        {
            let (call, inhibitor) = inhibitors.recv_timeout(PATIENCE).unwrap();
            let is_held = is_held(&inhibitor);
            found.send((call, is_held, inhibitor, inhibitors)).unwrap();
        }
        Reaction::Forward
    };
    let (_card, _key) = station.insert_scripted("1", &[], Box::new(script));
    let find = |objects: &keywright_bus_tests::Objects| {
        objects.present().next().map(|key| key.path.clone())
    };
    let key = station.watch.until("the Key plugged in", find).await;
    station.until_state(&key, "blank").await;
    assert!(held.try_recv().is_err());
    let job = station.client.start_master(&key, "M").await;
    station.finish(&job, &Answers::master("M")).await;

    let (call, was_held, inhibitor, inhibitors) = held.recv_timeout(PATIENCE).unwrap();
    assert_eq!(call, ["sleep", "keywrightd", "a Key is being written", "delay"]);
    assert!(was_held);
    // The write has ended: the daemon has closed its end.
    let end = tokio::task::spawn_blocking(move || File::from(inhibitor).read(&mut [0]).unwrap());
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap(), 0);
    assert!(inhibitors.try_recv().is_err(), "asked once");
}

#[tokio::test]
async fn plugged_in_tokens_are_read_again_after_a_suspend() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::start(dir.path());
    let logind = bus.connect().await;
    let path = "/org/freedesktop/login1";
    logind.object_server().at(path, Logind(mpsc::channel().0)).await.unwrap();
    logind.request_name("org.freedesktop.login1").await.unwrap();
    let (_activity, activity) = tokio::sync::watch::channel(Activity::default());
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let guarded = guard(bus.connect().await, activity, move || sender.send(()).unwrap());
    let tells = async {
        let emitter = SignalEmitter::new(&logind, path).unwrap();
        // Repeated until it has subscribed.
        while receiver.try_recv().is_err() {
            Logind::prepare_for_sleep(&emitter, false).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = guarded => panic!("the bus broke off: {ended:?}"),
        told = tokio::time::timeout(PATIENCE, tells) => told.unwrap(),
    }
}
