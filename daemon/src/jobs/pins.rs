//! The PINs of a job: which are needed, which were accepted, and who gave them. None is ever sent twice by itself.

use keywright_rules::presence::KeyState;
use keywright_token::hotplug::Device;
use keywright_token::{Pin, PinState, RecoveryCode};

use super::Jobs;
use crate::{
    caller::Caller,
    error::Error,
    families::Families,
    keys::{Key, Keys},
    serialization::{
        wizard::{Step, Who, WizardEvent},
        write::issuer_is_done,
    },
    view::{Detail, Label, Outcome},
};

/// The PINs of a job that its tokens accepted. They are kept while the token stays plugged in.
#[derive(Default, Clone)]
pub struct Pins {
    /// The issuer's.
    pub issuer: Option<Pin>,
    /// The candidate's, as it is.
    pub candidate: Option<Pin>,
    /// The one that the candidate is to get.
    pub candidate_new: Option<Pin>,
    /// Being checked right now.
    checking: Option<Checking>,
}

/// A PIN that its token is being asked about.
#[derive(Clone, Copy)]
struct Checking {
    who: Who,
    /// Whoever gave it let go of the job meanwhile.
    let_go: bool,
}

impl Pins {
    /// Forgets a PIN, because its token left or has another one now. Answers whether there was one.
    pub fn forget(&mut self, who: Who) -> bool {
        let pin = match who {
            Who::Issuer => &mut self.issuer,
            Who::Candidate => &mut self.candidate,
            Who::CandidateNew => &mut self.candidate_new,
        };
        pin.take().is_some()
    }

    /// Forgets them all, because nobody drives the job any more; also one that is being checked, although its token still
    /// answers.
    pub fn let_go(&mut self) {
        let checking = self.checking.map(|checking| Checking { let_go: true, ..checking });
        *self = Self { checking, ..Self::default() };
    }

    fn keep(&mut self, who: Who, pin: Pin) {
        match who {
            Who::Issuer => self.issuer = Some(pin),
            Who::Candidate => self.candidate = Some(pin),
            Who::CandidateNew => self.candidate_new = Some(pin),
        }
    }
}

/// What is to be done with a PIN that a caller gave.
pub enum Given {
    /// Its token has to be asked.
    AskToken(Label, Device),
    /// It is a new PIN: no token can be asked.
    IsNew,
}

impl Jobs {
    /// The PINs that a job needs from now on, those that were accepted already left out.
    pub(super) fn pins_to_ask(&self, number: u64, keys: &Keys) -> Vec<Who> {
        let Some(job) = self.map.get(&number) else { return Vec::new() };
        let factory = keys.get(&job.candidate).is_some_and(Key::has_factory_pin);
        let signs = job.issuer.is_some() && !job.intent.as_ref().is_some_and(issuer_is_done);
        let mut needed = Vec::new();
        if signs && job.pins.issuer.is_none() {
            needed.push(Who::Issuer);
        }
        if job.pins.candidate.is_none() {
            needed.push(Who::Candidate);
        }
        if factory && self.config.require_new_pin && job.pins.candidate_new.is_none() {
            needed.push(Who::CandidateNew);
        }
        needed
    }

    /// A code for a candidate whose PUK may be the factory's.
    pub(super) fn new_recovery_code(
        &self,
        number: u64,
        keys: &Keys,
        families: &Families,
    ) -> Result<Option<RecoveryCode>, Error> {
        let candidate = self.map.get(&number).map(|job| &job.candidate);
        let Some(key) = candidate.and_then(|label| keys.get(label)) else { return Ok(None) };
        let wanted = match key.details.puk_is_factory {
            Some(factory) => factory,
            // A silent token is asked only while nobody can have set its PUK here.
            None => key.state == KeyState::Blank && !families.puk_tried(key.id, key.guid)?,
        };
        if !wanted {
            return Ok(None);
        }
        RecoveryCode::random().map(Some).map_err(|error| {
            Error::Unsupported(format!("the system gives no random numbers: {error}"))
        })
    }

    /// After a restart the code of an interrupted job is lost: a new one, where the PUK is still to be replaced.
    pub fn renew_recovery_code(&mut self, number: u64, keys: &Keys) {
        let Some(job) = self.map.get(&number) else { return };
        let Some(intent) = &job.intent else { return };
        let wanted = match keys.get(&job.candidate).and_then(|key| key.details.puk_is_factory) {
            Some(factory) => factory,
            None => intent.candidate.access_key.is_none() && !intent.made.puk_begun,
        };
        if job.new_puk.is_some() || !wanted {
            return;
        }
        match RecoveryCode::random() {
            Ok(code) => {
                if let Some(job) = self.map.get_mut(&number) {
                    job.new_puk = Some(code.clone());
                    job.recovery_code = Some(code);
                }
            }
            Err(error) => tracing::error!(%error, "there is no new recovery code"),
        }
    }

