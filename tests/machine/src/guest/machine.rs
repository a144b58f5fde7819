//! The environment of one test: the daemon under systemd, USB ports to plug Keys into, a D-Bus client and a watcher.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use keywright_bus_tests::{
    Answers, Client, Objects, Watch, api, certs, client::assert_refused, pins,
};
use tempfile::TempDir;
use zbus::{Connection, OwnedObjectPath, connection, fdo::DBusProxy};

use crate::{
    key::UsbKey,
    system::{self, UNIT},
    vhci,
};

/// The daemon's state directory.
pub const STATE: &str = "/var/lib/keywright";
/// The daemon's configuration file; absent when a test begins.
pub const CONFIG: &str = "/etc/keywright/keywrightd.toml";
/// Name of the Master Key.
pub const MASTER: &str = "master";
/// Where a Master that was made once, and the daemon's state with it, are kept for later tests.
const COPY: &str = "/run/made-once";
/// Longer than the daemon may take for any reply.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// What one test needs. Fields are dropped in this order.
pub struct Machine {
    /// Follows the daemon's objects.
    pub watch: Watch,
    /// Calls the daemon.
    pub client: Client,
    dir: TempDir,
}

/// A Key that is plugged in, and the daemon's object for it; pulled out when dropped.
pub struct Plugged {
    /// The Key's object.
    pub path: OwnedObjectPath,
    /// Its name, which is also the name of its memory file.
    pub name: String,
    /// The virtual Key.
    pub key: UsbKey,
}

/// Unplugs everything, stops the daemon and deletes its state.
pub fn reset() {
    for (port, free) in vhci::ports() {
        if !free {
            vhci::pull(port);
            vhci::wait_until_free(port);
        }
    }
    system::run("udevadm settle");
    system::run(&format!("systemctl unmask --quiet --runtime {UNIT}"));
    // Plugs may have queued a start of the daemon.
    system::run(&format!("systemctl stop {UNIT}"));
    system::sh(&format!("systemctl reset-failed {UNIT}"));
    system::run(&format!("rm -rf {STATE}/* {CONFIG}"));
}

/// Opens a connection to the system bus.
pub async fn connect() -> Connection {
    connection::Builder::system()
        .method_timeout(CALL_LIMIT)
        // Signals are queued while a test does something else.
        .max_queued(NonZeroUsize::new(0x10000).unwrap())
        .build()
        .await
        .unwrap()
}

impl Machine {
    /// Resets the machine and starts the daemon; nothing is plugged in.
    pub async fn start() -> Self {
        let machine = Self::stopped().await;
        machine.start_daemon();
        machine
    }

    /// Resets the machine without starting the daemon.
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

    /// Waits until the daemon owns its bus name, without a call, which would start it.
    pub async fn until_owned(&self) {
        let dbus = DBusProxy::new(self.client.connection()).await.unwrap();
        let changed = [(0, api::NAME)];
        let mut owners = dbus.receive_name_owner_changed_with_args(&changed).await.unwrap();
        while !dbus.name_has_owner(api::NAME.try_into().unwrap()).await.unwrap() {
            owners.next().await.unwrap();
        }
    }

    /// Waits until another process than this one owns the daemon's bus name.
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

    /// Path of the memory file of the Key of this name.
    pub fn memory(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.key"))
    }

    /// Plugs a Key into the first free port, without waiting for the daemon.
    pub fn insert(&self, name: &str, options: &[&str]) -> UsbKey {
        let port = *vhci::free_ports().first().expect("a port is free");
        self.insert_at(name, port, options)
    }

    /// Plugs a Key into this port, without waiting for the daemon.
    pub fn insert_at(&self, name: &str, port: usize, options: &[&str]) -> UsbKey {
        UsbKey::plug(&self.memory(name), name, port, options)
    }

    /// Plugs in the Key of this name and waits for its object. A new name is a blank Key.
    pub async fn plug(&mut self, name: &str) -> Plugged {
        self.plug_with(name, &[]).await
    }

    /// Like [`Self::plug`], with more arguments for the virtual Key.
    pub async fn plug_with(&mut self, name: &str, options: &[&str]) -> Plugged {
        let key = self.insert(name, options);
        self.until_shown(name, key).await
    }

    /// Like [`Self::plug`], into this port.
    pub async fn plug_at(&mut self, name: &str, port: usize) -> Plugged {
        let key = self.insert_at(name, port, &[]);
        self.until_shown(name, key).await
    }

    /// Waits for the object of an inserted Key.
    pub async fn until_shown(&mut self, name: &str, key: UsbKey) -> Plugged {
        let path = self.until_shown_in(key.port).await;
        Plugged { path, name: name.into(), key }
    }

