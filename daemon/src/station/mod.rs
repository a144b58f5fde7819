//! This station: who is present, what is offered, what is being made. One thread owns it all.
//!
//! Hotplug and the bus send it messages ([`handle`]); work on tokens runs on threads of its own and
//! comes back as a message too, so nothing here waits. After each message [`Station::settle`] looks
//! at the whole once more and puts out what changed.

mod activity;
mod anew;
mod cards;
mod chains;
mod confirmations;
mod endings;
mod errands;
mod exchange;
mod groups;
mod handle;
mod interruptions;
mod issuing;
mod keys;
mod leases;
mod locks;
mod log;
mod looks;
mod names;
mod offers;
mod orders;
mod pin_changes;
mod pins;
mod plugs;
mod removals;
mod renewals;
mod review;
mod revocations;
mod rights;
mod selection;
mod serializations;
mod soft_keys;
mod start;
pub mod view;
mod writes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
};

use keywright_proto::Id;
use tokio::sync::mpsc;

pub use groups::LockNames;
pub use handle::{Caller, Handle, Message, Reply};
pub use log::Brought;
pub use selection::LockChoice;

use crate::{
    audit::denials::Denials,
    config::Config,
    decision::Past,
    error::Error,
    hotplug::{DeviceId, Event},
    registry::Registry,
};
use keys::Key;
use leases::{Leases, Start};
use serializations::Serialization;
use view::{Activity, DecisionView, KeyView, Label, Output, SerializationView};

/// How many absent Keys are shown as objects; `ListKeys` has all.
const SHOWN_ABSENT_KEYS: usize = 1000;

/// Everything this station knows right now.
pub struct Station {
    registry: Registry,
    config: Config,
    myself: Handle,
    outbox: mpsc::UnboundedSender<Output>,
    keys: BTreeMap<Label, Key>,
    serializations: BTreeMap<u64, Serialization>,
    /// Pairs that were cancelled or are done, until one of the two is re-plugged.
    history: BTreeMap<(Option<Label>, Label), Past>,
    leases: Leases,
    /// The tokens that are being looked at, and those that were said to be gone and are looked at once more.
    reading: BTreeSet<DeviceId>,
    /// Those of them that offers wait for: not those that have been silent for long.
    awaited: BTreeSet<DeviceId>,
    /// How many plugs there were.
    plugs: u64,
    /// Whether everything that was plugged in at the start has been reported.
    settled: bool,
    /// Absent Keys that have changed.
    touched: BTreeSet<Label>,
    /// The user who asked for what is being done; none where nobody did.
    asked_by: Option<u32>,
    /// When a revocation that waits will act, by family, in Unix seconds.
    judges_at: BTreeMap<Id, u64>,
    /// Calls that were refused lately; none before the first one since the start.
    denials: Option<Denials>,
    shown: Shown,
    replies: Vec<Output>,
}

/// What the bus was last told.
#[derive(Default)]
struct Shown {
    keys: BTreeMap<Label, KeyView>,
    serializations: BTreeMap<u64, SerializationView>,
    decisions: Vec<DecisionView>,
    activity: Option<Activity>,
}

impl Station {
    /// Starts the station on a thread of its own. What it puts out begins with all that is known
    /// already, then [`Output::Ready`].
    pub fn start(
        registry: Registry,
        config: Config,
    ) -> io::Result<(Handle, mpsc::UnboundedReceiver<Output>)> {
        let (mailbox, mut messages) = mpsc::unbounded_channel::<Message>();
        let (outbox, outputs) = mpsc::unbounded_channel();
        let handle = Handle::new(mailbox);
        let mut station = Self {
            registry,
            config,
            myself: handle.clone(),
            outbox,
            keys: BTreeMap::new(),
            serializations: BTreeMap::new(),
            history: BTreeMap::new(),
            leases: Leases::default(),
            reading: BTreeSet::new(),
            awaited: BTreeSet::new(),
            plugs: 0,
            settled: false,
            touched: BTreeSet::new(),
            asked_by: None,
            judges_at: BTreeMap::new(),
            denials: None,
            shown: Shown::default(),
            replies: Vec::new(),
        };
        thread::Builder::new().name("station".into()).spawn(move || {
            station.remember();
            station.settle();
            station.put(Output::Ready);
            while let Some(message) = messages.blocking_recv() {
                message(&mut station);
                station.asked_by = None;
                station.settle();
            }
        })?;
        Ok((handle, outputs))
    }

    /// A plug or an unplug.
    pub fn hotplug(&mut self, event: Event) {
        match event {
            Event::Plugged(device) => self.plugged(device),
            Event::Unplugged(device) => self.unplugged(&device),
            Event::Settled => self.settled = true,
        }
    }

