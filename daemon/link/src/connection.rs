//! A connection to an MQTT 5 broker over TLS, with certificates on both sides. It reconnects until it is dropped.
//!
//! Every connection has a clean start: the broker sends its retained messages again, and nothing depends on a session
//! that the broker remembers.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use keywright_base::{BackOff, jitter};
use rumqttc::{
    AsyncClient, ClientError, Event as MqttEvent, EventLoop, LastWill, MqttOptions, Packet,
    PublishNoticeError, PublishOptions, QoS, SubscribeFilter, TlsConfiguration, Transport,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::sleep,
};

/// How many messages may be unacknowledged at once, in either direction.
const IN_FLIGHT: u16 = 16;
/// How long connecting may take. A broker that thousands of clients reach at once makes them wait; to give up early
/// and retry would add to its load.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait before reconnecting.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The back-off before reconnecting. Jitter of half the wait keeps clients from reconnecting all at once.
const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(1), MAX_WAIT);

/// How to connect, and with which certificate. Certificates and keys are PEM.
#[derive(Clone)]
pub struct Settings {
    /// The broker's host and port.
    pub broker: (String, u16),
    /// The CA certificates that may certify the broker.
    pub ca: Vec<u8>,
    /// The client certificate with its chain.
    pub certificate: Vec<u8>,
    /// The client certificate's key.
    pub key: Vec<u8>,
    /// The MQTT client id, unique at this broker.
    pub client_id: String,
    /// After how many seconds of silence the broker is pinged.
    pub keep_alive: u16,
    /// Retained presence messages: topic, payload when connected (birth), payload when lost (last will).
    pub presence: Option<(String, &'static [u8], &'static [u8])>,
    /// The topic filters to subscribe to.
    pub subscriptions: Vec<String>,
    /// The longest packet in bytes; a longer one ends the connection.
    pub max_packet: u32,
}

/// An event of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected; retained messages follow.
    Up,
    /// Disconnected. A message that was not reported as published may be lost.
    Down,
    /// A message arrived.
    Message {
        /// Its topic.
        topic: String,
        /// Its content.
        payload: Vec<u8>,
        /// Whether the broker had retained it, so that it may be old.
        retained: bool,
    },
    /// The broker has acknowledged the message with this number.
    Published(u64),
}

/// A connection that is made again whenever it is lost. It is closed when this is dropped.
pub struct Connection {
    outgoing: UnboundedSender<Outgoing>,
    certificate: SharedCertificate,
}

/// The client certificate with its chain, used by the next connection.
type SharedCertificate = Arc<Mutex<Vec<u8>>>;

enum Outgoing {
    Publish { topic: String, payload: Vec<u8>, number: u64 },
    Listen(String),
}

impl Connection {
    /// Starts the connection's thread. It calls `tell` for each event; while `tell` blocks, nothing more is read.
    pub fn start(
        settings: Settings,
        tell: impl Fn(LinkEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (outgoing, requests) = unbounded_channel();
        let certificate = Arc::new(Mutex::new(settings.certificate.clone()));
        let shared = Arc::clone(&certificate);
        let run = move || runtime.block_on(run(&settings, &shared, requests, &tell));
        thread::Builder::new().name("link".into()).spawn(run)?;
        Ok(Self { outgoing, certificate })
    }

    /// Sets another client certificate for the same key, used from the next connection on.
    pub fn set_certificate(&self, certificate: Vec<u8>) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// Publishes a retained message. [`LinkEvent::Published`] reports its number when the broker has acknowledged it;
    /// until then it may be lost. The caller limits how many messages wait.
    pub fn publish(&self, topic: String, payload: Vec<u8>, number: u64) {
        // If the thread has ended, it has reported `Down`.
        let _ = self.outgoing.send(Outgoing::Publish { topic, payload, number });
    }

    /// Subscribes to one more filter until the connection is lost. Own messages are not received; retained ones come
    /// first.
    pub fn subscribe(&self, filter: String) {
        let _ = self.outgoing.send(Outgoing::Listen(filter));
    }
}

async fn run(
    settings: &Settings,
    shared: &SharedCertificate,
    mut requests: UnboundedReceiver<Outgoing>,
    tell: &impl Fn(LinkEvent),
) {
    let mut back_off = BACK_OFF;
    loop {
        let certificate = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (client, mut events) = client(settings, certificate);
        let started = Instant::now();
        let was_up = connected(settings, &client, &mut events, &mut requests, tell).await;
        if was_up {
            tell(LinkEvent::Down);
        }
        // `Down` tells the callers that these messages are lost.
        while requests.try_recv().is_ok() {}
        if requests.is_closed() {
            return;
        }
        // Keep the back-off for a broker that accepts a connection and closes it at once.
        if was_up && started.elapsed() > MAX_WAIT {
            back_off.reset();
        }
        sleep(jitter(back_off.wait(), random())).await;
        back_off.lengthen();
    }
}

fn random() -> u64 {
    let mut random = [0; 8];
    // Without randomness all clients reconnect at once: slow, but harmless.
    let _ = getrandom::fill(&mut random);
    u64::from_le_bytes(random)
}

fn client(settings: &Settings, certificate: Vec<u8>) -> (AsyncClient, EventLoop) {
    let (host, port) = settings.broker.clone();
    let mut options = MqttOptions::new(settings.client_id.clone(), (host, port));
    options.set_keep_alive(settings.keep_alive);
    options.set_clean_start(true);
    options.set_connect_timeout(CONNECT_TIMEOUT);
    options.set_receive_maximum(Some(IN_FLIGHT));
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    options.set_max_packet_size(Some(settings.max_packet));
    if let Some((topic, _, will)) = &settings.presence {
        options.set_last_will(LastWill::new(topic.clone(), *will, QoS::AtLeastOnce, true, None));
    }
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple {
        ca: settings.ca.clone(),
        alpn: None,
        client_auth: Some((certificate, settings.key.clone())),
    }));
    AsyncClient::builder(options).capacity(usize::from(IN_FLIGHT)).build()
}

