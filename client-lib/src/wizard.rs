//! A wizard session: drives one serialization step by step.
//!
//! ```no_run
//! # use keywright_client::{Client, Pin, Situation, Wizard, Kind, Result};
//! # async fn drive(client: Client, path: &str) -> Result<()> {
//! let mut wizard = Wizard::attach(&client, path).await?;
//! loop {
//!     match wizard.next_step().await? {
//!         Situation::Kind { .. } => wizard.set_kind(Kind::Backup).await?,
//!         Situation::Name => wizard.set_name("Spare").await?,
//!         Situation::Finished { .. } => return wizard.finish().await,
//!         _ => {}
//!     }
//! }
//! # }
//! ```

use keywright_proto::Kind;
use zbus::{Fd, OwnedVariant};

use crate::{
    client::Client,
    error::{Error, Result},
    events::{Watch, WatchEvent},
    model::{Key, Outcome, Progress, Review, Serialization, Stage, State, Step, Who, take},
    pin::Pin,
    proxy::{Options, SerializationProxy},
    words::Word,
};

/// The current step of a serialization, with the data that a front-end needs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Situation {
    /// Choose with [`Wizard::set_kind`].
    Kind {
        /// The kinds of Key that this pair can make.
        kinds: Vec<Kind>,
    },
    /// Answer with [`Wizard::set_name`].
    Name,
    /// Answer with [`Wizard::select_locks`].
    Locks,
    /// Show [`Wizard::review`], answer with [`Wizard::save`].
    Review,
    /// Pass these PINs to [`Wizard::provide_pin`], in this order.
    Pins {
        /// The PINs that are still needed.
        needed: Vec<Word<Who>>,
    },
    /// The tokens are being written; both Keys have to stay plugged in.
    Writing {
        /// Stage of the write.
        stage: Word<Stage>,
        /// Progress of the write.
        progress: Progress,
    },
    /// Waiting for a Key to be plugged in again; the outcome says which.
    AwaitingKey {
        /// Why it waits; WrongKey while another Key is plugged in.
        outcome: Option<Outcome>,
    },
    /// Finished. Call [`Wizard::take_recovery_code`] if that was not done, then [`Wizard::finish`].
    Finished {
        /// The new Key's object path.
        result: String,
        /// A remark for the person, if there is one.
        outcome: Option<Outcome>,
    },
    /// Cancelled.
    Cancelled {
        /// What was left on a token, if anything.
        outcome: Option<Outcome>,
    },
    /// Failed.
    Failed {
        /// The reason.
        outcome: Option<Outcome>,
    },
    /// A step that this version does not know; [`Wizard::cancel`] still works.
    Unknown(
        /// Its name on the bus.
        String,
    ),
}

impl From<&Serialization> for Situation {
    fn from(job: &Serialization) -> Self {
        let outcome = job.outcome.clone();
        match &job.step {
            Word::Known(Step::Kind) => Self::Kind { kinds: job.kinds.clone() },
            Word::Known(Step::Name) => Self::Name,
            Word::Known(Step::Locks) => Self::Locks,
            Word::Known(Step::Review) => Self::Review,
            Word::Known(Step::Pins) => Self::Pins { needed: job.pins_needed.clone() },
            Word::Known(Step::Writing) => {
                Self::Writing { stage: job.stage.clone(), progress: job.progress }
            }
            Word::Known(Step::AwaitingKey) => Self::AwaitingKey { outcome },
            Word::Known(Step::Finished) => Self::Finished { result: job.result.clone(), outcome },
            Word::Known(Step::Cancelled) => Self::Cancelled { outcome },
            Word::Known(Step::Failed) => Self::Failed { outcome },
            Word::Unknown(word) => Self::Unknown(word.clone()),
        }
    }
}

/// Drives one serialization. The first call that answers a step claims it. Closing the client's
/// connection releases it; a running write continues.
#[derive(Debug)]
pub struct Wizard {
    path: String,
    proxy: SerializationProxy<'static>,
    watch: Watch,
    /// As of the situation reported last, so that each is reported once.
    job: Serialization,
    last_reported: Option<Situation>,
}

impl Wizard {
    /// Attaches to the serialization at this object path.
    ///
    /// # Errors
    /// [`Error::Gone`] if there is none.
    pub async fn attach(client: &Client, path: &str) -> Result<Self> {
        let proxy = client.proxy(path).await?;
        let watch = Watch::start(client).await?;
        let Some(job) = watch.state().serializations.get(path).cloned() else {
            return Err(Error::Gone { path: path.to_owned() });
        };
        Ok(Self { path: path.to_owned(), proxy, watch, job, last_reported: None })
    }

    /// The serialization as of the situation reported last.
    pub fn serialization(&self) -> &Serialization {
        &self.job
    }

    /// The daemon's state, for names of Keys and PIN tries left.
    pub fn state(&self) -> &State {
        self.watch.state()
    }

    /// The issuing Key; None if a Master is made.
    pub fn issuer(&self) -> Option<&Key> {
        self.state().keys.get(&self.job.issuer)
    }

    /// The Key that is being made.
    pub fn candidate(&self) -> Option<&Key> {
        self.state().keys.get(&self.job.candidate)
    }