    /// Waits for the object of the device in this port.
    pub async fn until_shown_in(&mut self, port: usize) -> OwnedObjectPath {
        let place = format!("usb-{}", vhci::device_name(port));
        let there = |objects: &Objects| {
            objects.present().find(|key| key.text("Port") == place).map(|key| key.path.clone())
        };
        self.watch.until(&format!("a Key in {place}"), there).await
    }

    /// Pulls a Key out and waits until the daemon has noticed; returns its path.
    pub async fn unplug(&mut self, plugged: Plugged) -> OwnedObjectPath {
        let Plugged { path, key, .. } = plugged;
        drop(key);
        self.until_gone(&path).await;
        path
    }

    /// Waits until the daemon has noticed an unplug.
    pub async fn until_gone(&mut self, path: &OwnedObjectPath) {
        let gone =
            |objects: &Objects| (!objects.present().any(|key| key.path == *path)).then_some(());
        self.watch.until("the Key gone", gone).await;
    }

    /// Waits until a Key has this state: `blank`, `master`…
    pub async fn until_state(&mut self, key: &OwnedObjectPath, state: &str) {
        let check = |objects: &Objects| (objects.key(key)?.text("State") == state).then_some(());
        self.watch.until(&format!("{} {state}", key.as_str()), check).await;
    }

    /// Waits until some present Key has this state: `blank`, `master`…
    pub async fn until_present(&mut self, state: &str) {
        let check = |objects: &Objects| {
            objects.present().any(|key| key.text("State") == state).then_some(())
        };
        self.watch.until(&format!("a Key that is {state}"), check).await;
    }

    /// Starts the daemon with a Master Key that has one Lock, and plugs the Master in.
    pub async fn with_master() -> (Self, Plugged) {
        let mut machine = Self::with_absent_master().await;
        let master = machine.plug(MASTER).await;
        machine.until_state(&master.path, "master").await;
        (machine, master)
    }

    /// Like [`Self::with_master`], but the Master is not plugged in. It is made once, then copied.
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

    /// Adds a Lock with this issuer; returns the Lock's id and chain.
    pub async fn add_lock(&self, issuer: &Plugged, name: &str) -> (String, String) {
        let manager = self.client.manager().await;
        let request = certs::request(name);
        manager.add_lock(&issuer.path, name, &request, pins::pipe(pins::PIN)).await.unwrap()
    }

    /// Adds a Lock while another program holds the issuer; returns the text of the refusal KeyBusy.
    pub async fn add_lock_while_busy(&self, issuer: &Plugged) -> String {
        let manager = self.client.manager().await;
        let request = certs::request("barn");
        let added = manager.add_lock(&issuer.path, "barn", &request, pins::pipe(pins::PIN)).await;
        let text = format!("{added:?}");
        assert_refused(added, "KeyBusy");
        text
    }

    /// Waits until a Key has a family; returns the family's id.
    pub async fn family(&mut self, key: &OwnedObjectPath) -> String {
        let family = |objects: &Objects| {
            let memberships: Vec<(String, String)> = objects.key(key)?.get("Memberships");
            Some(memberships.first()?.0.clone())
        };
        self.watch.until("a membership", family).await
    }

    /// Waits until the daemon has read a Key's PIN tries and they are all left.
    pub async fn until_all_tries_left(&mut self, key: &OwnedObjectPath) {
        let check =
            |objects: &Objects| (objects.key(key)?.get::<i32>("PinRetries") == 3).then_some(());
        self.watch.until("3 PIN tries left", check).await;
    }

    /// Waits until the write of a job is at this stage.
    pub async fn until_stage(&mut self, job: &OwnedObjectPath, stage: &str) {
        let check =
            |objects: &Objects| (objects.serialization(job)?.text("Stage") == stage).then_some(());
        self.watch.until(&format!("stage {stage}"), check).await;
    }

    /// Waits for the offer of this pair.
    pub async fn offer(&mut self, issuer: &Plugged, candidate: &Plugged) -> OwnedObjectPath {
        let find =
            |objects: &Objects| Some(objects.offer(&issuer.path, &candidate.path)?.path.clone());
        self.watch.until("an offer for the pair", find).await
    }

    /// Makes a Key from the offer of this pair.
    pub async fn make(&mut self, issuer: &Plugged, candidate: &Plugged, answers: &Answers) {
        let job = self.offer(issuer, candidate).await;
        self.finish(&job, answers).await;
        self.until_state(&candidate.path, answers.kind).await;
    }

    /// Answers all steps and finishes the job.
    pub async fn finish(&mut self, job: &OwnedObjectPath, answers: &Answers) {
        let ended = self.client.answer_all(&mut self.watch, job, answers).await;
        ended.assert_finished();
        self.client.serialization(job).await.finish().await.unwrap();
        let gone = |objects: &Objects| objects.serialization(job).is_none().then_some(());
        self.watch.until("the object removed by Finish", gone).await;
    }
}