    /// A caller gives a PIN. Until [`Self::token_answered`] no other one is taken.
    ///
    /// # Errors
    /// What can be said of it before a token is asked.
    pub fn pin_given(
        &mut self,
        number: u64,
        caller: &Caller,
        who: Who,
        pin: &Pin,
        keys: &Keys,
    ) -> Result<Given, Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(WizardEvent::PinsComplete)?;
        if !job.wizard.pins_needed().contains(&who) {
            return Err(Error::InvalidArgument(format!(
                "no {} PIN is needed now; PinsNeeded says which are",
                who.as_str()
            )));
        }
        if let Some(other) = job.pins.checking {
            return Err(Error::InvalidArgument(format!(
                "the {} PIN is being checked; wait for its answer",
                other.who.as_str()
            )));
        }
        let (issuer, candidate) = (job.issuer.clone(), job.candidate.clone());
        for label in issuer.iter().chain([&candidate]) {
            self.is_free(label, Some(number), keys)?;
        }
        let label = match who {
            Who::Issuer => issuer.unwrap_or_default(),
            Who::Candidate => candidate,
            Who::CandidateNew => {
                pin.check_new().map_err(|error| Error::InvalidArgument(error.to_string()))?;
                return Ok(Given::IsNew);
            }
        };
        let device = keys.may_try(&label)?.clone();
        let job = self.job_mut(number)?;
        job.pins.checking = Some(Checking { who, let_go: false });
        job.owner = Some(caller.name.clone());
        Ok(Given::AskToken(label, device))
    }

    /// The token has answered.
    ///
    /// # Errors
    /// [`Error::Cancelled`]: whoever gave the PIN let go of the job meanwhile, and neither the PIN nor what its token said
    /// is used.
    pub fn token_answered(&mut self, number: u64, caller: &Caller) -> Result<(), Error> {
        let job = self.job_mut(number).map_err(|_| Error::Cancelled)?;
        let checking = job.pins.checking.take();
        let let_go = checking.is_some_and(|checking| checking.let_go);
        let is_driven = job.owner.as_ref() == Some(&caller.name);
        if let_go || !is_driven { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Keeps a PIN that its token accepted, or a new one. Answers whether it was the last one that was needed.
    ///
    /// # Errors
    /// The job does not wait for PINs any more.
    pub fn pin_accepted(
        &mut self,
        number: u64,
        who: Who,
        pin: Pin,
        keys: &mut Keys,
    ) -> Result<bool, Error> {
        let require_new = self.config.require_new_pin;
        let job = self.job_mut(number)?;
        // The Key may have left, or somebody may have cancelled, while the token was asked.
        job.wizard.check(WizardEvent::PinsComplete)?;
        let is_factory = who == Who::Candidate && pin.is_factory();
        if is_factory && require_new && job.pins.candidate_new.is_none() {
            job.wizard.need_pin(Who::CandidateNew);
        }
        let candidate = job.candidate.clone();
        job.pins.keep(who, pin);
        let is_complete = job.wizard.pin_accepted(who)?;
        if is_factory && let Some(key) = keys.get_mut(&candidate) {
            key.details.pin = PinState::Default;
        }
        self.announce(number);
        Ok(is_complete)
    }

    /// The PIN of a Key is another one now: jobs that were given the old one ask again.
    pub fn pin_changed(&mut self, label: &Label) {
        for job in self.map.values_mut().filter(|job| job.involves(label)) {
            let who = job.who(label);
            if job.wizard.step() != Step::Writing && job.pins.forget(who) {
                job.wizard.need_pin(who);
            }
        }
    }

    /// Says in the Outcome that a token refused a PIN, until it accepts one.
    pub fn tell_refusal(&mut self, number: u64, who: Who, error: Option<&Error>) {
        let Some(job) = self.map.get_mut(&number) else { return };
        let retries = match error {
            Some(Error::PinInvalid { retries, .. }) => u32::from(*retries),
            Some(Error::PinBlocked(_)) => 0,
            Some(_) => return,
            None if job.wizard.step() == Step::Pins => {
                job.outcome = Outcome::default();
                return;
            }
            None => return,
        };
        if let Some(error) = error {
            job.outcome = Outcome::failed(error)
                .with("who", Detail::Text(who.as_str().to_owned()))
                .with("retries", Detail::Number(retries));
        }
    }
}
