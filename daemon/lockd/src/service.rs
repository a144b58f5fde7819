//! The running Lock: judges what arrives, puts the result in force, and only then confirms it.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use keywright_base::clock;
use keywright_proto::{Id, grant::MAX_GRANT, tree::Hash};
use rustix::io::Errno;

use crate::{
    clock::Now,
    config::Config,
    error::{Error, Refusal},
    exclusive::exclusive,
    files::{self, Readers, Writers},
    gate::{Accepted, Gate, Limits},
    hook::{self, HookError},
    identity::Identity,
    in_flight::{InFlight, SentConfirmation},
    inbox::InboxFile,
    membership::Membership,
    outbox::{CONFIRMATION, OUTBOX, Outbox, REFUSED, answer_name},
    outputs, store,
    uptime::{SAVE_EVERY_MS, Uptime},
};

/// The directory for incoming grants.
pub const INBOX: &str = "inbox";

/// Where a grant came from, and where its confirmation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file of this name in the inbox; the confirmation is a file in the outbox.
    File(String),
    /// The link; the confirmation is returned to the caller, who publishes it.
    Link {
        /// Whether the broker had retained the grant, so that no station is waiting for the confirmation.
        retained: bool,
    },
}

/// A confirmation to publish on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingConfirmation {
    /// The message number, for [`Service::published`].
    pub number: u64,
    /// The Key.
    pub key: Id,
    /// The signed confirmation.
    pub confirmation: Vec<u8>,
}

