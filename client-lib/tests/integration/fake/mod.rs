//! A fake daemon with the D-Bus interfaces of `docs/dbus.md`, controlled by the test.

pub mod bus;
mod job;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use keywright_proto::{ErrorName, bus as names};
use zbus::{
    Connection, Fd, ObjectPath, OwnedFd, OwnedObjectPath, OwnedVariant, Variant,
    connection::Builder,
    fdo::ObjectManager,
    interface,
    message::{Header, Message},
};

pub use job::Job;

pub const MASTER: &str = "/org/keywright1/keys/m";
pub const BLANK: &str = "/org/keywright1/keys/b";
pub const JOB: &str = "/org/keywright1/serializations/1";
pub const MASTER_ID: &str = "aaaa1111000000000000000000000000";
pub const MADE_ID: &str = "bbbb2222000000000000000000000000";
pub const LOCKS: [(&str, &str); 3] = [
    ("10c00000000000000000000000000001", "Front door"),
    ("10c00000000000000000000000000002", "Back door"),
    ("10cb0000000000000000000000000003", "Gate"),
];

/// A refusal: D-Bus error name and text.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub name: &'static str,
    pub text: String,
}

impl zbus::DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.text)
    }
    fn name(&self) -> zbus::names::ErrorName<'_> {
        zbus::names::ErrorName::from_static_str_unchecked(self.name)
    }
    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// What a test sets, and the calls received.
#[derive(Default)]
pub struct World {
    /// Methods to refuse, and the refusal.
    pub refuse: BTreeMap<&'static str, Refusal>,
    /// Calls received, in order, with their arguments as text.
    pub calls: Vec<String>,
    /// Outcome with which the write fails; None: it succeeds.
    pub outcome: Option<(String, String)>,
    /// The outcome detail `puk`, if there is one.
    pub puk: Option<&'static str>,
    pub job: job::State,
}

/// Shared between the test and the objects.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Refuses a method from now on.
    pub fn refuse(&self, member: &'static str, error: ErrorName, text: &str) {
        let refusal = Refusal { name: error.full(), text: text.into() };
        self.world().refuse.insert(member, refusal);
    }

    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    fn call(&self, member: &'static str, arguments: String) -> Result<(), Refusal> {
        let mut world = self.world();
        world.calls.push(format!("{member} {arguments}").trim_end().to_owned());
        world.refuse.get(member).map_or(Ok(()), |refusal| Err(refusal.clone()))
    }

    /// Serves the objects on a new connection; requests the bus name last, if `name` is set.
    pub async fn serve(&self, builder: Builder<'_>, name: bool) -> Connection {
        let connection = builder.build().await.unwrap();
        let server = connection.object_server();
        server.at(names::MANAGER_PATH, ObjectManager).await.unwrap();
        server.at(names::MANAGER_PATH, Manager(self.clone())).await.unwrap();
        server.at(MASTER, Key::master()).await.unwrap();
        server.at(BLANK, Key::blank()).await.unwrap();
        if name {
            connection.request_name(names::NAME).await.unwrap();
        }
        connection
    }

    /// Offers the pair, as Backup or Sub Key.
    pub async fn offer(&self, connection: &Connection) {
        self.world().job = job::State::offer(MASTER);
        connection.object_server().at(JOB, Job(self.clone())).await.unwrap();
    }
}

/// Emits one `PropertiesChanged` signal.
pub async fn changed(
    connection: &Connection,
    path: &str,
    interface: &str,
    properties: HashMap<&str, Variant<'_>>,
) {
    connection
        .emit_signal(
            None::<&str>,
            path,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &(interface, properties, Vec::<&str>::new()),
        )
        .await
        .unwrap();
}

