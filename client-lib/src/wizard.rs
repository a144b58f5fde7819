//! A wizard session: one serialization, driven step by step.
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
};

/// Where a serialization is, with what a front-end needs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Situation {
    /// Choose with [`Wizard::set_kind`].
    Kind {
        /// What can be made of this pair.
        kinds: Vec<Kind>,
    },
    /// Answer with [`Wizard::set_name`].
    Name,
    /// Answer with [`Wizard::select_locks`].
    Locks,
    /// Show [`Wizard::review`], answer with [`Wizard::save`].
    Review,
    /// Give these with [`Wizard::provide_pin`], in this order.
    Pins {
        /// Whose PINs are still needed.
        needed: Vec<Who>,
    },
    /// Nothing to do but to leave both Keys plugged in.
    Writing {
        /// What is being done.
        stage: Stage,
        /// How far it is.
        progress: Progress,
    },
    /// Plug a Key in again: the outcome says which.
    AwaitingKey {
        /// Why it waits; WrongKey while another Key is there.
        outcome: Option<Outcome>,
    },
    /// Done. Offer [`Wizard::take_recovery_code`], then [`Wizard::finish`].
    Finished {
        /// The new Key's path.
        result: String,
        /// What a person should still know, if anything.
        outcome: Option<Outcome>,
    },
    /// Somebody gave up.
    Cancelled {
        /// What was left behind, if anything.
        outcome: Option<Outcome>,
    },
    /// It went wrong.
    Failed {
        /// Why.
        outcome: Option<Outcome>,
    },
    /// A step of a newer daemon: [`Wizard::cancel`] always works.
    Unknown(
        /// Its word.
        String,
    ),
}

impl From<&Serialization> for Situation {
    fn from(job: &Serialization) -> Self {
        let outcome = job.outcome.clone();
        match &job.step {
            Step::Kind => Self::Kind { kinds: job.kinds.clone() },
            Step::Name => Self::Name,
            Step::Locks => Self::Locks,
            Step::Review => Self::Review,
            Step::Pins => Self::Pins { needed: job.pins_needed.clone() },
            Step::Writing => Self::Writing { stage: job.stage.clone(), progress: job.progress },
            Step::AwaitingKey => Self::AwaitingKey { outcome },
            Step::Finished => Self::Finished { result: job.result.clone(), outcome },
            Step::Cancelled => Self::Cancelled { outcome },
            Step::Failed => Self::Failed { outcome },
            Step::Other(word) => Self::Unknown(word.clone()),
        }
    }
}

/// Drives one serialization. The first call that answers a step claims it; dropping the client's
/// connection releases it, and a running write goes on.
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
    /// Watches the serialization at this path.
    ///
    /// # Errors
    /// [`Error::Gone`] where there is none, and those of the bus.
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

    /// Everything else that the daemon shows, for names of Keys and tries left.
    pub fn state(&self) -> &State {
        self.watch.state()
    }

    /// The issuing Key; none where a Master is made.
    pub fn issuer(&self) -> Option<&Key> {
        self.state().keys.get(&self.job.issuer)
    }

    /// The Key that is being made.
    pub fn candidate(&self) -> Option<&Key> {
        self.state().keys.get(&self.job.candidate)
    }

    /// The first call tells where the serialization is; every other waits until that changes.
    /// Steps come in order and none is left out. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Gone`] once the object is removed, [`Error::NotRunning`] once the daemon is gone.
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

    /// Becomes the one who drives.
    ///
    /// # Errors
    /// NotOwner where another front-end drives it.
    pub async fn claim(&self) -> Result<()> {
        Ok(self.proxy.claim().await?)
    }

    /// Lets another front-end drive.
    ///
    /// # Errors
    /// NotOwner.
    pub async fn release(&self) -> Result<()> {
        Ok(self.proxy.release().await?)
    }

    /// Answers `kind`.
    ///
    /// # Errors
    /// InvalidArgument where the pair does not allow it, InvalidStep, NotOwner.
    pub async fn set_kind(&self, kind: Kind) -> Result<()> {
        Ok(self.proxy.set_kind(kind.as_str()).await?)
    }

    /// Answers `name`.
    ///
    /// # Errors
    /// InvalidArgument for a name that cannot be, InvalidStep, NotOwner.
    pub async fn set_name(&self, name: &str) -> Result<()> {
        Ok(self.proxy.set_name(name).await?)
    }

    /// One step back; possible until [`Wizard::save`].
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn back(&self) -> Result<()> {
        Ok(self.proxy.back().await?)
    }

    /// Answers `locks` with exactly these.
    ///
    /// # Errors
    /// InvalidArgument for none or for duplicates, NotFound, LimitExceeded, InvalidStep.
    pub async fn select_locks(&self, ids: &[&str]) -> Result<()> {
        Ok(self.proxy.select_locks(ids, false).await?)
    }

    /// Answers `locks` with every Lock of the family, as of [`Wizard::save`].
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn select_all_locks(&self) -> Result<()> {
        Ok(self.proxy.select_locks(&[], true).await?)
    }

    /// What will be written.
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

    /// Answers `review`. Carries the revision that was reviewed: what a person saw is what is
    /// written.
    ///
    /// # Errors
    /// StaleRevision where something changed since, InvalidStep, NotOwner.
    pub async fn save(&self, revision: u32) -> Result<()> {
        Ok(self.proxy.save(revision).await?)
    }

    /// Gives one PIN. It is checked at once; the last one needed starts the write.
    ///
    /// # Errors
    /// PinInvalid (the Key's `pin_retries` tells how many tries are left), PinBlocked,
    /// InvalidArgument for a PIN outside the token's rules, KeyAbsent, KeyBusy.
    pub async fn provide_pin(&self, who: &Who, pin: &Pin) -> Result<()> {
        let fd = Fd::from(pin.to_fd()?);
        Ok(self.proxy.provide_pin(who.as_str(), fd, Options::new()).await?)
    }

    /// The code that unblocks the new Key's PIN. It is handed out once and stored nowhere.
    ///
    /// # Errors
    /// NotFound or InvalidStep where there is none.
    pub async fn take_recovery_code(&self) -> Result<Pin> {
        Pin::from_fd(self.proxy.take_recovery_code().await?.into())
    }

    /// Ends a finished serialization: the object is removed.
    ///
    /// # Errors
    /// InvalidStep, NotOwner.
    pub async fn finish(&self) -> Result<()> {
        Ok(self.proxy.finish().await?)
    }

    /// Gives up; before the write nothing has changed on any token.
    ///
    /// # Errors
    /// NotOwner, InvalidStep where it is too late.
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
        _ => {} // of a newer daemon
    }
    Ok(())
}
