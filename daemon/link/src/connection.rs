//! One connection to a broker: MQTT 5 over TLS with a certificate on both sides, made again and again until it is there.
//!
//! Every connection starts clean: what is retained at the broker is sent anew, and nothing depends on what a broker
//! remembers of a session.

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

/// How many messages are on their way at once, in either direction.
const IN_FLIGHT: u16 = 16;
/// How long a connection may take. A broker to which thousands come at once makes them wait: who gives up early comes
/// again, and makes it worse.
const CONNECT: Duration = Duration::from_secs(60);
/// The longest wait before connecting again.
const LONGEST: Duration = Duration::from_secs(60);
/// The waits before connecting again. Each is jitter over half its length, so that a broker that comes back is not met by
/// everybody at once.
const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(1), LONGEST);

/// How to connect, and as whom. Certificates and keys are PEM.
#[derive(Clone)]
pub struct Settings {
    /// The broker's host and port.
    pub broker: (String, u16),
    /// Which authorities may certify the broker.
    pub ca: Vec<u8>,
    /// The own certificate with its chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// A name that nobody else has at this broker.
    pub client_id: String,
    /// After how many seconds of silence the broker is asked whether it is there.
    pub keep_alive: u16,
    /// Published, retained, when the connection is there, and when it is lost: topic, birth and last will.
    pub presence: Option<(String, &'static [u8], &'static [u8])>,
    /// What to listen to.
    pub subscriptions: Vec<String>,
    /// The longest packet, in bytes; a longer one ends the connection.
    pub max_packet: u32,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The broker is there, and what is retained will come.
    Up,
    /// It is not any more. Whatever was given to [`Connection::publish`] and not reported as published is lost.
    Down,
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its content.
        payload: Vec<u8>,
        /// Whether the broker had kept it: it is not new.
        retained: bool,
    },
    /// The broker has taken the message with this number.
    Published(u64),
}

/// A connection, or the wish for one. It ends when this is dropped.
pub struct Connection {
    outgoing: UnboundedSender<Outgoing>,
    certificate: Shown,
}

/// The own certificate with its chain: what the next connection shows.
type Shown = Arc<Mutex<Vec<u8>>>;

enum Outgoing {
    Publish { topic: String, payload: Vec<u8>, number: u64 },
    Listen(String),
}

impl Connection {
    /// Starts the thread of a connection. `tell` is called from it and may wait: then nothing more is read.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn start(
        settings: Settings,
        tell: impl Fn(LinkEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (outgoing, wanted) = unbounded_channel();
        let certificate = Arc::new(Mutex::new(settings.certificate.clone()));
        let shown = Arc::clone(&certificate);
        let run = move || runtime.block_on(run(&settings, &shown, wanted, &tell));
        thread::Builder::new().name("link".into()).spawn(run)?;
        Ok(Self { outgoing, certificate })
    }

    /// Shows another certificate of the same key, from the next time on that the connection is made.
    pub fn set_certificate(&self, certificate: Vec<u8>) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// Publishes a message that the broker keeps. [`LinkEvent::Published`] tells this number when the broker has it; not
    /// before is it safe to forget. The caller sees to it that not too many wait.
    pub fn publish(&self, topic: String, payload: Vec<u8>, number: u64) {
        // Where the thread is gone its end was reported, as Down.
        let _ = self.outgoing.send(Outgoing::Publish { topic, payload, number });
    }

    /// Listens to more, until the connection is lost; not to what goes out by itself. What the broker has kept comes first.
    pub fn subscribe(&self, filter: String) {
        let _ = self.outgoing.send(Outgoing::Listen(filter));
    }
}

async fn run(
    settings: &Settings,
    shown: &Shown,
    mut wanted: UnboundedReceiver<Outgoing>,
    tell: &impl Fn(LinkEvent),
) {
    let mut back_off = BACK_OFF;
    loop {
        let certificate = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (client, mut events) = client(settings, certificate);
        let started = Instant::now();
        let was_up = connected(settings, &client, &mut events, &mut wanted, tell).await;
        if was_up {
            tell(LinkEvent::Down);
        }
        // Whoever asked is told by Down to ask again.
        while wanted.try_recv().is_ok() {}
        if wanted.is_closed() {
            return;
        }
        // A broker that takes us and throws us out at once is not met again at once.
        if was_up && started.elapsed() > LONGEST {
            back_off.reset();
        }
        sleep(jitter(back_off.wait(), random())).await;
        back_off.lengthen();
    }
}

fn random() -> u64 {
    let mut random = [0; 8];
    // Without randomness everybody comes at once: slow, and nothing worse.
    let _ = getrandom::fill(&mut random);
    u64::from_le_bytes(random)
}

fn client(settings: &Settings, certificate: Vec<u8>) -> (AsyncClient, EventLoop) {
    let (host, port) = settings.broker.clone();
    let mut options = MqttOptions::new(settings.client_id.clone(), (host, port));
    options.set_keep_alive(settings.keep_alive);
    options.set_clean_start(true);
    options.set_connect_timeout(CONNECT);
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

/// Serves one connection until it ends; answers whether it was ever there.
async fn connected(
    settings: &Settings,
    client: &AsyncClient,
    events: &mut EventLoop,
    wanted: &mut UnboundedReceiver<Outgoing>,
    tell: &impl Fn(LinkEvent),
) -> bool {
    let mut up = false;
    let mut sent = JoinSet::new();
    loop {
        let room = up && sent.len() < usize::from(IN_FLIGHT);
        tokio::select! {
            event = events.poll() => match event {
                Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                    if let Err(error) = greet(settings, client) {
                        tracing::error!("the link cannot be set up: {error}");
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
                    tracing::warn!(broker = %settings.broker.0, "no link: {error}");
                    return up;
                }
            },
            message = wanted.recv(), if room => {
                // Nobody wants this connection any more.
                let Some(message) = message else { return up };
                if let Err(error) = send(client, message, &mut sent) {
                    tracing::warn!("the link takes no message: {error}");
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
                    // It will be asked for again after Down.
                    tracing::warn!("the broker does not take a message: {error}");
                    return up;
                }
                Err(_) => return up,
            },
        }
    }
}

/// What is on its way; the number of what was published, when the broker has it.
type Sent = JoinSet<Result<Option<u64>, PublishNoticeError>>;

fn send(client: &AsyncClient, message: Outgoing, sent: &mut Sent) -> Result<(), ClientError> {
    match message {
        Outgoing::Publish { topic, payload, number } => {
            let kept = PublishOptions::at_least_once().retained();
            let notice = client.try_publish_tracked(topic, payload, kept)?;
            sent.spawn(async move { notice.wait_completion_async().await.map(|()| Some(number)) });
        }
        Outgoing::Listen(filter) => {
            let filter =
                SubscribeFilter { nolocal: true, ..SubscribeFilter::new(filter, QoS::AtLeastOnce) };
            let notice = client.try_subscribe_many_tracked([filter])?;
            sent.spawn(async move {
                // The rest of the link goes on without it.
                if let Err(error) = notice.wait_completion_async().await {
                    tracing::warn!("the broker does not let us listen: {error}");
                }
                Ok(None)
            });
        }
    }
    Ok(())
}

fn greet(settings: &Settings, client: &AsyncClient) -> Result<(), ClientError> {
    let filters = settings.subscriptions.iter();
    client.try_subscribe_many(
        filters.map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce)),
    )?;
    if let Some((topic, birth, _)) = &settings.presence {
        let kept = PublishOptions::at_least_once().retained();
        client.try_publish(topic.clone(), *birth, kept)?;
    }
    Ok(())
}
