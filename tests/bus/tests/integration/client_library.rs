//! The client library against a stand-in for the daemon that has one serialization.

use std::sync::{Arc, Mutex};

use keywright_bus_tests::{
    Answers, Client, Watch,
    api::{MANAGER_PATH, NAME},
    bus::Bus,
    client::assert_refused,
};
use tempfile::TempDir;
use zbus::{
    Connection, DBusError, OwnedObjectPath, fdo::ObjectManager, interface,
    object_server::SignalEmitter,
};

const JOB: &str = "/org/keywright1/serializations/1";

#[derive(DBusError, Debug)]
#[zbus(prefix = "org.keywright1.Error")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    InvalidStep(String),
}

/// A serialization that asks two questions: its name, and one PIN.
struct StandIn(Arc<Mutex<&'static str>>);

impl StandIn {
    async fn go(
        &self,
        from: &str,
        to: &'static str,
        emitter: SignalEmitter<'_>,
    ) -> Result<(), Refusal> {
        {
            let mut step = self.0.lock().unwrap();
            if *step != from {
                return Err(Refusal::InvalidStep(format!("This is answered at {from}, not now.")));
            }
            *step = to;
        }
        Ok(self.step_changed(&emitter).await?)
    }
}

#[interface(name = "org.keywright1.Serialization")]
impl StandIn {
    #[zbus(property)]
    fn step(&self) -> String {
        (*self.0.lock().unwrap()).into()
    }

    #[zbus(property)]
    fn pins_needed(&self) -> Vec<String> {
        vec!["issuer".into()]
    }

    #[zbus(property)]
    fn outcome(&self) -> (String, String) {
        Default::default()
    }

    async fn set_name(
        &self,
        _name: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Refusal> {
        self.go("name", "pins", emitter).await
    }

    async fn provide_pin(
        &self,
        _who: &str,
        _pin: zbus::OwnedFd,
        _options: std::collections::HashMap<String, zbus::OwnedVariant>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Refusal> {
        self.go("pins", "writing", emitter.to_owned()).await?;
        self.go("writing", "finished", emitter).await
    }
}

async fn serve(bus: &Bus) -> Connection {
    let connection = bus.connect().await;
    let server = connection.object_server();
    server.at(MANAGER_PATH, ObjectManager).await.unwrap();
    connection.request_name(NAME).await.unwrap();
    server.at(JOB, StandIn(Arc::new(Mutex::new("name")))).await.unwrap();
    connection
}

#[tokio::test]
async fn client_follows_a_job_from_offer_to_end() {
    let dir = TempDir::new().unwrap();
    let bus = Bus::start(dir.path());
    let job = OwnedObjectPath::try_from(JOB).unwrap();
    let mut watch = Watch::start(bus.connect().await).await;
    let mut listener = Watch::start(bus.connect().await).await;
    let client = Client::new(bus.connect().await);
    assert!(watch.objects().await.serializations.is_empty(), "no daemon, no objects");

    let daemon = serve(&bus).await;
    watch.until_step(&job, "name").await;
    let pin = keywright_bus_tests::pins::pipe("123456");
    let proxy = client.serialization(&job).await;
    assert_refused(proxy.provide_pin("issuer", pin, Default::default()).await, "InvalidStep");

    let ended = client.answer_all(&mut watch, &job, &Answers::sub("Sub", &[])).await;
    ended.assert_finished();
    let steps = listener.steps_until(&job, "finished").await;
    assert_eq!(steps, ["name", "pins", "writing", "finished"]);

    daemon.close().await.unwrap();
    let gone =
        |objects: &keywright_bus_tests::Objects| objects.serializations.is_empty().then_some(());
    watch.until("everything gone with the daemon", gone).await;
}
