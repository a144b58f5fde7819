//! The machine that one test has: the daemon as systemd runs it, ports to plug Keys into, a caller and a watcher.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use keywright_bus_tests::{Answers, Client, Objects, Watch, api, certs, pins};
use tempfile::TempDir;
use zbus::{Connection, OwnedObjectPath, connection, fdo::DBusProxy};

use crate::{
    key::UsbKey,
    system::{self, UNIT},
    vhci,
};

/// Where the unit keeps its state.
pub const STATE: &str = "/var/lib/keywright";
/// What an administrator writes; tests begin without.
pub const CONFIG: &str = "/etc/keywright/keywrightd.toml";
/// The Master's name.
pub const MASTER: &str = "master";
/// Where a Master that was made, and the daemon's state that knows it, are kept for other tests.
const COPY: &str = "/run/made-once";
/// Longer than anything that the daemon may take over an answer.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Everything that one test needs. Fields are dropped in this order.
pub struct Machine {
    /// A watcher.
    pub watch: Watch,
    /// A caller.
    pub client: Client,
    dir: TempDir,
}

/// A Key that is plugged in, and the daemon's object for it; pulled out when dropped.
pub struct Plugged {
    /// The Key's object.
    pub path: OwnedObjectPath,
    /// What it is called; names the file of its memory.
    pub name: String,
    /// The Key.
    pub key: UsbKey,
}

/// Nothing is plugged in, no daemon runs, and it has no state.
pub fn reset() {
    for (port, free) in vhci::ports() {
        if !free {
            vhci::pull(port);
            vhci::wait_until_free(port);
        }
    }
    system::run("udevadm settle");
    system::run(&format!("systemctl unmask --quiet --runtime {UNIT}"));
    // Plugs may have queued a start of it.
    system::run(&format!("systemctl stop {UNIT}"));
    system::sh(&format!("systemctl reset-failed {UNIT}"));
    system::run(&format!("rm -rf {STATE}/* {CONFIG}"));
}

/// A new connection to the system bus.
pub async fn connect() -> Connection {
    connection::Builder::system()
        .method_timeout(CALL_LIMIT)
        // Signals wait here while a test does something else.
        .max_queued(NonZeroUsize::new(0x10000).unwrap())
        .build()
        .await
        .unwrap()
}

impl Machine {
    /// A machine with a running daemon, and nothing plugged in.
    pub async fn start() -> Self {
        let machine = Self::stopped().await;
        machine.start_daemon();
        machine
    }

    /// The same, but the daemon does not run yet.
    pub async fn stopped() -> Self {
        reset();
        let dir = TempDir::new().unwrap();
        let (client, watch) = (Client::new(connect().await), Watch::start(connect().await).await);
        Self { watch, client, dir }
    }

    /// Starts the daemon; returns when systemd says that it has started.
    pub fn start_daemon(&self) {
        system::run(&format!("systemctl start {UNIT}"));
    }

    /// Waits until the daemon has its name on the bus, without calling it: that would start it.
    pub async fn until_owned(&self) {
        let dbus = DBusProxy::new(self.client.connection()).await.unwrap();
        let changed = [(0, api::NAME)];
        let mut owners = dbus.receive_name_owner_changed_with_args(&changed).await.unwrap();
        while !dbus.name_has_owner(api::NAME.try_into().unwrap()).await.unwrap() {
            owners.next().await.unwrap();
        }
    }

    /// Waits until the daemon is another process than this one and has its name.
    pub async fn until_owned_by_another(&self, process: &str) {
        let dbus = DBusProxy::new(self.client.connection()).await.unwrap();
        let changed = [(0, api::NAME)];
        let mut owners = dbus.receive_name_owner_changed_with_args(&changed).await.unwrap();
        loop {
            let name = api::NAME.try_into().unwrap();
            let owner = dbus.get_connection_unix_process_id(name).await;
            if owner.is_ok_and(|owner| owner.to_string() != process) {
                return;
            }
            owners.next().await.unwrap();
        }
    }

    /// The file that holds the memory of the Key of this name.
    pub fn memory(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.key"))
    }

    /// Plugs in without waiting for the daemon, into the first port that is free.
    pub fn insert(&self, name: &str, options: &[&str]) -> UsbKey {
        let port = *vhci::free_ports().first().expect("a port is free");
        self.insert_at(name, port, options)
    }

    /// Plugs in without waiting for the daemon.
    pub fn insert_at(&self, name: &str, port: usize, options: &[&str]) -> UsbKey {
        UsbKey::plug(&self.memory(name), name, port, options)
    }

    /// Plugs in the Key of this name, from the factory when it is new, and waits for its object.
    pub async fn plug(&mut self, name: &str) -> Plugged {
        self.plug_with(name, &[]).await
    }

    /// The same with more arguments for the virtual Key.
    pub async fn plug_with(&mut self, name: &str, options: &[&str]) -> Plugged {
        let key = self.insert(name, options);
        self.until_shown(name, key).await
    }

