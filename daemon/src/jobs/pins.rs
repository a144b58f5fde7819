//! The PINs of a job: which are needed, which were accepted, and who gave them. No PIN is ever resent automatically.

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

/// The PINs of a job that its tokens accepted. Each is kept while its token stays plugged in.
#[derive(Default, Clone)]
pub struct Pins {
    /// The issuer's PIN.
    pub issuer: Option<Pin>,
    /// The candidate's current PIN.
    pub candidate: Option<Pin>,
    /// The candidate's new PIN.
    pub candidate_new: Option<Pin>,
    /// The PIN that is being checked now.
    checking: Option<Checking>,
}

/// A PIN that was sent to its token, whose answer is pending.
#[derive(Clone, Copy)]
struct Checking {
    who: Who,
    /// The caller who gave it released the job meanwhile.
    let_go: bool,
}

impl Pins {
    /// Forgets a PIN, because its token was unplugged or got another PIN. Returns whether there was one.
    pub fn forget(&mut self, who: Who) -> bool {
        let pin = match who {
            Who::Issuer => &mut self.issuer,
            Who::Candidate => &mut self.candidate,
            Who::CandidateNew => &mut self.candidate_new,
        };
        pin.take().is_some()
    }

    /// Forgets all PINs, because the job has no owner any more. A PIN that is being checked will not be used.
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

/// What to do with a PIN that a caller gave.
pub enum Given {
    /// Send it to this token.
    AskToken(Label, Device),
    /// It is a new PIN: no token can check it.
    IsNew,
}

impl Jobs {
    /// The PINs that a job still needs.
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

    /// A recovery code for a candidate whose PUK may be the factory's.
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
            // A token that does not tell is offered the factory PUK only if no station can have replaced it.
            None => key.state == KeyState::Blank && !families.puk_tried(key.id, key.guid)?,
        };
        if !wanted {
            return Ok(None);
        }
        RecoveryCode::random().map(Some).map_err(|error| {
            Error::Unsupported(format!("the system gives no random numbers: {error}"))
        })
    }

    /// Makes a new recovery code for an interrupted job whose code was lost by a restart, if the PUK is still to be
    /// replaced.
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

    /// Accepts a PIN from a caller for checking. No other PIN is accepted until [`Self::token_answered`].
    ///
    /// # Errors
    /// The PIN is refused before it is sent to a token.
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

    /// Notes that the token has answered.
    ///
    /// # Errors
    /// [`Error::Cancelled`]: the caller released the job meanwhile, so neither the PIN nor the token's answer is used.
    pub fn token_answered(&mut self, number: u64, caller: &Caller) -> Result<(), Error> {
        let job = self.job_mut(number).map_err(|_| Error::Cancelled)?;
        let checking = job.pins.checking.take();
        let let_go = checking.is_some_and(|checking| checking.let_go);
        let is_driven = job.owner.as_ref() == Some(&caller.name);
        if let_go || !is_driven { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Keeps a PIN that its token accepted, or a new PIN. Returns whether it was the last one needed.
    ///
    /// # Errors
    /// The job is no longer in the step that asks for PINs.
    pub fn pin_accepted(
        &mut self,
        number: u64,
        who: Who,
        pin: Pin,
        keys: &mut Keys,
    ) -> Result<bool, Error> {
        let require_new = self.config.require_new_pin;
        let job = self.job_mut(number)?;
        // The Key may have been unplugged, or the job cancelled, while the token checked the PIN.
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

    /// A Key has a new PIN: jobs that hold the old one ask again.
    pub fn pin_changed(&mut self, label: &Label) {
        for job in self.map.values_mut().filter(|job| job.involves(label)) {
            let who = job.who(label);
            if job.wizard.step() != Step::Writing && job.pins.forget(who) {
                job.wizard.need_pin(who);
            }
        }
    }

    /// Shows in the Outcome that a token refused a PIN, until it accepts one.
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
