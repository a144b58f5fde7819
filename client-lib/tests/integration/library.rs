//! Tests the library against a fake daemon, peer to peer or on a private bus.

use std::{collections::HashMap, os::unix::net::UnixStream};

use keywright_client::{
    Client, Error, ErrorName, Kind, Pin, Situation, Watch, WatchEvent, Wizard, bus as names,
    client::LockFilter,
    model::{KeyState, Reason, Step, Who},
};
use zbus::{Connection, Guid, Variant, connection::Builder};

use crate::fake::{self, BLANK, Fake, JOB, LOCKS, MASTER, bus::PrivateBus, changed};

/// A client and a fake daemon over a socket pair.
async fn pair() -> (Client, Fake, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fake = Fake::default();
    let server = Builder::unix_stream(theirs).server(Guid::generate()).p2p();
    let (daemon, client) =
        tokio::join!(fake.serve(server, false), Builder::unix_stream(ours).p2p().build());
    (Client::from_connection(client.unwrap()).await.unwrap(), fake, daemon)
}

async fn connect(bus: &PrivateBus) -> Connection {
    Builder::address(bus.address()).build().await.unwrap()
}

#[tokio::test]
async fn paged_lists_are_joined() {
    let (client, _fake, _daemon) = pair().await;
    let locks = client.list_locks(&LockFilter::default()).await.unwrap();
    let ids: Vec<&str> = locks.iter().map(|lock| lock.id.as_str()).collect();
    assert_eq!(ids, LOCKS.map(|(id, _)| id));
    assert_eq!(client.list_keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn watch_starts_with_the_state_and_reports_each_change_once() {
    let (client, fake, daemon) = pair().await;
    let mut watch = Watch::start(&client).await.unwrap();
    assert!(watch.state().running);
    assert_eq!(watch.state().keys[MASTER].state, KeyState::Master);
    assert_eq!(watch.state().keys[BLANK].pin_retries, 3);
    assert_eq!(watch.state().decisions[0].reason, Reason::NoIssuer);

    fake.offer(&daemon).await;
    let retries = || HashMap::from([("PinRetries", Variant::from(2))]);
    changed(&daemon, MASTER, names::KEY, retries()).await;
    changed(&daemon, MASTER, names::KEY, retries()).await; // no change
    daemon.object_server().remove::<fake::Job, _>(JOB).await.unwrap();

    let WatchEvent::OfferAdded { serialization } = watch.next().await.unwrap() else { panic!() };
    assert_eq!((serialization.path.as_str(), serialization.step.known()), (JOB, Some(Step::Kind)));
    assert_eq!(serialization.kinds, [Kind::Backup, Kind::Sub]);
    let WatchEvent::KeyChanged { key } = watch.next().await.unwrap() else { panic!() };
    assert_eq!((key.name.as_str(), key.pin_retries), ("Root", 2));
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::OfferRemoved { .. }));
    assert!(watch.state().serializations.is_empty());
}

