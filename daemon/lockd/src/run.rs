//! `keywright-lockd run`: waits for grants and handles them. No signal handler is needed: an accepted grant is on the
//! disk, and an unconfirmed one is confirmed at the next start.

use std::{
    convert::Infallible,
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use keywright_base::clock;
use keywright_link::LinkEvent;

use crate::{
    config::Config,
    error::Error,
    files::{self, Readers, Writers},
    identity::Identity,
    inbox::{self, DirectoryEvent, Watch},
    joining,
    link::LockLink,
    membership::{CHAIN, Membership},
    retry::Retry,
    service::Service,
};

/// The request's file, for the person who adds this Lock to a family.
pub const REQUEST: &str = "request.pem";
/// How many events are handled before the lists are written once for all of them.
const BATCH: usize = 256;
/// How many events may wait; senders block when the queue is full.
const QUEUE: usize = 64;

/// What the service waits for.
enum ServiceEvent {
    Inbox(DirectoryEvent),
    Link(u64, LinkEvent),
    /// The watch on the inbox has ended.
    WatchEnded(Error),
}

/// Runs the service until the process is killed.
pub fn run(state: &Path, config: Config) -> Result<Infallible, Error> {
    wait_for_family(state, &config)?;
    let service = Service::open(state, config)?;
    joining::warn_if_other_family(service.config(), service.gate().membership());
    let lock = service.gate().identity().public().id();
    let (send, events) = mpsc::sync_channel(QUEUE);
    watch(&service.inbox(), send.clone())?;
    let link = service.config().link.as_ref();
    let link = link.map(|link| LockLink::prepare(link, state, service.gate())).transpose()?;
    let (retry, reconnect, watch_ended) = (Retry::default(), false, false);
    let mut running = Running { service, link, send, retry, reconnect, watch_ended };
    running.connect()?;
    tracing::info!(%lock, "ready");
    running.take_all_files();
    loop {
        running.settle();
        let event = next(&events, running.wait());
        let timed_out = event.is_none();
        for event in event.into_iter().chain(events.try_iter().take(BATCH)) {
            running.handle(event);
        }
        // Events may arrive without a pause for longer than the wait until a retry.
        if timed_out || running.retry.is_due(Instant::now()) {
            running.retry_failed();
        }
    }
}

/// The running service, and what is to be retried.
struct Running {
    service: Service,
    link: Option<LockLink>,
    send: SyncSender<ServiceEvent>,
    retry: Retry,
    /// Whether a grant from the link was lost because it could not be saved.
    reconnect: bool,
    /// Whether the watch on the inbox has ended. Until it is started again, each retry lists the inbox.
    watch_ended: bool,
}

impl Running {
    fn connect(&mut self) -> Result<(), Error> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let send = self.send.clone();
        link.connect(move |generation, event| {
            // The receiver is gone only when the process ends.
            let _ = send.send(ServiceEvent::Link(generation, event));
        })?;
        self.service.set_link_up(false);
        Ok(())
    }

    fn handle(&mut self, event: ServiceEvent) {
        let done = match (event, &mut self.link) {
            (ServiceEvent::Inbox(DirectoryEvent::File(name)), _) => self.service.take_file(&name),
            (ServiceEvent::Inbox(DirectoryEvent::Overflow), _) => return self.take_all_files(),
            (ServiceEvent::WatchEnded(error), _) => {
                self.watch_ended = true;
                Err(error)
            }
            (ServiceEvent::Link(generation, event), Some(link)) => {
                let done = link.handle_event(generation, event, &mut self.service);
                self.reconnect |= done.is_err();
                done
            }
            (ServiceEvent::Link(..), None) => Ok(()),
        };
        self.retry_if_failed(done);
    }

    fn settle(&mut self) {
        match self.service.settle() {
            Ok(confirmations) => {
                if let Some(link) = &mut self.link {
                    link.send(confirmations);
                    link.send_issuers(self.service.gate());
                }
                self.retry.succeeded();
            }
            Err(error) => {
                tracing::error!("{error}");
                self.retry.schedule(Instant::now());
            }
        }
    }

    /// Retries failed work: connection, watch, and files in the inbox.
    fn retry_failed(&mut self) {
        self.retry.start_try();
        if self.reconnect {
            let done = self.connect();
            self.reconnect = done.is_err();
            self.retry_if_failed(done);
        }
        if self.watch_ended {
            let done = watch(&self.service.inbox(), self.send.clone());
            self.watch_ended = done.is_err();
            self.retry_if_failed(done);
        }
        self.take_all_files();
    }

    fn take_all_files(&mut self) {
        let inbox = self.service.inbox();
        match inbox::complete_files(&inbox).map_err(Error::file(&inbox)) {
            Ok(names) => {
                for name in names {
                    let done = self.service.take_file(&name);
                    self.retry_if_failed(done);
                }
            }
            Err(error) => self.retry_if_failed(Err(error)),
        }
    }

    fn retry_if_failed(&mut self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::error!("{error}; the Lock tries again");
            self.retry.schedule(Instant::now());
        }
    }

    /// How long to wait for an event; `None`: without limit.
    fn wait(&self) -> Option<Duration> {
        let change = self.service.next_change();
        let change =
            change.map(|at| Duration::from_millis(at.saturating_sub(clock::unix_millis())));
        let retry = self.retry.at().map(|at| at.saturating_duration_since(Instant::now()));
        Some(change.into_iter().chain(retry).min()?.max(Duration::from_millis(1)))
    }
}

/// The next event; `None` after the wait.
fn next(events: &Receiver<ServiceEvent>, wait: Option<Duration>) -> Option<ServiceEvent> {
    // The channel never closes: `Running` holds a sender.
    match wait {
        Some(wait) => events.recv_timeout(wait).ok(),
        None => events.recv().ok(),
    }
}

fn watch(inbox: &Path, send: SyncSender<ServiceEvent>) -> Result<(), Error> {
    let watch = Watch::start(inbox).map_err(Error::file(inbox))?;
    let thread = thread::Builder::new().name("inbox".into());
    let inbox = inbox.to_owned();
    let run = move || {
        if let Err(error) = watch.run(|dropped| send.send(ServiceEvent::Inbox(dropped)).is_ok()) {
            // The receiver is gone only when the process ends.
            let _ = send.send(ServiceEvent::WatchEnded(Error::file(&inbox)(error)));
        }
    };
    thread.spawn(run).map(drop).map_err(|error| Error::System(error.to_string()))
}

/// Waits until a person claims this Lock or its certificate arrives over the link; its request is ready meanwhile.
fn wait_for_family(state: &Path, config: &Config) -> Result<(), Error> {
    files::create_directory(state, Readers::Everybody).map_err(Error::file(state))?;
    files::remove_leftovers(state, Writers::Others);
    let identity = Identity::load_or_create(state)?;
    let request = state.join(REQUEST);
    files::replace(&request, identity.request()?.as_bytes(), Readers::Everybody)
        .map_err(Error::file(&request))?;
    let watch = Watch::start(state).map_err(Error::file(state))?;
    if Membership::load(state, identity.public())?.is_some() {
        return Ok(());
    }
    tracing::info!("{}", Error::Unclaimed);
    let _until_then = joining::start(config, state, identity.public())?;
    let unclaimed = |dropped| !matches!(dropped, DirectoryEvent::File(name) if name == CHAIN);
    watch.run(unclaimed).map_err(Error::file(state))
}