/// Runs one connection until it ends; returns whether it was ever established.
async fn connected(
    settings: &Settings,
    client: &AsyncClient,
    events: &mut EventLoop,
    requests: &mut UnboundedReceiver<Outgoing>,
    tell: &impl Fn(LinkEvent),
) -> bool {
    let mut up = false;
    let mut sent = JoinSet::new();
    loop {
        let has_capacity = up && sent.len() < usize::from(IN_FLIGHT);
        tokio::select! {
            event = events.poll() => match event {
                Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                    if let Err(error) = subscribe_and_announce(settings, client) {
                        tracing::error!("cannot subscribe at the broker: {error}");
                        return up;
                    }
                    up = true;
                    tell(LinkEvent::Up);
                }
                Ok(MqttEvent::Incoming(Packet::Publish(message))) => {
                    let topic = String::from_utf8_lossy(&message.topic).into_owned();
                    let payload = message.payload.to_vec();
                    tell(LinkEvent::Message { topic, payload, retained: message.retain });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(broker = %settings.broker.0, "not connected to the broker: {error}");
                    return up;
                }
            },
            message = requests.recv(), if has_capacity => {
                // The `Connection` was dropped.
                let Some(message) = message else { return up };
                if let Err(error) = send(client, message, &mut sent) {
                    tracing::warn!("cannot send to the broker: {error}");
                    return up;
                }
            }
            Some(done) = sent.join_next() => match done {
                Ok(Ok(number)) => {
                    if let Some(number) = number {
                        tell(LinkEvent::Published(number));
                    }
                }
                Ok(Err(error)) => {
                    // The caller publishes it again after `Down`.
                    tracing::warn!("the broker refuses a message: {error}");
                    return up;
                }
                Err(_) => return up,
            },
        }
    }
}

/// Messages in flight; each yields the number of a published message, when the broker has acknowledged it.
type Sent = JoinSet<Result<Option<u64>, PublishNoticeError>>;

fn send(client: &AsyncClient, message: Outgoing, sent: &mut Sent) -> Result<(), ClientError> {
    match message {
        Outgoing::Publish { topic, payload, number } => {
            let options = PublishOptions::at_least_once().retained();
            let notice = client.try_publish_tracked(topic, payload, options)?;
            sent.spawn(async move { notice.wait_completion_async().await.map(|()| Some(number)) });
        }
        Outgoing::Listen(filter) => {
            let filter =
                SubscribeFilter { nolocal: true, ..SubscribeFilter::new(filter, QoS::AtLeastOnce) };
            let notice = client.try_subscribe_many_tracked([filter])?;
            sent.spawn(async move {
                // The other subscriptions still work.
                if let Err(error) = notice.wait_completion_async().await {
                    tracing::warn!("the broker refuses a subscription: {error}");
                }
                Ok(None)
            });
        }
    }
    Ok(())
}

fn subscribe_and_announce(settings: &Settings, client: &AsyncClient) -> Result<(), ClientError> {
    let filters = settings.subscriptions.iter();
    client.try_subscribe_many(
        filters.map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce)),
    )?;
    if let Some((topic, birth, _)) = &settings.presence {
        let options = PublishOptions::at_least_once().retained();
        client.try_publish(topic.clone(), *birth, options)?;
    }
    Ok(())
}