    /// Shows the Keys that are known and the jobs that were interrupted.
    fn remember(&mut self) {
        match self.registry.known_keys(SHOWN_ABSENT_KEYS) {
            Ok(known) => known.into_iter().for_each(|(id, record)| self.recall(id, &record)),
            Err(error) => tracing::error!(%error, "known Keys cannot be shown"),
        }
        self.settle_all_revocations();
        match self.registry.intents() {
            Ok(intents) => intents.into_iter().for_each(|intent| self.take_up(intent)),
            Err(error) => tracing::error!(%error, "interrupted jobs cannot be shown"),
        }
    }

    /// Decides anew, and puts out all that changed, the answers last.
    fn settle(&mut self) {
        self.make_offers();
        self.drop_ended();
        self.put_keys();
        let numbers: Vec<u64> = self.serializations.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.announce(number));
        self.put_decisions();
        for reply in std::mem::take(&mut self.replies) {
            self.send(reply);
        }
        self.put_activity();
    }

    /// Puts something out. Answers wait for the changes that belong before them.
    fn put(&mut self, output: Output) {
        match output {
            reply @ Output::Reply(_) => self.replies.push(reply),
            other => self.send(other),
        }
    }

    fn send(&self, output: Output) {
        // Nobody listens any more only while the daemon stops.
        let _ = self.outbox.send(output);
    }

    /// Shows a serialization as it is now, if that is not how it is shown already.
    fn announce(&mut self, number: u64) {
        let Some(serialization) = self.serializations.get(&number) else { return };
        let view = serialization.view();
        if self.shown.serializations.get(&number) != Some(&view) {
            self.shown.serializations.insert(number, view.clone());
            self.send(Output::Serialization(number, Box::new(view)));
        }
    }

    fn put_keys(&mut self) {
        // Absent Keys can be many, and change only where something touches them.
        let touched = std::mem::take(&mut self.touched);
        let views: Vec<_> = self
            .keys
            .iter()
            .filter(|(label, key)| key.is_present() || touched.contains(*label))
            .map(|(label, key)| (label.clone(), key.view()))
            .collect();
        for (label, view) in views {
            if self.shown.keys.get(&label) != Some(&view) {
                self.shown.keys.insert(label.clone(), view.clone());
                self.send(Output::Key(label, Box::new(view)));
            }
        }
        let gone: Vec<_> = self
            .shown
            .keys
            .keys()
            .filter(|label| !self.keys.contains_key(*label))
            .cloned()
            .collect();
        for label in gone {
            self.shown.keys.remove(&label);
            self.send(Output::KeyGone(label));
        }
    }

    fn put_decisions(&mut self) {
        let decisions = self.decisions();
        if self.shown.decisions != decisions {
            self.shown.decisions.clone_from(&decisions);
            self.send(Output::Decisions(decisions));
        }
    }

    /// Lets a job run on its own thread as soon as its tokens are free, if it still may then, and
    /// takes what it brings back.
    fn work<R: Send + 'static>(
        &mut self,
        name: String,
        tokens: Vec<DeviceId>,
        may: impl FnOnce(&Self) -> Result<(), Error> + Send + 'static,
        job: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Self, Result<R, Error>) + Send + 'static,
    ) {
        // What comes of it is done in the name of whoever asks now.
        let asked_by = self.asked_by;
        let done = move |station: &mut Self, result| {
            let meanwhile = std::mem::replace(&mut station.asked_by, asked_by);
            done(station, result);
            station.asked_by = meanwhile;
        };
        let start: Start = Box::new({
            let tokens = tokens.clone();
            move |station| match may(station) {
                Ok(()) => station.run(name, tokens, job, done),
                Err(error) => {
                    station.leases.release(&tokens);
                    done(station, Err(error));
                }
            }
        });
        self.leases.queue(tokens, start);
        self.start_waiting();
    }

    fn run<R: Send + 'static>(
        &mut self,
        name: String,
        tokens: Vec<DeviceId>,
        job: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Self, Result<R, Error>) + Send + 'static,
    ) {
        let errand = Errand {
            station: self.myself.clone(),
            done: Some(Box::new(move |station: &mut Self, result| {
                station.leases.release(&tokens);
                done(station, result);
                station.start_waiting();
            })),
        };
        if let Err(error) = thread::Builder::new().name(name).spawn(move || errand.bring(job())) {
            tracing::error!(%error, "no thread can be started");
        }
    }

    fn start_waiting(&mut self) {
        while let Some(start) = self.leases.next() {
            start(self);
        }
    }
}

/// What to do with the result of a job.
type Done<R> = Box<dyn FnOnce(&mut Station, Result<R, Error>) + Send>;

/// Brings the result of a job home. One that is dropped on the way (no thread to be had, a panic)
/// says so: its tokens must not stay leased, nor its caller wait.
struct Errand<R: 'static> {
    station: Handle,
    done: Option<Done<R>>,
}

impl<R: Send + 'static> Errand<R> {
    fn bring(mut self, result: R) {
        if let Some(done) = self.done.take() {
            self.station.tell(move |station| done(station, Ok(result)));
        }
    }
}

impl<R: 'static> Drop for Errand<R> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.station.tell(move |station| done(station, Err(Error::JobLost)));
        }
    }
}
