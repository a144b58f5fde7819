//! The station: one thread that owns the plugged-in Keys ([`Keys`]), the serializations ([`Jobs`]) and the registry's
//! families ([`Families`]).
//!
//! Hotplug and the bus send it messages ([`handle`]). Work on tokens runs on threads of its own and returns as a
//! message too, so the station never waits. After each message [`Station::settle`] makes offers and publishes what
//! changed.
//!
//! | file | what |
//! | --- | --- |
//! | `handle` | how the bus and the link ask, and where answers go |
//! | `calls` | calls that are answered at once |
//! | `probes` `pins` `signing` `writes` | work on tokens: what it is, its PIN, signatures outside of a job, the write |
//! | `leases` `work` `token_tasks` | one job at a time for each token, threads, one task on one token |
//! | `activity` | whether the daemon is needed |

mod activity;
mod calls;
mod handle;
mod leases;
mod pins;
mod probes;
mod signing;
mod token_tasks;
mod work;
mod writes;

use std::{io, thread};

use tokio::sync::mpsc;

pub use handle::{Handle, Message, Reply};

use crate::{
    config::Config,
    families::{Changes, Families, RefusedCalls},
    jobs::Jobs,
    keys::{Keys, SHOWN_ABSENT_KEYS},
    outbox::{Outbox, Output},
    registry::Registry,
    view::Activity,
};
use keywright_token::hotplug::PlugEvent;
use leases::Leases;

/// The state of the station.
pub struct Station {
    families: Families,
    keys: Keys,
    jobs: Jobs,
    leases: Leases,
    refused: RefusedCalls,
    myself: Handle,
    outbox: Outbox,
    /// The activity that was published last.
    shown_activity: Option<Activity>,
    /// Answers to send after the signals of the current message.
    replies: Vec<Output>,
}

impl Station {
    /// Starts the station on a thread of its own. Its first outputs are everything known already, then
    /// [`Output::Ready`].
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        registry: Registry,
        config: Config,
    ) -> io::Result<(Handle, mpsc::UnboundedReceiver<Output>)> {
        let (mailbox, mut messages) = mpsc::unbounded_channel::<Message>();
        let (outbox, outputs) = Outbox::new();
        let handle = Handle::new(mailbox);
        let mut station = Self {
            families: Families::new(registry, &config),
            keys: Keys::new(outbox.clone(), config.require_new_pin),
            jobs: Jobs::new(outbox.clone(), config),
            leases: Leases::default(),
            refused: RefusedCalls::default(),
            myself: handle.clone(),
            outbox,
            shown_activity: None,
            replies: Vec::new(),
        };
        thread::Builder::new().name("station".into()).spawn(move || {
            station.remember();
            station.settle();
            station.outbox.send(Output::Ready);
            while let Some(message) = messages.blocking_recv() {
                message(&mut station);
                station.settle();
            }
        })?;
        Ok((handle, outputs))
    }

    /// Handles a plug or an unplug.
    pub fn hotplug(&mut self, event: PlugEvent) {
        match event {
            PlugEvent::Plugged(device) => self.plugged(device),
            PlugEvent::Unplugged(device) => self.unplugged(&device),
            PlugEvent::Settled => self.keys.settled(),
        }
    }

    /// Shows the Keys in the registry and the interrupted jobs.
    fn remember(&mut self) {
        match self.families.registry().known_keys(SHOWN_ABSENT_KEYS) {
            Ok(known) => {
                for (id, record) in known {
                    self.keys.recall(id, &record, &self.families);
                }
            }
            Err(error) => tracing::error!(%error, "known Keys cannot be shown"),
        }
        self.settle_all_revocations();
        match self.families.registry().intents() {
            Ok(intents) => {
                for intent in intents {
                    self.jobs.take_up(intent, &mut self.keys, &self.families);
                }
            }
            Err(error) => tracing::error!(%error, "interrupted jobs cannot be shown"),
        }
    }

    /// Changes families, and applies the changes to the shown Keys, even if the call failed after a commit.
    fn change_families<T>(
        &mut self,
        change: impl FnOnce(&mut Families, &Keys, &mut Changes) -> T,
    ) -> T {
        let mut changes = Changes::default();
        let result = change(&mut self.families, &self.keys, &mut changes);
        self.apply(changes);
        result
    }

    fn apply(&mut self, changes: Changes) {
        self.keys.apply(&changes, &self.families);
        for (key, rights) in changes.confirmed {
            self.outbox.send(Output::Confirmed(key, rights));
        }
    }

    /// Makes offers and publishes all changes, the answers last.
    fn settle(&mut self) {
        let Self { keys, jobs, families, .. } = self;
        jobs.make_offers(keys, families);
        jobs.drop_ended(keys, families);
        keys.publish();
        jobs.publish();
        jobs.publish_decisions(keys, families);
        for reply in std::mem::take(&mut self.replies) {
            self.outbox.send(reply);
        }
        self.publish_activity();
    }
}