/// Why the present state could not be put in force. Settle again later.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// A file could not be written: the old lists stay in force.
    #[error("{0}; the old lists stay in force, nothing is confirmed, and the Lock tries again")]
    Files(#[from] Error),
    /// The hook failed.
    #[error("{0}; nothing is confirmed, and the Lock tries again")]
    Hook(#[from] HookError),
}

/// A running Lock. It holds the lock on the state directory.
pub struct Service {
    state: PathBuf,
    config: Config,
    gate: Gate,
    uptime: Uptime,
    outbox: Outbox,
    /// Whether writing the lists failed, so that a visible list may not be on the disk.
    rewrite_lists: bool,
    /// Whether lists were written and the hook has not run since.
    hook_due: bool,
    /// Confirmations to send: Key and statement, and who asked for them.
    requested: BTreeMap<(Hash, Hash), Vec<Origin>>,
    /// Whether the link is up; `None` without a link.
    link: Option<bool>,
    /// Confirmations that the broker has not acknowledged yet.
    in_flight: InFlight,
    _lock: keywright_base::InstanceLock,
}

impl Service {
    /// Locks the state directory and reads it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Unclaimed`], or a file cannot be read.
    pub fn open(state: &Path, config: Config) -> Result<Self, Error> {
        let lock = exclusive(state)?;
        let identity = Identity::load_or_create(state)?;
        let membership = Membership::load(state, identity.public())?.ok_or(Error::Unclaimed)?;
        let inbox = state.join(INBOX);
        files::create_directory(&inbox, Readers::Owner).map_err(Error::file(&inbox))?;
        let outbox = Outbox::open(state)?;
        files::remove_leftovers(&inbox, Writers::Others);
        for own in [OUTBOX, outputs::DIRECTORY, store::DIRECTORY, store::REVOCATIONS] {
            files::remove_leftovers(&state.join(own), Writers::Nobody);
        }
        let limits =
            Limits { max_keys: config.max_keys, revoke_delay: config.revoke_delay_days * 86_400 };
        let mut uptime = Uptime::open(state);
        let now = Now { unix: clock::unix_millis(), uptime: uptime.now() };
        let gate = Gate::open(state, identity, membership, limits, now)?;
        uptime.raise_to(gate.uptime());
        Ok(Self {
            state: state.to_owned(),
            config,
            gate,
            uptime,
            outbox,
            rewrite_lists: false,
            // Which lists the host uses after a start is unknown.
            hook_due: true,
            requested: BTreeMap::new(),
            link: None,
            in_flight: InFlight::default(),
            _lock: lock,
        })
    }

    /// What the Lock knows about Keys.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The configuration it was opened with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Sets whether the link is up. From the first call on, statements that were not confirmed yet are confirmed over
    /// the link.
    pub fn set_link_up(&mut self, up: bool) {
        self.link = Some(up);
        for sent in self.in_flight.take_all() {
            add_requester(
                &mut self.requested,
                (sent.key, sent.statement),
                Origin::Link { retained: false },
            );
        }
    }

    /// Notes that the broker has acknowledged a confirmation.
    ///
    /// # Errors
    /// That cannot be saved; the confirmation is then sent once more.
    pub fn published(&mut self, number: u64) -> Result<(), Error> {
        let Some(SentConfirmation { key, statement, effect }) = self.in_flight.acknowledged(number)
        else {
            return Ok(());
        };
        let has_changed = self.gate.effect_on(&key, self.now().unix) != effect;
        if has_changed && self.gate.is_unconfirmed(&key, &statement) {
            // A delay ended while the confirmation was in flight, so the new effect is confirmed too. If this
            // statement was superseded, the one that replaced it is confirmed.
            add_requester(&mut self.requested, (key, statement), Origin::Link { retained: false });
            return Ok(());
        }
        self.gate.set_confirmed(&key, &statement)
    }

    /// The path of the inbox.
    pub fn inbox(&self) -> PathBuf {
        self.state.join(INBOX)
    }

    /// Takes a grant.
    ///
    /// # Errors
    /// A [`Refusal`] says why the grant changes nothing.
    pub fn take(&mut self, grant: &[u8], origin: Origin) -> Result<Accepted, Refusal> {
        let taken = self.gate.take(grant, self.now())?;
        let name = Id::of_hash(&taken.key);
        tracing::info!(key = %name, known = taken.known, parked = taken.parked, "grant taken");
        let pair = (taken.key, taken.digest);
        let nobody_waits = taken.known && origin == Origin::Link { retained: true };
        if !nobody_waits || self.gate.is_unconfirmed(&pair.0, &pair.1) {
            add_requester(&mut self.requested, pair, origin);
        }
        Ok(taken)
    }

    /// Takes a newer certificate chain of this Lock; returns whether it differs from the present one.
    ///
    /// # Errors
    /// A [`Refusal`] says why the chain changes nothing.
    pub fn take_chain(&mut self, text: &[u8]) -> Result<bool, Refusal> {
        let taken = self.gate.take_chain(&self.state, text, self.now())?;
        if taken {
            tracing::info!("this Lock has a new certificate");
            // TLS servers of this host use the certificate.
            self.hook_due = true;
        }
        Ok(taken)
    }

    /// Takes a file from the inbox and removes it. The file stays if it could not be saved or answered.
    pub fn take_file(&mut self, name: &OsStr) -> Result<(), Error> {
        let path = self.inbox().join(name);
        let answer_name = answer_name(name);
        let mut found = InboxFile::at(path.clone());
        let taken = match found.read(MAX_GRANT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Do not refuse the file for a shortage of this machine: it may be a revocation.
            Err(error) if is_transient(&error) => return Err(Error::file(&path)(error)),
            Err(error) => Err(Refusal::Unreadable(error)),
            Ok(grant) => self.take(grant, Origin::File(answer_name.clone())),
        };
        match taken {
            Ok(_) => {}
            Err(Refusal::NotSaved(error)) => return Err(*error),
            Err(refusal) => {
                // The answer is written before the file is removed: if the disk is full, the file is read again
                // later.
                tracing::warn!(file = %answer_name, "refused: {refusal}");
                self.outbox.put(&answer_name, REFUSED, format!("{refusal}\n").as_bytes())?;
            }
        }
        found.remove().map_err(Error::file(&path))
    }

    /// Puts the present state in force: writes the lists, runs the hook, then confirms. Returns the confirmations to
    /// publish on the link.
    ///
    /// # Errors
    /// A [`SettleError`]: settle again later.
    pub fn settle(&mut self) -> Result<Vec<OutgoingConfirmation>, SettleError> {
        let now = self.now();
        self.gate.judge(now);
        if self.gate.is_delayed() {
            self.uptime.save().map_err(Error::file(self.uptime.path()))?;
        }
        let now = now.unix;
        // If this fails, some lists may be written without the hook having run for them.
        let rewrite_all = std::mem::replace(&mut self.rewrite_lists, true);
        self.hook_due |= rewrite_all;
        self.hook_due |= outputs::write(&self.gate, &self.state, now, rewrite_all)?;
        self.rewrite_lists = false;
        if self.hook_due {
            let lists = outputs::directory(&self.state);
            hook::run(&self.config.hook, self.config.hook_seconds, &lists)?;
            self.hook_due = false;
        }
        let in_flight = self.in_flight.pairs();
        for pair in self.gate.unconfirmed(now) {
            if !in_flight.contains(&pair) {
                self.requested.entry(pair).or_default();
            }
        }
        let (mut confirmations, mut failed) = (Vec::new(), None);
        for (pair, origins) in std::mem::take(&mut self.requested) {
            match self.confirm(pair, &origins, now) {
                Ok(confirmation) => confirmations.extend(confirmation),
                Err(error) => {
                    self.requested.insert(pair, origins);
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            // The confirmations for the link were not returned, so they are requested again.
            Some(error) => {
                self.link.into_iter().for_each(|up| self.set_link_up(up));
                Err(error.into())
            }
            None => Ok(confirmations),
        }
    }

    /// Confirms a statement to everybody who asked. Returns the confirmation to publish on the link, if any.
    fn confirm(
        &mut self,
        (key, statement): (Hash, Hash),
        origins: &[Origin],
        now: u64,
    ) -> Result<Option<OutgoingConfirmation>, Error> {
        if self.gate.is_parked(&key, &statement, now) {
            // It is confirmed when it takes effect.
            return Ok(None);
        }
        let effect = self.gate.effect_on(&key, now);
        let confirmation = self.gate.confirm(&key, statement, now)?;
        let id = Id::of_hash(&key);
        let mut names = Vec::new();
        // After a restart it is not known who asked.
        let mut by_link = origins.is_empty();
        for origin in origins {
            match origin {
                Origin::File(name) => names.push(name.clone()),
                Origin::Link { .. } => by_link = true,
            }
        }
        if by_link && self.link.is_none() && names.is_empty() {
            names.push(id.to_string());
        }
        for name in names {
            self.outbox.put(&name, CONFIRMATION, &confirmation)?;
        }
        match self.link {
            // The next confirmation, after the acknowledgement of this one, reports the effect at that time.
            Some(true) if by_link && !self.in_flight.contains(&key) => {
                let number = self.in_flight.add(SentConfirmation { key, statement, effect });
                Ok(Some(OutgoingConfirmation { number, key: id, confirmation }))
            }
            Some(_) if by_link => {
                let origin = Origin::Link { retained: false };
                self.requested.insert((key, statement), vec![origin]);
                Ok(None)
            }
            _ => self.gate.set_confirmed(&key, &statement).map(|()| None),
        }
    }

    /// How many confirmations are still to be sent.
    pub fn pending_confirmations(&self) -> usize {
        self.requested.values().map(|origins| origins.len().max(1)).sum()
    }

    /// When something changes without an event, in Unix milliseconds.
    pub fn next_change(&self) -> Option<u64> {
        let now = self.now();
        // Uptime is saved now and then.
        let save = self.gate.is_delayed().then(|| now.unix.saturating_add(SAVE_EVERY_MS));
        self.gate.next_change(now).into_iter().chain(save).min()
    }

    fn now(&self) -> Now {
        Now { unix: clock::unix_millis(), uptime: self.uptime.now() }
    }
}

/// Whether reading a file failed for a passing shortage that has nothing to do with the file.
fn is_transient(error: &io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}

/// Records who asked for a confirmation, each of them once: a broker may ask without end while nothing can be
/// confirmed.
fn add_requester(
    requested: &mut BTreeMap<(Hash, Hash), Vec<Origin>>,
    pair: (Hash, Hash),
    origin: Origin,
) {
    let origins = requested.entry(pair).or_default();
    if !origins.contains(&origin) {
        origins.push(origin);
    }
}