    /// The same into this port.
    pub async fn plug_at(&mut self, name: &str, port: usize) -> Plugged {
        let key = self.insert_at(name, port, &[]);
        self.until_shown(name, key).await
    }

    /// Waits for the object of a Key that was inserted.
    pub async fn until_shown(&mut self, name: &str, key: UsbKey) -> Plugged {
        let path = self.until_shown_in(key.port).await;
        Plugged { path, name: name.into(), key }
    }

    /// Waits for the object of whatever is in this port.
    pub async fn until_shown_in(&mut self, port: usize) -> OwnedObjectPath {
        let place = format!("usb-{}", vhci::device_name(port));
        let there = |objects: &Objects| {
            objects.present().find(|key| key.text("Port") == place).map(|key| key.path.clone())
        };
        self.watch.until(&format!("a Key in {place}"), there).await
    }

    /// Pulls a Key out and waits until the daemon has seen it.
    pub async fn unplug(&mut self, plugged: Plugged) -> OwnedObjectPath {
        let Plugged { path, key, .. } = plugged;
        drop(key);
        self.until_gone(&path).await;
        path
    }

    /// Waits until the daemon has seen that a Key is gone.
    pub async fn until_gone(&mut self, path: &OwnedObjectPath) {
        let gone =
            |objects: &Objects| (!objects.present().any(|key| key.path == *path)).then_some(());
        self.watch.until("the Key gone", gone).await;
    }

    /// Waits for what a Key is: `blank`, `master`…
    pub async fn until_state(&mut self, key: &OwnedObjectPath, state: &str) {
        let check = |objects: &Objects| (objects.key(key)?.text("State") == state).then_some(());
        self.watch.until(&format!("{} {state}", key.as_str()), check).await;
    }

    /// Waits until some Key that is plugged in is this: `blank`, `master`…
    pub async fn until_present(&mut self, state: &str) {
        let check = |objects: &Objects| {
            objects.present().any(|key| key.text("State") == state).then_some(())
        };
        self.watch.until(&format!("a Key that is {state}"), check).await;
    }

    /// A machine with a running daemon and a Master Key that has one Lock, plugged in.
    pub async fn with_master() -> (Self, Plugged) {
        let mut machine = Self::with_absent_master().await;
        let master = machine.plug(MASTER).await;
        machine.until_state(&master.path, "master").await;
        (machine, master)
    }

    /// The same, the Master not plugged in. It is made once, and after that taken from a copy.
    pub async fn with_absent_master() -> Self {
        let copy = Path::new(COPY);
        if !copy.exists() {
            let mut machine = Self::start().await;
            let key = machine.plug(MASTER).await;
            machine.until_state(&key.path, "blank").await;
            let job = machine.client.start_master(&key.path, MASTER).await;
            machine.finish(&job, &Answers::master(MASTER)).await;
            machine.until_state(&key.path, "master").await;
            machine.add_lock(&key, "gate").await;
            machine.unplug(key).await;
            system::run(&format!("systemctl stop {UNIT} && mkdir {COPY}"));
            system::run(&format!("cp -a {STATE} {COPY}/state"));
            fs::copy(machine.memory(MASTER), copy.join("key")).unwrap();
        }
        let machine = Self::stopped().await;
        system::run(&format!("cp -a {COPY}/state/. {STATE}/"));
        fs::copy(copy.join("key"), machine.memory(MASTER)).unwrap();
        machine.start_daemon();
        machine
    }

    /// Serializes a Key to a new Lock, and returns the Lock's id and chain.
    pub async fn add_lock(&self, issuer: &Plugged, name: &str) -> (String, String) {
        let manager = self.client.manager().await;
        let request = certs::request(name);
        manager.add_lock(&issuer.path, name, &request, pins::pipe(pins::PIN)).await.unwrap()
    }

    /// Waits for the offer for this pair.
    pub async fn offer(&mut self, issuer: &Plugged, candidate: &Plugged) -> OwnedObjectPath {
        let find =
            |objects: &Objects| Some(objects.offer(&issuer.path, &candidate.path)?.path.clone());
        self.watch.until("an offer for the pair", find).await
    }

    /// Takes the offer for this pair and goes through with it.
    pub async fn make(&mut self, issuer: &Plugged, candidate: &Plugged, answers: &Answers) {
        let job = self.offer(issuer, candidate).await;
        self.finish(&job, answers).await;
        self.until_state(&candidate.path, answers.kind).await;
    }

    /// Answers everything and finishes.
    pub async fn finish(&mut self, job: &OwnedObjectPath, answers: &Answers) {
        let ended = self.client.answer_all(&mut self.watch, job, answers).await;
        ended.assert_finished();
        self.client.serialization(job).await.finish().await.unwrap();
        let gone = |objects: &Objects| objects.serialization(job).is_none().then_some(());
        self.watch.until("the object removed by Finish", gone).await;
    }
}