    /// Returns the current step at the first call; each later call waits for a change.
    /// Steps come in order and none is left out. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Gone`] once the object is removed, [`Error::NotRunning`] once the daemon left the bus.
    pub async fn next_step(&mut self) -> Result<Situation> {
        loop {
            let situation = Situation::from(&self.job);
            if self.last_reported.as_ref() != Some(&situation) {
                self.last_reported = Some(situation.clone());
                return Ok(situation);
            }
            match self.watch.next().await? {
                WatchEvent::OfferAdded { serialization }
                | WatchEvent::StepChanged { serialization }
                | WatchEvent::Progress { serialization }
                | WatchEvent::OfferChanged { serialization }
                    if serialization.path == self.path =>
                {
                    self.job = serialization;
                }
                WatchEvent::OfferRemoved { serialization } if serialization.path == self.path => {
                    return Err(Error::Gone { path: self.path.clone() });
                }
                WatchEvent::DaemonGone => {
                    return Err(Error::NotRunning("it left the bus during the job".into()));
                }
                _ => {}
            }
        }
    }

    /// Claims the serialization for this client.
    ///
    /// # Errors
    /// NotOwner if another front-end has claimed it.
    pub async fn claim(&self) -> Result<()> {
        Ok(self.proxy.claim().await?)
    }

    /// Releases the serialization, so that another front-end can claim it.
    ///
    /// # Errors
    /// NotOwner.
    pub async fn release(&self) -> Result<()> {
        Ok(self.proxy.release().await?)
    }

    /// Answers the step `kind`.
    ///
    /// # Errors
    /// InvalidArgument if the pair cannot make this kind, InvalidStep, NotOwner.
    pub async fn set_kind(&self, kind: Kind) -> Result<()> {
        Ok(self.proxy.set_kind(kind.as_str()).await?)
    }

    /// Answers the step `name`.
    ///
    /// # Errors
    /// InvalidArgument for an invalid name, InvalidStep, NotOwner.
    pub async fn set_name(&self, name: &str) -> Result<()> {
        Ok(self.proxy.set_name(name).await?)
    }

    /// Goes one step back; possible until [`Wizard::save`].
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn back(&self) -> Result<()> {
        Ok(self.proxy.back().await?)
    }

    /// Answers the step `locks` with exactly these Locks.
    ///
    /// # Errors
    /// InvalidArgument for none or for duplicates, NotFound, LimitExceeded, InvalidStep.
    pub async fn select_locks(&self, ids: &[&str]) -> Result<()> {
        Ok(self.proxy.select_locks(ids, false).await?)
    }

    /// Answers the step `locks` with every Lock that the family has at [`Wizard::save`].
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn select_all_locks(&self) -> Result<()> {
        Ok(self.proxy.select_locks(&[], true).await?)
    }

    /// Returns the summary of what will be written.
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn review(&self) -> Result<Review> {
        let (summary, revision) = self.proxy.review().await?;
        let mut review = Review { revision, ..Review::default() };
        for (name, value) in summary {
            set_review(&mut review, &name, value)?;
        }
        Ok(review)
    }

    /// Answers the step `review` with the revision that was reviewed, so that exactly what the person saw
    /// is written.
    ///
    /// # Errors
    /// StaleRevision if something changed since, InvalidStep, NotOwner.
    pub async fn save(&self, revision: u32) -> Result<()> {
        Ok(self.proxy.save(revision).await?)
    }

    /// Passes one PIN. It is verified at once; the last one starts the write.
    ///
    /// # Errors
    /// PinInvalid (the Key's `pin_retries` has the number of tries left), PinBlocked,
    /// InvalidArgument for a PIN that breaks the token's rules, KeyAbsent, KeyBusy.
    pub async fn provide_pin(&self, who: &Word<Who>, pin: &Pin) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.proxy.provide_pin(who.as_str(), fd, Options::new()).await?)
    }

    /// Takes the recovery code, which unblocks the new Key's PIN. It is handed out once and stored nowhere.
    ///
    /// # Errors
    /// NotFound or InvalidStep if there is none.
    pub async fn take_recovery_code(&self) -> Result<Pin> {
        Pin::from_fd(self.proxy.take_recovery_code().await?.into())
    }

    /// Ends a finished serialization; its object is removed.
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn finish(&self) -> Result<()> {
        Ok(self.proxy.finish().await?)
    }

    /// Cancels the serialization. Before the write no token has been changed.
    ///
    /// # Errors
    /// NotOwner; InvalidStep if it is too late.
    pub async fn cancel(&self) -> Result<()> {
        Ok(self.proxy.cancel().await?)
    }
}

fn set_review(review: &mut Review, name: &str, value: OwnedVariant) -> Result<()> {
    match name {
        "kind" => review.kind = take::<String>(name, value)?.parse().ok(),
        "name" => review.name = take(name, value)?,
        "locks" => review.locks = take(name, value)?,
        "pending" => review.pending = take(name, value)?,
        "warnings" => review.warnings = take(name, value)?,
        _ => {} // an entry that this version does not know
    }
    Ok(())
}
