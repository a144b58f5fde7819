//! The service over a socket pair. The other end plays the caller, the bus driver and polkit.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_core::Stream;
use keywright_proto::bus::{
    KEY, MANAGER, MANAGER_PATH, SERIALIZATION, key_path, serialization_path,
};
use keywright_token::PinState;
use tokio::sync::{mpsc, oneshot};
use zbus::{
    Connection, Guid, Message, MessageStream, OwnedObjectPath, OwnedVariant, Variant, connection,
    fdo, interface,
    message::{Flags, Type},
};

use super::{
    Context,
    authorizer::{Authorizer, Policy},
    publisher::{Published, Publisher},
};
use crate::{
    outbox::Output,
    registry::Registry,
    serialization::wizard::Step,
    station::{Handle, Message as Question},
    view::{KeyView, Outcome, SerializationView},
};

/// The caller's unique name and user.
const CALLER: (&str, u32) = (":1.7", 1234);

/// Both ends, and what stands behind the daemon's.
pub struct TestBus {
    pub context: Context,
    daemon: Connection,
    caller: Connection,
    polkit: Arc<Mutex<Polkit>>,
    looked_up: mpsc::UnboundedReceiver<String>,
    asked: mpsc::UnboundedReceiver<Question>,
    _state: tempfile::TempDir,
}

/// What polkit answers, and what it was asked.
#[derive(Default)]
struct Polkit {
    allows: bool,
    asked: Vec<(String, String, u32)>,
}

/// The bus driver. Tells whose presence it was asked about.
struct Driver(mpsc::UnboundedSender<String>);

#[interface(name = "org.freedesktop.DBus")]
impl Driver {
    fn name_has_owner(&self, name: String) -> bool {
        let present = name == CALLER.0;
        self.0.send(name).unwrap();
        present
    }

    fn get_connection_unix_user(&self, name: &str) -> fdo::Result<u32> {
        let unknown = || fdo::Error::NameHasNoOwner(name.into());
        (name == CALLER.0).then_some(CALLER.1).ok_or_else(unknown)
    }
}

struct Authority(Arc<Mutex<Polkit>>);

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        _details: HashMap<String, String>,
        flags: u32,
        _cancellation: String,
    ) -> (bool, bool, HashMap<String, String>) {
        let mut polkit = self.0.lock().unwrap();
        let name = <&str>::try_from(&*subject.1["name"]).unwrap().to_owned();
        polkit.asked.push((format!("{} {name}", subject.0), action, flags));
        (polkit.allows, false, HashMap::new())
    }
}

impl TestBus {
    /// With polkit allowing everything, and an empty registry.
    pub async fn open(policy: Policy) -> Self {
        let polkit = Arc::new(Mutex::new(Polkit { allows: true, asked: Vec::new() }));
        let (lookups, looked_up) = mpsc::unbounded_channel();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let daemon = connection::Builder::unix_stream(one).server(Guid::generate()).p2p();
        let caller = connection::Builder::unix_stream(other)
            .p2p()
            .serve_at("/org/freedesktop/DBus", Driver(lookups))
            .serve_at("/org/freedesktop/PolicyKit1/Authority", Authority(Arc::clone(&polkit)));
        let (daemon, caller) = tokio::try_join!(daemon.build(), caller.build()).unwrap();
        caller.set_unique_name(CALLER.0).unwrap();
        let state = tempfile::tempdir().unwrap();
        let (mailbox, asked) = mpsc::unbounded_channel();
        let context = Context {
            station: Handle::new(mailbox),
            registry: Registry::open(&state.path().join("registry")).unwrap(),
            authorizer: Authorizer::new(&daemon, policy),
            calls: super::InFlight::new(2, "calls"),
            files: super::InFlight::new(1, "exports or imports"),
            revoke_delay: keywright_proto::trust::REVOKE_DELAY,
        };
        Self { context, daemon, caller, polkit, looked_up, asked, _state: state }
    }

    /// The publisher and the way to it.
    async fn publisher(&self) -> (Publisher, Outbox) {
        let publisher = Publisher::new(&self.daemon, self.context.clone()).await.unwrap();
        let (sender, outputs) = mpsc::unbounded_channel();
        (publisher, Outbox { sender, outputs })
    }

    /// Calls a method of the manager; the error's last name and text where it is refused.
    async fn call<B>(&self, method: &str, body: &B) -> Result<Message, (String, String)>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let called =
            self.caller.call_method(None::<&str>, MANAGER_PATH, Some(MANAGER), method, body);
        called.await.map_err(|error| match error {
            zbus::Error::MethodError(name, text, _) => {
                (name.rsplit('.').next().unwrap().to_owned(), text.unwrap_or_default())
            }
            other => panic!("{other}"),
        })
    }
}

