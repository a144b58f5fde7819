//! `keywright-lockd run`: waits for grants, and for nothing else. There is nothing to do at its end, and so no signal is
//! handled: whatever was taken is on the disk, and what was not yet confirmed is at the next start.

use std::{
    convert::Infallible,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use crate::{
    clock::unix_millis,
    config::Config,
    error::Error,
    files::{self, Readers},
    identity::Identity,
    inbox::{self, Dropped, Watch},
    membership::{CHAIN, Membership},
    service::Service,
};

/// The request, for whoever adds this Lock to a family.
pub const REQUEST: &str = "request.pem";
/// How many events are taken before the lists are written once for all of them.
const BATCH: usize = 256;
/// The first and the longest wait before a [`crate::service::Problem`] is met again, in milliseconds.
const RETRY: (u64, u64) = (10_000, 900_000);

/// What can happen.
enum Event {
    Dropped(Dropped),
}

/// Serves until it is ended from outside.
///
/// # Errors
/// It cannot start.
pub fn run(state: &Path, config: Config) -> Result<Infallible, Error> {
    wait_for_family(state)?;
    let mut service = Service::open(state, config)?;
    let (send, events) = mpsc::channel();
    watch(&service.inbox(), send)?;
    tracing::info!(lock = %service.gate().identity().public().id(), "ready");
    let mut retry = None;
    all_waiting(&mut service, &mut retry);
    loop {
        settle(&mut service, &mut retry);
        match next(&events, wait(&service, retry.as_ref())) {
            None => all_waiting(&mut service, &mut retry),
            Some(event) => {
                let more = events.try_iter().take(BATCH);
                for Event::Dropped(dropped) in std::iter::once(event).chain(more) {
                    match dropped {
                        Dropped::File(name) => note(service.take_dropped(&name), &mut retry),
                        Dropped::Many => all_waiting(&mut service, &mut retry),
                    }
                }
            }
        }
    }
}

/// When to try again what did not work: Unix milliseconds, and how long it was waited for.
struct Retry {
    at: u64,
    wait: u64,
}

fn settle(service: &mut Service, retry: &mut Option<Retry>) {
    match service.settle() {
        Ok(_) => {
            if retry.as_ref().is_some_and(|retry| retry.at <= unix_millis()) {
                *retry = None;
            }
        }
        Err(problem) => {
            tracing::error!("{problem}");
            again(retry);
        }
    }
}

fn note(done: Result<(), Error>, retry: &mut Option<Retry>) {
    if let Err(error) = done {
        tracing::error!("{error}; it will be tried again");
        again(retry);
    }
}

fn again(retry: &mut Option<Retry>) {
    let now = unix_millis();
    match retry {
        Some(retry) if retry.at > now => {}
        old => {
            let wait = old.as_ref().map_or(RETRY.0, |old| (old.wait * 2).min(RETRY.1));
            *old = Some(Retry { at: now + wait, wait });
        }
    }
}

fn all_waiting(service: &mut Service, retry: &mut Option<Retry>) {
    let inbox = service.inbox();
    match inbox::waiting(&inbox).map_err(Error::file(&inbox)) {
        Ok(names) => {
            for name in names {
                note(service.take_dropped(&name), retry);
            }
        }
        Err(error) => note(Err(error), retry),
    }
}

/// How long to wait for an event; none: until there is one.
fn wait(service: &Service, retry: Option<&Retry>) -> Option<Duration> {
    let at = service.next_change().into_iter().chain(retry.map(|retry| retry.at)).min()?;
    Some(Duration::from_millis(at.saturating_sub(unix_millis()).max(1)))
}

/// The next event; none when the time is over.
fn next(events: &Receiver<Event>, wait: Option<Duration>) -> Option<Event> {
    let event = match wait {
        Some(wait) => events.recv_timeout(wait),
        None => events.recv().map_err(RecvTimeoutError::from),
    };
    match event {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        // The watch is gone, which its thread has said: what still comes is found by looking now and then.
        Err(RecvTimeoutError::Disconnected) => {
            thread::sleep(Duration::from_millis(RETRY.0));
            None
        }
    }
}

fn watch(inbox: &Path, send: Sender<Event>) -> Result<(), Error> {
    let watch = Watch::start(inbox).map_err(Error::file(inbox))?;
    let thread = thread::Builder::new().name("inbox".into());
    let run = move || {
        if let Err(error) = watch.run(|dropped| send.send(Event::Dropped(dropped)).is_ok()) {
            tracing::error!("the inbox is not watched any more: {error}; restart keywright-lockd");
        }
    };
    thread.spawn(run).map(drop).map_err(|error| Error::System(error.to_string()))
}

/// Until somebody claims this Lock there is nothing to do but to have a request ready.
fn wait_for_family(state: &Path) -> Result<(), Error> {
    files::directory(state, Readers::Everybody).map_err(Error::file(state))?;
    let identity = Identity::load_or_create(state)?;
    let request = state.join(REQUEST);
    files::replace(&request, identity.request()?.as_bytes(), Readers::Everybody)
        .map_err(Error::file(&request))?;
    let watch = Watch::start(state).map_err(Error::file(state))?;
    if Membership::load(state, identity.public())?.is_some() {
        return Ok(());
    }
    tracing::info!("{}", Error::Unclaimed);
    let unclaimed = |dropped| !matches!(dropped, Dropped::File(name) if name == CHAIN);
    watch.run(unclaimed).map_err(Error::file(state))
}
