//! `keywright-lockd run`: waits for grants, and for nothing else. There is nothing to do at its end, and so no signal is
//! handled: whatever was taken is on the disk, and what was not yet confirmed is at the next start.

use std::{
    convert::Infallible,
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use keywright_base::clock;
use keywright_link as connection;

use crate::{
    config::Config,
    error::Error,
    files::{self, Readers, Writers},
    identity::Identity,
    inbox::{self, Dropped, Watch},
    joining,
    link::LockLink,
    membership::{CHAIN, Membership},
    retry::Retry,
    service::Service,
};

/// The request, for whoever adds this Lock to a family.
pub const REQUEST: &str = "request.pem";
/// How many events are taken before the lists are written once for all of them.
const BATCH: usize = 256;
/// How many events wait at most; whoever brings more has to wait too.
const QUEUE: usize = 64;

/// What can happen.
enum Event {
    Dropped(Dropped),
    Link(u64, connection::Event),
    /// The inbox is not watched any more.
    Deaf(Error),
}

/// Serves until it is ended from outside.
///
/// # Errors
/// It cannot start.
pub fn run(state: &Path, config: Config) -> Result<Infallible, Error> {
    wait_for_family(state, &config)?;
    let service = Service::open(state, config)?;
    joining::compare(service.config(), service.gate().membership());
    let lock = service.gate().identity().public().id();
    let (send, events) = mpsc::sync_channel(QUEUE);
    watch(&service.inbox(), send.clone())?;
    let link = service.config().link.as_ref();
    let link = link.map(|link| LockLink::prepare(link, state, service.gate())).transpose()?;
    let (retry, reconnect, is_deaf) = (Retry::default(), false, false);
    let mut running = Running { service, link, send, retry, reconnect, is_deaf };
    running.connect()?;
    tracing::info!(%lock, "ready");
    running.all_waiting();
    loop {
        running.settle();
        let event = next(&events, running.wait());
        let is_quiet = event.is_none();
        for event in event.into_iter().chain(events.try_iter().take(BATCH)) {
            running.hear(event);
        }
        // Events may come without an end, and take longer than until then.
        if is_quiet || running.retry.is_due(Instant::now()) {
            running.try_again();
        }
    }
}

/// The service, with what did not work and is to be tried again.
struct Running {
    service: Service,
    link: Option<LockLink>,
    send: SyncSender<Event>,
    retry: Retry,
    /// Whether a grant from the link was lost for lack of room.
    reconnect: bool,
    /// Whether nothing tells of what is dropped: until it is watched again it is only looked at with each try.
    is_deaf: bool,
}

impl Running {
    fn connect(&mut self) -> Result<(), Error> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let send = self.send.clone();
        link.connect(move |generation, event| {
            // Nobody listens any more only when the process ends.
            let _ = send.send(Event::Link(generation, event));
        })?;
        self.service.link(false);
        Ok(())
    }

    fn hear(&mut self, event: Event) {
        let done = match (event, &mut self.link) {
            (Event::Dropped(Dropped::File(name)), _) => self.service.take_dropped(&name),
            (Event::Dropped(Dropped::Many), _) => return self.all_waiting(),
            (Event::Deaf(error), _) => {
                self.is_deaf = true;
                Err(error)
            }
            (Event::Link(generation, event), Some(link)) => {
                let done = link.hear(generation, event, &mut self.service);
                self.reconnect |= done.is_err();
                done
            }
            (Event::Link(..), None) => Ok(()),
        };
        self.note(done);
    }

    fn settle(&mut self) {
        match self.service.settle() {
            Ok(answers) => {
                if let Some(link) = &self.link {
                    link.send(answers);
                }
                self.retry.went_well();
            }
            Err(problem) => {
                tracing::error!("{problem}");
                self.retry.again(Instant::now());
            }
        }
    }

    /// Some time has passed.
    fn try_again(&mut self) {
        self.retry.trying();
        if self.reconnect {
            let done = self.connect();
            self.reconnect = done.is_err();
            self.note(done);
        }
        if self.is_deaf {
            let done = watch(&self.service.inbox(), self.send.clone());
            self.is_deaf = done.is_err();
            self.note(done);
        }
        self.all_waiting();
    }

    fn all_waiting(&mut self) {
        let inbox = self.service.inbox();
        match inbox::waiting(&inbox).map_err(Error::file(&inbox)) {
            Ok(names) => {
                for name in names {
                    let done = self.service.take_dropped(&name);
                    self.note(done);
                }
            }
            Err(error) => self.note(Err(error)),
        }
    }

    fn note(&mut self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::error!("{error}; it will be tried again");
            self.retry.again(Instant::now());
        }
    }

    /// How long to wait for an event; none: until there is one.
    fn wait(&self) -> Option<Duration> {
        let change = self.service.next_change();
        let change =
            change.map(|at| Duration::from_millis(at.saturating_sub(clock::unix_millis())));
        let retry = self.retry.at().map(|at| at.saturating_duration_since(Instant::now()));
        Some(change.into_iter().chain(retry).min()?.max(Duration::from_millis(1)))
    }
}

/// The next event; none when the time is over.
fn next(events: &Receiver<Event>, wait: Option<Duration>) -> Option<Event> {
    // Nobody hangs up: `Running` could send, too.
    match wait {
        Some(wait) => events.recv_timeout(wait).ok(),
        None => events.recv().ok(),
    }
}

fn watch(inbox: &Path, send: SyncSender<Event>) -> Result<(), Error> {
    let watch = Watch::start(inbox).map_err(Error::file(inbox))?;
    let thread = thread::Builder::new().name("inbox".into());
    let inbox = inbox.to_owned();
    let run = move || {
        if let Err(error) = watch.run(|dropped| send.send(Event::Dropped(dropped)).is_ok()) {
            // Nobody listens any more only when the process ends.
            let _ = send.send(Event::Deaf(Error::file(&inbox)(error)));
        }
    };
    thread.spawn(run).map(drop).map_err(|error| Error::System(error.to_string()))
}

/// Until somebody claims this Lock, or its certificate comes over the link, there is nothing to do but to have a request
/// ready.
fn wait_for_family(state: &Path, config: &Config) -> Result<(), Error> {
    files::directory(state, Readers::Everybody).map_err(Error::file(state))?;
    files::clear(state, Writers::Others);
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
    let unclaimed = |dropped| !matches!(dropped, Dropped::File(name) if name == CHAIN);
    watch.run(unclaimed).map_err(Error::file(state))
}