#[tokio::test]
async fn wizard_reports_every_step_in_order() {
    let (client, fake, daemon) = pair().await;
    fake.offer(&daemon).await;
    let mut wizard = Wizard::attach(&client, JOB).await.unwrap();
    wizard.claim().await.unwrap();
    let mut steps = Vec::new();
    loop {
        let situation = wizard.next_step().await.unwrap();
        let step = wizard.serialization().step.to_string();
        if steps.last() != Some(&step) {
            steps.push(step);
        }
        match situation {
            Situation::Kind { kinds } => wizard.set_kind(kinds[1]).await.unwrap(),
            Situation::Name => wizard.set_name("Spare").await.unwrap(),
            Situation::Locks => wizard.select_locks(&[LOCKS[0].0]).await.unwrap(),
            Situation::Review => {
                let review = wizard.review().await.unwrap();
                assert_eq!((review.locks, review.revision), (1, 7));
                assert_eq!(review.warnings[0].0, "other-slots");
                wizard.save(review.revision).await.unwrap();
            }
            Situation::Pins { needed } if needed.is_empty() => {} // the write begins
            Situation::Pins { needed } => {
                let pin = if needed[0] == Who::CandidateNew { "975310" } else { "123456" };
                wizard.provide_pin(&needed[0], &Pin::from(pin.to_owned())).await.unwrap();
            }
            Situation::Finished { result, outcome } => {
                assert_eq!((result.as_str(), outcome), (BLANK, None));
                break;
            }
            Situation::Writing { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let code = wizard.take_recovery_code().await.unwrap();
    assert_eq!(code.as_bytes(), b"87654321");
    wizard.finish().await.unwrap();
    assert!(matches!(wizard.next_step().await, Err(Error::Gone { .. })));
    assert_eq!(steps, ["kind", "name", "locks", "review", "pins", "writing", "finished"]);
    assert_eq!(
        fake.calls().iter().filter(|call| call.starts_with("ProvidePin")).collect::<Vec<_>>(),
        [
            "ProvidePin issuer 123456",
            "ProvidePin candidate 123456",
            "ProvidePin candidate-new 975310"
        ]
    );
}

#[tokio::test]
async fn refusals_keep_their_name_and_text() {
    let (client, fake, daemon) = pair().await;
    fake.offer(&daemon).await;
    fake.refuse("SetKind", ErrorName::NotOwner, "another program drives it; close that");
    let wizard = Wizard::attach(&client, JOB).await.unwrap();
    let error = wizard.set_kind(Kind::Sub).await.unwrap_err();
    let daemon = error.daemon().unwrap();
    assert_eq!(daemon.error, Some(ErrorName::NotOwner));
    assert_eq!(error.to_string(), "another program drives it; close that");
    let gone = Wizard::attach(&client, "/org/keywright1/serializations/99").await;
    assert!(matches!(gone, Err(Error::Gone { .. })));
}

#[tokio::test]
async fn watch_continues_after_a_daemon_restart() {
    let bus = PrivateBus::start();
    let client = Client::from_connection(connect(&bus).await).await.unwrap();
    assert!(matches!(client.version().await, Err(Error::NotRunning(_))));
    let mut watch = Watch::start(&client).await.unwrap();
    assert!(!watch.state().running);

    let fake = Fake::default();
    let daemon = fake.serve(Builder::address(bus.address()), true).await;
    assert_eq!(watch.next().await.unwrap(), WatchEvent::DaemonBack);
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::KeyAdded { .. }));
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::KeyAdded { .. }));
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::DecisionsChanged { .. }));

    daemon.close().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::DaemonGone);
    // The next daemon shows the same Keys and a new offer: only the offer is reported.
    fake.world().calls.clear();
    let builder = Builder::address(bus.address());
    let next = fake.serve(builder, false).await;
    fake.offer(&next).await;
    next.request_name(names::NAME).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::DaemonBack);
    assert!(matches!(watch.next().await.unwrap(), WatchEvent::OfferAdded { .. }));
    changed(&next, MASTER, names::KEY, HashMap::from([("Present", Variant::from(false))])).await;
    let WatchEvent::KeyChanged { key } = watch.next().await.unwrap() else { panic!() };
    assert!(!key.present);
}

#[tokio::test]
async fn signals_from_other_senders_are_ignored() {
    let bus = PrivateBus::start();
    let fake = Fake::default();
    let daemon = fake.serve(Builder::address(bus.address()), true).await;
    let client = Client::from_connection(connect(&bus).await).await.unwrap();
    let mut watch = Watch::start(&client).await.unwrap();

    let stranger = connect(&bus).await;
    let to = client.connection().unique_name().unwrap().to_owned();
    let blocked = HashMap::from([("Pin", Variant::from("blocked"))]);
    stranger
        .emit_signal(
            Some(&to),
            MASTER,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            &(names::KEY, blocked, Vec::<&str>::new()),
        )
        .await
        .unwrap();
    // After a round trip on the stranger's connection the bus has delivered its signal.
    zbus::fdo::DBusProxy::new(&stranger).await.unwrap().get_id().await.unwrap();
    changed(&daemon, MASTER, names::KEY, HashMap::from([("Locks", Variant::from(5_u32))])).await;
    let WatchEvent::KeyChanged { key } = watch.next().await.unwrap() else { panic!() };
    assert_eq!((key.locks, key.pin.as_str()), (5, "set"));
}