/// Reads the bytes behind a descriptor, from offset 0.
pub fn secret(fd: OwnedFd) -> String {
    use std::io::{Read, Seek};
    let mut file = std::fs::File::from(std::os::fd::OwnedFd::from(fd));
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

pub struct Manager(Fake);

type KeyRow = (String, String, String, String, u64);
type LockRow = (String, String, String, bool, u64);

#[interface(name = "org.keywright1.Manager")]
impl Manager {
    #[zbus(property)]
    fn version(&self) -> String {
        "0.0-fake".into()
    }

    #[zbus(property)]
    fn decisions(&self) -> Vec<(OwnedObjectPath, OwnedObjectPath, String)> {
        let path = |path: &str| OwnedObjectPath::try_from(path).unwrap();
        vec![(path("/"), path(BLANK), "no-issuer".into())]
    }

    async fn start_serialization(
        &self,
        issuer: ObjectPath<'_>,
        candidate: ObjectPath<'_>,
        options: HashMap<String, OwnedVariant>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let mut options: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={}", &**value)).collect();
        options.sort();
        self.0.call("StartSerialization", format!("{issuer} {candidate} {options:?}"))?;
        self.0.world().job = job::State::offer(issuer.as_str());
        connection.object_server().at(JOB, Job(self.0.clone())).await.unwrap();
        Ok(OwnedObjectPath::try_from(JOB).unwrap())
    }

    fn add_lock(
        &self,
        issuer: ObjectPath<'_>,
        name: &str,
        csr_pem: &str,
        pin: Fd<'_>,
    ) -> Result<(String, String), Refusal> {
        let pin = secret(OwnedFd::from(pin.try_to_owned().unwrap()));
        self.0.call("AddLock", format!("{issuer} {name} {csr_pem} {pin}"))?;
        Ok((LOCKS[0].0.into(), "CHAIN\n".into()))
    }

    fn list_keys(
        &self,
        _filter: HashMap<String, OwnedVariant>,
        after: &str,
        _limit: u32,
    ) -> (Vec<KeyRow>, String) {
        // Two pages, so that paging is used.
        let row = |id: &str, name: &str, role: &str| {
            (id.to_owned(), name.to_owned(), role.to_owned(), MASTER_ID.to_owned(), 1_700_000_000)
        };
        match after {
            "" => (vec![row(MASTER_ID, "Root", "master")], MASTER_ID.into()),
            _ => (vec![row(&"c".repeat(32), "Far", "sub")], String::new()),
        }
    }

    fn list_locks(
        &self,
        _filter: HashMap<String, OwnedVariant>,
        after: &str,
        _limit: u32,
    ) -> (Vec<LockRow>, String) {
        let skip = LOCKS.iter().position(|(id, _)| *id == after).map_or(0, |index| index + 1);
        let page: Vec<LockRow> = LOCKS[skip..]
            .iter()
            .take(2)
            .map(|(id, name)| ((*id).into(), (*name).into(), MASTER_ID.into(), true, 1_700_000_000))
            .collect();
        let is_last = skip + page.len() == LOCKS.len();
        let next = if is_last { String::new() } else { page[page.len() - 1].0.clone() };
        (page, next)
    }

    fn rename_key(&self, id: &str, name: &str) -> Result<(), Refusal> {
        self.0.call("RenameKey", format!("{id} {name}"))
    }

    fn get_family_bundle(&self, family: &str) -> Result<(String, String), Refusal> {
        self.0.call("GetFamilyBundle", family.into())?;
        Ok(("ROOTS\n".into(), "CRLS\n".into()))
    }
}

/// A Key with fixed properties.
pub struct Key {
    id: &'static str,
    name: &'static str,
    state: &'static str,
}

impl Key {
    fn master() -> Self {
        Self { id: MASTER_ID, name: "Root", state: "master" }
    }
    fn blank() -> Self {
        Self { id: "", name: "", state: "blank" }
    }
    pub fn sub() -> Self {
        Self { id: MADE_ID, name: "Spare", state: "sub" }
    }
}

#[interface(name = "org.keywright1.Key")]
impl Key {
    #[zbus(property)]
    fn id(&self) -> &str {
        self.id
    }
    #[zbus(property)]
    fn name(&self) -> &str {
        self.name
    }
    #[zbus(property)]
    fn state(&self) -> &str {
        self.state
    }
    #[zbus(property)]
    fn memberships(&self) -> Vec<(String, String)> {
        match self.id {
            "" => Vec::new(),
            _ => vec![(MASTER_ID.into(), self.state.into())],
        }
    }
    #[zbus(property)]
    fn present(&self) -> bool {
        true
    }
    #[zbus(property)]
    fn model(&self) -> &str {
        "Nitrokey 3"
    }
    #[zbus(property)]
    fn serial(&self) -> &str {
        "77"
    }
    #[zbus(property)]
    fn port(&self) -> &str {
        "1-2"
    }
    #[zbus(property)]
    fn pin(&self) -> &str {
        "set"
    }
    #[zbus(property)]
    fn pin_retries(&self) -> i32 {
        3
    }
    #[zbus(property)]
    fn authorized(&self) -> bool {
        false
    }
    #[zbus(property)]
    fn locks(&self) -> u32 {
        2
    }
    #[zbus(property)]
    fn pending_locks(&self) -> u32 {
        0
    }
    #[zbus(property)]
    fn last_seen(&self) -> u64 {
        1_700_000_000
    }
    fn get_certificate_chain(&self, family: &str) -> String {
        format!("CHAIN {family}\n")
    }
}
