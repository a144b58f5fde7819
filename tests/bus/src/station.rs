//! A station under test: a bus, a daemon, a watcher, a caller, and Keys to plug in and out.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Seek, Write},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tempfile::TempDir;
use zbus::{Fd, OwnedObjectPath};

use crate::{
    Answers, Client, LIMIT, Objects, Watch,
    bus::Bus,
    card::{Card, Reaction, Script},
    certs,
    daemon::{Daemon, Launch},
    error_monitor::ErrorMonitor,
    key::VirtualKey,
    pins::{self, PIN},
};

/// The processes and connections of one test. Fields are dropped in this order.
pub struct Station {
    /// A watcher.
    pub watch: Watch,
    /// A caller.
    pub client: Client,
    /// The daemon.
    pub daemon: Daemon,
    /// How the daemon was started.
    pub launch: Launch,
    /// Checks every D-Bus error; absent where times are measured.
    pub error_monitor: Option<ErrorMonitor>,
    /// The bus.
    pub bus: Bus,
    /// Sockets and files.
    pub dir: TempDir,
}

/// A Key that is plugged in; pulled out when dropped.
pub struct Plugged {
    /// The Key's object.
    pub path: OwnedObjectPath,
    /// The card between the Key and the reader.
    pub card: Card,
    key: Option<VirtualKey>,
}

impl Plugged {
    /// Pulls it out.
    pub fn unplug(self) {}
}

impl Station {
    /// Starts a station with an empty state directory.
    pub async fn start() -> Self {
        Self::prepared(|_| ()).await
    }

    /// Like [`Station::start`]; `prepare` may change how the daemon is started, and its files.
    pub async fn prepared(prepare: impl FnOnce(&mut Launch)) -> Self {
        let mut station = Self::unwatched(prepare).await;
        station.error_monitor = Some(ErrorMonitor::start(station.bus.connect().await).await);
        station
    }