struct Outbox {
    sender: mpsc::UnboundedSender<Output>,
    outputs: mpsc::UnboundedReceiver<Output>,
}

impl Outbox {
    async fn publish(&mut self, publisher: &mut Publisher, output: Output) {
        assert!(self.sender.send(output).is_ok());
        let published = publisher.publish_next(&mut self.outputs).await.unwrap();
        assert_eq!(published, Published::Output);
    }
}

async fn next_signal(messages: &mut MessageStream) -> Message {
    loop {
        let message = poll_fn(|context| Pin::new(&mut *messages).poll_next(context)).await;
        let message = message.unwrap().unwrap();
        if message.message_type() == Type::Signal {
            return message;
        }
    }
}

fn member(message: &Message) -> String {
    message.header().member().unwrap().to_string()
}

type Changes = (String, HashMap<String, OwnedVariant>, Vec<String>);

/// Interface, names of the changed properties, and their values.
fn changes(message: &Message) -> (String, HashMap<String, OwnedVariant>) {
    assert_eq!(member(message), "PropertiesChanged");
    let (interface, changed, invalidated): Changes = message.body().deserialize().unwrap();
    assert!(invalidated.is_empty());
    (interface, changed)
}

#[tokio::test]
async fn changed_properties_share_one_signal() {
    let bus = TestBus::open(Policy::Polkit).await;
    let mut signals = MessageStream::from(&bus.caller);
    let (mut publisher, mut outbox) = bus.publisher().await;
    outbox.publish(&mut publisher, Output::Key("a".into(), Box::new(a_key()))).await;
    let added = next_signal(&mut signals).await;
    assert_eq!(member(&added), "InterfacesAdded");
    let (path, objects): (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
        added.body().deserialize().unwrap();
    assert_eq!((path.as_str(), objects[KEY].len()), (key_path("a").as_str(), 16));

    let changed = KeyView { pin: PinState::Set, pin_retries: 2, ..a_key() };
    // The same view twice is one change.
    for _ in 0..2 {
        outbox.publish(&mut publisher, Output::Key("a".into(), Box::new(changed.clone()))).await;
    }
    let (interface, values) = changes(&next_signal(&mut signals).await);
    assert_eq!(interface, KEY);
    let expected = [("Pin", Variant::from("set")), ("PinRetries", Variant::from(2))];
    assert_eq!(
        values,
        expected.map(|(name, value)| (name.into(), value.try_into().unwrap())).into()
    );

    outbox.publish(&mut publisher, Output::KeyGone("a".into())).await;
    assert_eq!(member(&next_signal(&mut signals).await), "InterfacesRemoved");
}

#[tokio::test]
async fn each_step_is_announced_before_the_reply() {
    let bus = TestBus::open(Policy::Polkit).await;
    let mut signals = MessageStream::from(&bus.caller);
    let (mut publisher, mut outbox) = bus.publisher().await;
    let step =
        |step| Output::Serialization(3, Box::new(SerializationView { step, ..a_serialization() }));
    let (answer, mut answered) = oneshot::channel();
    outbox.publish(&mut publisher, step(Step::Kind)).await;
    assert_eq!(member(&next_signal(&mut signals).await), "InterfacesAdded");
    for (put, word) in [(Step::Name, "name"), (Step::Review, "review"), (Step::Pins, "pins")] {
        outbox.publish(&mut publisher, step(put)).await;
        let signal = next_signal(&mut signals).await;
        assert_eq!(signal.header().path().unwrap().as_str(), serialization_path(3));
        let (interface, values) = changes(&signal);
        assert_eq!(interface, SERIALIZATION);
        let expected = Variant::from(word).try_into().unwrap();
        assert_eq!(values, HashMap::from([("Step".into(), expected)]));
        assert!(answered.try_recv().is_err());
    }
    let reply = Output::Reply(Box::new(move || answer.send(()).unwrap()));
    outbox.publish(&mut publisher, reply).await;
    assert_eq!(answered.try_recv(), Ok(()));
    outbox.publish(&mut publisher, Output::SerializationGone(3)).await;
    assert_eq!(member(&next_signal(&mut signals).await), "InterfacesRemoved");
}

#[tokio::test]
async fn owner_leaving_the_bus_is_reported_to_the_station() {
    let mut bus = TestBus::open(Policy::Polkit).await;
    let (mut publisher, mut outbox) = bus.publisher().await;
    let owned_by = |owner: &str| {
        let view = SerializationView { owner: Some(owner.into()), ..a_serialization() };
        Output::Serialization(3, Box::new(view))
    };
    outbox.publish(&mut publisher, owned_by(CALLER.0)).await;
    assert_eq!(bus.looked_up.recv().await.as_deref(), Some(CALLER.0));
    // By the time another call is answered, so is the look-up.
    bus.call("ListKeys", &(HashMap::<&str, Variant<'_>>::new(), "", 1_u32)).await.unwrap();
    assert!(bus.asked.try_recv().is_err(), "it is still there");
    let left = Message::signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged")
        .sender("org.freedesktop.DBus")
        .build(&(CALLER.0, CALLER.0, ""))
        .unwrap();
    bus.caller.send(&left).await.unwrap();
    assert!(bus.asked.recv().await.is_some());

    // One that had left before anybody watched.
    outbox.publish(&mut publisher, owned_by(":1.9")).await;
    assert!(bus.asked.recv().await.is_some());
    assert_eq!(bus.looked_up.recv().await.as_deref(), Some(":1.9"));
}

#[tokio::test]
async fn invalid_arguments_are_refused_before_the_station_is_asked() {
    let mut bus = TestBus::open(Policy::Polkit).await;
    let _publisher = bus.publisher().await;
    let path = |text: &'static str| zbus::ObjectPath::try_from(text).unwrap();
    let key = || path("/org/keywright1/keys/a");
    let options = |name, value| HashMap::from([(name, value)]);
    let number = Variant::from(7_u32);
    let unknown_id = "0".repeat(32);
    let start = "StartSerialization";
    let none = || HashMap::<&str, Variant<'_>>::new();
    let fd =
        |path: &str| zbus::Fd::from(std::os::fd::OwnedFd::from(std::fs::File::open(path).unwrap()));
    let calls = [
        bus.call(start, &(key(), path("/a"), none())).await,
        bus.call(start, &(path("/org/keywright1"), key(), none())).await,
        bus.call(start, &(key(), key(), options("color", number.clone()))).await,
        bus.call(start, &(key(), key(), options("kind", number.clone()))).await,
        bus.call(start, &(key(), key(), options("kind", Variant::from("lock")))).await,
        bus.call("ListKeys", &(none(), "", 0_u32)).await,
        bus.call("ListKeys", &(none(), "next", 1_u32)).await,
        bus.call("ListKeys", &(options("serialization", number.clone()), "", 1_u32)).await,
        bus.call("ListLocks", &(options("serialization", number), "", 1_u32)).await,
        bus.call("ListLocks", &(options("serialization", Variant::from(key())), "", 1_u32)).await,
        bus.call("ListRights", &(unknown_id.as_str(), "", 1_u32)).await,
        bus.call("GetFamilyBundle", &("family",)).await,
        bus.call("GetGrant", &(unknown_id.as_str(), "")).await,
        bus.call("RenameKey", &("A".repeat(32), "Anna")).await,
        bus.call("ExportFamily", &("family", fd("/dev/null"))).await,
        bus.call("ImportFamily", &(fd("/dev/zero"),)).await,
    ];
    let refusals: Vec<_> = calls
        .into_iter()
        .map(|answer| {
            let (name, text) = answer.unwrap_err();
            format!("{name} {}", text.split([':', ';']).next().unwrap())
        })
        .collect();
    assert_eq!(
        refusals,
        [
            "NotFound there is no Key at /a",
            "NotFound there is no Key at /org/keywright1",
            "InvalidArgument color",
            "InvalidArgument kind",
            "InvalidArgument kind",
            "InvalidArgument limit",
            "InvalidArgument after",
            "InvalidArgument serialization",
            "InvalidArgument serialization",
            "NotFound there is no serialization at /org/keywright1/keys/a",
            "NotFound there is no Key 00000000000000000000000000000000",
            "InvalidArgument family",
            "InvalidArgument lock_id",
            "InvalidArgument id",
            "InvalidArgument family",
            "InvalidArgument from",
        ]
    );
    assert!(bus.asked.try_recv().is_err());
}

#[tokio::test]
async fn unauthorized_caller_learns_nothing_else() {
    let mut bus = TestBus::open(Policy::Polkit).await;
    let _publisher = bus.publisher().await;
    bus.polkit.lock().unwrap().allows = false;
    for (method, action) in [("ListKeys", "inspect"), ("ListLocks", "inspect")] {
        let filter = HashMap::from([("unknown", Variant::from(1))]);
        let (name, text) = bus.call(method, &(filter, "", 0_u32)).await.unwrap_err();
        assert_eq!(name, "NotAuthorized");
        assert!(text.contains(&format!("org.keywright1.{action}")), "{text}");
    }
    let (name, _) = bus.call("RenameLock", &("", "")).await.unwrap_err();
    assert_eq!(name, "NotAuthorized");
    let asked = bus.polkit.lock().unwrap().asked.pop().unwrap();
    assert_eq!(asked, ("system-bus-name :1.7".into(), "org.keywright1.manage-locks".into(), 0));
    let told = std::iter::from_fn(|| bus.asked.try_recv().ok()).count();
    assert_eq!(told, 3, "each refusal is the station's to log, and nothing else was asked of it");
}

#[tokio::test]
async fn polkit_may_ask_a_person_only_if_the_call_allows_it() {
    let bus = TestBus::open(Policy::Polkit).await;
    for (flags, expected) in [(Flags::ALLOW_INTERACTIVE_AUTH, 1), (Flags::NO_AUTO_START, 0)] {
        let call = Message::method_call(MANAGER_PATH, "ListKeys")
            .sender(CALLER.0)
            .with_flags(flags)
            .build(&())
            .unwrap();
        let open = bus.context.authorize(&call.header(), "action").await.unwrap();
        assert_eq!((open.name.as_str(), open.uid), CALLER);
        assert_eq!(bus.polkit.lock().unwrap().asked.pop().unwrap().2, expected);
    }
}

#[tokio::test]
async fn unknown_callers_and_missing_polkit_are_denied() {
    let call = |sender: Option<&'static str>| {
        let call = Message::method_call(MANAGER_PATH, "ListKeys");
        let call = if let Some(sender) = sender { call.sender(sender) } else { call };
        call.build(&()).unwrap()
    };
    let other_user = Policy::OnlyUser(CALLER.1 + 1);
    for (policy, sender, allowed) in [
        (Policy::Polkit, Some(CALLER.0), true),
        (Policy::Polkit, Some(":1.8"), false),
        (Policy::Polkit, None, false),
        (Policy::OnlyUser(CALLER.1), Some(CALLER.0), true),
        (Policy::OnlyUser(CALLER.1), None, false),
        (other_user, Some(CALLER.0), false),
    ] {
        let bus = TestBus::open(policy).await;
        let checked = bus.context.authorize(&call(sender).header(), "action").await;
        assert_eq!(checked.is_ok(), allowed, "{policy:?} {sender:?}");
    }
    let bus = TestBus::open(Policy::Polkit).await;
    let authority = "/org/freedesktop/PolicyKit1/Authority";
    bus.caller.object_server().remove::<Authority, _>(authority).await.unwrap();
    let checked = bus.context.authorize(&call(Some(CALLER.0)).header(), "action").await;
    assert!(checked.is_err(), "nobody answers for polkit");
}

/// polkit may ask a person for minutes, so whoever has too many calls open is refused before it is asked.
#[tokio::test]
async fn user_with_too_many_calls_open_is_refused_before_polkit_is_asked() {
    let bus = TestBus::open(Policy::Polkit).await;
    let call = Message::method_call(MANAGER_PATH, "ListKeys").sender(CALLER.0).build(&()).unwrap();
    let header = call.header();
    let authorize = || bus.context.authorize(&header, "action");
    let (first, second) = (authorize().await.unwrap(), authorize().await.unwrap());
    let refused = authorize().await.err().unwrap();
    assert_eq!(refused.name(), keywright_proto::ErrorName::LimitExceeded);
    assert_eq!(bus.polkit.lock().unwrap().asked.len(), 2);
    drop((first, second));
    authorize().await.map(drop).unwrap();
}

pub fn a_key() -> KeyView {
    KeyView {
        id: String::new(),
        name: String::new(),
        state: "blank",
        memberships: Vec::new(),
        trouble: None,
        present: true,
        model: String::new(),
        serial: String::new(),
        port: String::new(),
        pin: PinState::Unknown,
        pin_retries: -1,
        authorized: false,
        card: None,
        locks: 0,
        pending_locks: 0,
        last_seen: 0,
    }
}

pub fn a_serialization() -> SerializationView {
    SerializationView {
        issuer: None,
        candidate: "a".into(),
        result: None,
        kinds: Vec::new(),
        kind: None,
        name: String::new(),
        selected: 0,
        all_locks: false,
        step: Step::Kind,
        steps: Vec::new(),
        revision: 0,
        pins_needed: Vec::new(),
        progress: (0, 0),
        stage: None,
        owner: None,
        outcome: Outcome::default(),
    }
}