    /// Like [`Station::prepared`], without a monitor on the bus, for measuring times.
    pub async fn unwatched(prepare: impl FnOnce(&mut Launch)) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Bus::start(dir.path());
        let mut launch = Launch {
            bus: bus.address().into(),
            state_dir: dir.path().join("state"),
            reader: dir.path().join("reader"),
            config: None,
            notify: None,
            log: dir.path().join("log"),
        };
        fs::create_dir(&launch.state_dir).unwrap();
        prepare(&mut launch);
        let client = Client::new(bus.connect().await);
        let watch = Watch::start(bus.connect().await).await;
        let daemon = launch.start(client.connection()).await;
        Self { watch, client, daemon, launch, error_monitor: None, bus, dir }
    }

    /// Starts a station and makes a Master.
    pub async fn with_master() -> (Self, Plugged) {
        let mut station = Self::start().await;
        let master = station.plug("master").await;
        station.make_master(&master, "Master").await;
        (station, master)
    }

    /// Plugs in the Key of this name and waits for its object. A new Key is in factory state.
    /// The name is its serial, and the name of its memory file.
    pub async fn plug(&mut self, name: &str) -> Plugged {
        self.plug_with(name, &[]).await
    }

    /// Like [`Station::plug`], with more arguments for the virtual Key.
    pub async fn plug_with(&mut self, name: &str, options: &[&str]) -> Plugged {
        let before = present(&self.watch.objects().await);
        let (card, key) = self.insert(name, options);
        let path = self.appeared(&before).await;
        Plugged { path, card, key: Some(key) }
    }

    /// Plugs in a card that only follows a script, and waits for its object.
    pub async fn plug_script(&mut self, script: Script) -> Plugged {
        let before = present(&self.watch.objects().await);
        let card = Card::plug(&self.launch.reader, script);
        let path = self.appeared(&before).await;
        Plugged { path, card, key: None }
    }

    /// Pulls a Key out and waits until the daemon has seen it.
    pub async fn unplug(&mut self, plugged: Plugged) -> OwnedObjectPath {
        let Plugged { path, card, key } = plugged;
        drop((card, key));
        let gone = |objects: &Objects| (!present(objects).contains(&path)).then_some(());
        self.watch.until("the Key gone", gone).await;
        path
    }

    /// Carries a Key to another station: pulls it out here and plugs it in there.
    pub async fn carry_to(&mut self, other: &mut Self, key: Plugged, name: &str) -> Plugged {
        self.unplug(key).await;
        fs::copy(self.memory(name), other.memory(name)).unwrap();
        other.plug(name).await
    }

    /// The file that holds the memory of the Key of this name.
    pub fn memory(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.key"))
    }

    /// Plugs a Key in without waiting for the daemon.
    pub fn insert(&self, name: &str, options: &[&str]) -> (Card, VirtualKey) {
        self.insert_scripted(name, options, Box::new(|_, _| Reaction::Forward))
    }

    /// Like [`Station::insert`], with a script from the first command on.
    pub fn insert_scripted(
        &self,
        name: &str,
        options: &[&str],
        script: Script,
    ) -> (Card, VirtualKey) {
        let socket = self.dir.path().join(format!("{name}.card"));
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        set_socket_timeout(&listener, Timeout::Recv, Some(LIMIT)).unwrap();
        let key = VirtualKey::plug(&socket, &self.memory(name), name, options);
        (Card::scripted_in_front_of(&listener, &self.launch.reader, script), key)
    }

    async fn appeared(&mut self, before: &HashSet<OwnedObjectPath>) -> OwnedObjectPath {
        let new = |objects: &Objects| present(objects).difference(before).next().cloned();
        self.watch.until("the Key plugged in", new).await
    }

    /// Waits until a Key has this State: `blank`, `master`…
    pub async fn until_state(&mut self, key: &OwnedObjectPath, state: &str) {
        let check = |objects: &Objects| (objects.key(key)?.text("State") == state).then_some(());
        self.watch.until(&format!("{} {state}", key.as_str()), check).await;
    }

    /// A Master with a Lock, a blank Key, and the job for a Sub Key at the step `pins`.
    pub async fn at_pins(&mut self) -> (Plugged, Plugged, OwnedObjectPath) {
        let master = self.plug("master").await;
        self.make_master(&master, "Master").await;
        self.add_lock(&master, "gate").await;
        let candidate = self.plug("candidate").await;
        let job = self.offer(&master, &candidate).await;
        let answers = Answers::sub("Sub", &[]);
        self.client.answer_until(&mut self.watch, &job, &answers, "pins").await;
        (master, candidate, job)
    }

    /// The id of a Key that has one.
    pub async fn id(&self, key: &OwnedObjectPath) -> String {
        self.watch.objects().await.key(key).unwrap().text("Id")
    }

    /// The first family of a Key.
    pub async fn family(&self, key: &OwnedObjectPath) -> String {
        let objects = self.watch.objects().await;
        let memberships: Vec<(String, String)> = objects.key(key).unwrap().get("Memberships");
        memberships[0].0.clone()
    }

    /// A Key's rights as they are listed: the Lock's id, and the right's state.
    pub async fn rights(&self, key: &str) -> Vec<(String, String)> {
        let (rows, _) = self.client.manager().await.list_rights(key, "", 100).await.unwrap();
        rows.into_iter().map(|row| (row.0, row.2)).collect()
    }

    /// A Key's rights with the Locks' names instead of ids, sorted.
    pub async fn rights_by_name(&self, key: &str) -> Vec<(String, String)> {
        let (rows, _) = self.client.manager().await.list_rights(key, "", 100).await.unwrap();
        let mut rights: Vec<_> = rows.into_iter().map(|row| (row.1, row.2)).collect();
        rights.sort();
        rights
    }

    /// Waits until the Key's properties count this many active and pending rights.
    pub async fn until_rights(&mut self, key: &OwnedObjectPath, active: u32, pending: u32) {
        let check = |objects: &Objects| {
            let key = objects.key(key)?;
            let found: (u32, u32) = (key.get("Locks"), key.get("PendingLocks"));
            (found == (active, pending)).then_some(())
        };
        self.watch.until(&format!("{active} active and {pending} pending rights"), check).await;
    }

    /// Changes the rights of a Key by an issuer with the usual PIN.
    pub async fn change_rights(
        &self,
        issuer: &Plugged,
        key: &str,
        add: &[&str],
        remove: &[&str],
    ) -> zbus::Result<()> {
        let manager = self.client.manager().await;
        manager.change_rights(&issuer.path, key, add, remove, pins::pipe(PIN)).await
    }

    /// Changes the PIN of a Key.
    pub async fn change_pin(&self, key: &Plugged, old: &str, new: &str) -> zbus::Result<()> {
        self.client.key(&key.path).await.change_pin(pins::pipe(old), pins::pipe(new)).await
    }

    /// Makes a Master Key of a Key in factory state.
    pub async fn make_master(&mut self, key: &Plugged, name: &str) {
        self.until_state(&key.path, "blank").await;
        let job = self.client.start_master(&key.path, name).await;
        self.finish(&job, &Answers::master(name)).await;
        self.until_state(&key.path, "master").await;
    }

    /// Adds a new Lock with this issuer, and returns the Lock's id and chain.
    pub async fn add_lock(&self, issuer: &Plugged, name: &str) -> (String, String) {
        let manager = self.client.manager().await;
        let request = certs::request(name);
        manager.add_lock(&issuer.path, name, &request, pins::pipe(PIN)).await.unwrap()
    }

    /// The signed objects of a family, as this station exports them.
    pub async fn export(&self, family: &str) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let out = Fd::from(OwnedFd::from(file.try_clone().unwrap()));
        self.client.manager().await.export_family(family, out).await.unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Imports an exported file; returns how many objects were new.
    pub async fn import(&self, exported: &[u8]) -> u32 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(exported).unwrap();
        file.rewind().unwrap();
        let from = Fd::from(OwnedFd::from(file));
        self.client.manager().await.import_family(from).await.unwrap()
    }

    /// Waits for the offer for this pair.
    pub async fn offer(&mut self, issuer: &Plugged, candidate: &Plugged) -> OwnedObjectPath {
        let find =
            |objects: &Objects| Some(objects.offer(&issuer.path, &candidate.path)?.path.clone());
        self.watch.until("an offer for the pair", find).await
    }

    /// Waits for the offer for this pair and finishes the job.
    pub async fn make(&mut self, issuer: &Plugged, candidate: &Plugged, answers: &Answers) {
        let job = self.offer(issuer, candidate).await;
        self.finish(&job, answers).await;
        self.until_state(&candidate.path, answers.kind).await;
    }

    /// Answers everything and finishes.
    ///
    /// Panics if the serialization ends in any other way.
    pub async fn finish(&mut self, job: &OwnedObjectPath, answers: &Answers) {
        let ended = self.client.answer_all(&mut self.watch, job, answers).await;
        ended.assert_finished();
        self.client.serialization(job).await.finish().await.unwrap();
        let gone = |objects: &Objects| objects.serialization(job).is_none().then_some(());
        self.watch.until("the object removed by Finish", gone).await;
    }
}

/// The expected result of [`Station::rights_by_name`].
pub fn states(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, state)| ((*name).into(), (*state).into())).collect()
}

fn present(objects: &Objects) -> HashSet<OwnedObjectPath> {
    objects.present().map(|key| key.path.clone()).collect()
}
