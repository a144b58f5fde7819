//! PINs: which are needed, each checked at once on its token, none ever sent twice by itself.

use keywright_proto::PublicKey;

use super::{
    Caller, Reply, Station,
    keys::Key,
    view::{Detail, Label, Outcome},
};
use crate::{
    decision::Plugged,
    error::Error,
    hotplug::Device,
    presence::State,
    serialization::{
        wizard::{Event, Step, Who},
        write::{challenge, issuer_is_done},
    },
    token::{Cleared, Pin, PinState, RecoveryCode, Slot, Token, TokenError},
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
    /// A token left: what it accepted counts no more. Says whether there was something.
    pub fn forget(&mut self, who: Who) -> bool {
        let pin = match who {
            Who::Issuer => &mut self.issuer,
            Who::Candidate => &mut self.candidate,
            Who::CandidateNew => &mut self.candidate_new,
        };
        pin.take().is_some()
    }

    /// Nobody drives the job any more: no PIN counts, nor one that is being checked. Its token is still asked.
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

impl Key {
    /// A factory PIN, as far as the token says.
    fn has_factory_pin(&self) -> bool {
        self.details.pin == PinState::Default
    }

    /// Takes over what a token answered when it was cleared. What stays authorized does until it is re-plugged.
    pub(super) fn note_cleared(&mut self, cleared: Cleared) {
        self.authorized |= cleared.authorized;
        if cleared.retries.is_some() {
            self.details.retries = cleared.retries;
        }
    }

    /// Takes over what a token said of a PIN.
    pub(super) fn note_refusal(&mut self, error: &TokenError) {
        let retries = match error {
            TokenError::PinRefused { retries } => *retries,
            TokenError::PinBlocked => 0,
            _ => return,
        };
        self.refused = true;
        self.details.retries = Some(retries);
        if retries == 0 {
            self.details.pin = PinState::Blocked;
        }
    }
}

/// Whether a token signs a challenge with this issuing key.
fn signs(token: &mut Token, pin: &Pin, key: &PublicKey) -> Result<bool, TokenError> {
    let digest = challenge().map_err(|_| TokenError::Unsupported("there are no random numbers"))?;
    match token.sign_with(Slot::Issuing, pin, &digest) {
        Ok(signature) => Ok(key.verify_prehash(&digest, &signature).is_ok()),
        // There is no such key.
        Err(TokenError::Unsupported(_) | TokenError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Station {
    /// The PINs that a job needs from now on, those that were accepted already left out.
    pub(super) fn pins_to_ask(&self, number: u64) -> Vec<Who> {
        let Some(job) = self.serializations.get(&number) else { return Vec::new() };
        let factory = self.keys.get(&job.candidate).is_some_and(Key::has_factory_pin);
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
    pub(super) fn new_recovery_code(&self, number: u64) -> Result<Option<RecoveryCode>, Error> {
        let candidate = self.serializations.get(&number).map(|job| &job.candidate);
        let Some(key) = candidate.and_then(|label| self.keys.get(label)) else { return Ok(None) };
        let wanted = match key.details.puk_is_factory {
            Some(factory) => factory,
            // A silent token is asked only while nobody can have set its PUK here.
            None => key.state == State::Blank && !self.puk_tried(key)?,
        };
        if !wanted {
            return Ok(None);
        }
        RecoveryCode::random().map(Some).map_err(|error| {
            Error::Unsupported(format!("the system gives no random numbers: {error}"))
        })
    }

    /// After a restart the code of an interrupted job is lost: a new one, where the PUK is still to be replaced.
    pub(super) fn renew_recovery_code(&mut self, number: u64) {
        let Some(job) = self.serializations.get(&number) else { return };
        let Some(intent) = &job.intent else { return };
        let wanted = match self.keys.get(&job.candidate).and_then(|key| key.details.puk_is_factory)
        {
            Some(factory) => factory,
            None => intent.candidate.access_key.is_none() && !intent.made.puk_begun,
        };
        if job.new_puk.is_some() || !wanted {
            return;
        }
        match RecoveryCode::random() {
            Ok(code) => {
                if let Some(job) = self.serializations.get_mut(&number) {
                    job.new_puk = Some(code.clone());
                    job.recovery_code = Some(code);
                }
            }
            Err(error) => tracing::error!(%error, "there is no new recovery code"),
        }
    }

    /// The factory PUK was offered to this token before.
    pub(super) fn puk_tried(&self, key: &Key) -> Result<bool, Error> {
        let leftover = match key.guid {
            Some(guid) => self.registry.leftover(guid)?.is_some_and(|left| left.puk_tried),
            None => false,
        };
        let known = match key.id {
            Some(id) => self.registry.key(id)?.is_some_and(|record| record.puk_tried),
            None => false,
        };
        Ok(leftover || known)
    }

    /// ProvidePin.
    pub fn provide_pin(
        &mut self,
        number: u64,
        caller: Caller,
        who: Who,
        pin: Pin,
        reply: Reply<()>,
    ) {
        match self.before_check(number, &caller, who, &pin) {
            Err(error) => self.answered(number, &caller, Err(error), reply),
            Ok(None) => {
                let result = self.pin_accepted(number, who, pin);
                self.answered(number, &caller, result, reply);
            }
            Ok(Some((label, device))) => {
                if let Some(job) = self.serializations.get_mut(&number) {
                    job.pins.checking = Some(Checking { who, let_go: false });
                    job.owner = Some(caller.name.clone());
                }
                let (given, id) = (pin.clone(), device.id.clone());
                let prove = if who == Who::Issuer { self.has_to_prove(&label) } else { None };
                let proven = prove.is_some().then(|| label.clone());
                self.check_pin(label, device, given, prove, move |station, result| {
                    let job = station.serializations.get_mut(&number);
                    let checking = job.and_then(|job| job.pins.checking.take());
                    let let_go = checking.is_some_and(|checking| checking.let_go);
                    if let_go || !station.drives(number, &caller) {
                        // It let go while the token was asked: neither its PIN nor its claim counts.
                        return reply.answer(station, Err(Error::Cancelled));
                    }
                    let result = result.and_then(|()| match station.present_mut(&id) {
                        Some(_) => proven.map_or(Ok(()), |label| station.believe(&label)),
                        // What a token accepted counts only while it stays.
                        None => Err(Error::KeyAbsent("the Key".into())),
                    });
                    let result = result.and_then(|()| station.pin_accepted(number, who, pin));
                    let job = station.serializations.get(&number);
                    if let Err(error @ (Error::NotGenuine(_) | Error::Unverified(_))) = &result
                        && job.is_some_and(|job| !job.wizard.step().is_end())
                    {
                        // It is not what it claims to be; nothing was written.
                        station.give_up(number, error);
                    }
                    station.tell_refusal(number, who, result.as_ref().err());
                    station.answered(number, &caller, result, reply);
                });
            }
        }
    }

    /// Says in the Outcome that a token refused a PIN, until it accepts one.
    fn tell_refusal(&mut self, number: u64, who: Who, error: Option<&Error>) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
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

    fn drives(&self, number: u64, caller: &Caller) -> bool {
        let job = self.serializations.get(&number);
        job.is_some_and(|job| job.owner.as_ref() == Some(&caller.name))
    }

    /// What can be said of a PIN before a token is asked; the token that has to be.
    fn before_check(
        &mut self,
        number: u64,
        caller: &Caller,
        who: Who,
        pin: &Pin,
    ) -> Result<Option<(Label, Device)>, Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(Event::PinsComplete)?;
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
            self.is_free(label, Some(number))?;
        }
        let label = match who {
            Who::Issuer => issuer.unwrap_or_default(),
            Who::Candidate => candidate,
            Who::CandidateNew => {
                pin.check_new().map_err(|error| Error::InvalidArgument(error.to_string()))?;
                return Ok(None);
            }
        };
        let device = self.may_try(&label)?;
        Ok(Some((label, device)))
    }

    /// The token of a Key that may be given a PIN: it is there, not blocked, and its last try is
    /// spent only if it was re-plugged since the last refusal.
    pub(super) fn may_try(&self, label: &Label) -> Result<Device, Error> {
        let (key, device) = self.present_key(label)?;
        match key.details.retries {
            Some(0) => Err(Error::PinBlocked(key.called())),
            // Of a Key that was there at the start nobody knows when it was refused.
            Some(1) if key.refused || key.plugged == Plugged::AtStart => {
                Err(Error::LastTry { key: key.called() })
            }
            _ => Ok(device.clone()),
        }
    }

    /// Shows a PIN to its token, and leaves nothing authorized there. Where a key has to prove itself it signs a challenge.
    fn check_pin(
        &mut self,
        label: Label,
        device: Device,
        pin: Pin,
        prove: Option<PublicKey>,
        done: impl FnOnce(&mut Self, Result<(), Error>) + Send + 'static,
    ) {
        let called = self.keys.get(&label).map(Key::called).unwrap_or_default();
        self.on_token(
            "pin",
            device,
            move |station| station.may_try(&label).map(drop),
            move |token| {
                token.verify_pin(&pin)?;
                let proven = match prove {
                    Some(key) => signs(token, &pin, &key),
                    None => Ok(true),
                };
                Ok((token.clear()?, proven?))
            },
            move |station, result| {
                let proven = result.and_then(|(_, proven)| match proven {
                    true => Ok(()),
                    false => Err(Error::NotGenuine(called)),
                });
                done(station, proven);
            },
        );
    }

    fn pin_accepted(&mut self, number: u64, who: Who, pin: Pin) -> Result<(), Error> {
        let require_new = self.config.require_new_pin;
        let job = self
            .serializations
            .get_mut(&number)
            .ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        // The Key may have left, or somebody may have cancelled, while the token was asked.
        job.wizard.check(Event::PinsComplete)?;
        if who == Who::Candidate
            && pin.is_factory()
            && require_new
            && job.pins.candidate_new.is_none()
        {
            job.wizard.need_pin(Who::CandidateNew);
        }
        let factory = who == Who::Candidate && pin.is_factory();
        let candidate = job.candidate.clone();
        job.pins.keep(who, pin);
        let complete = job.wizard.pin_accepted(who)?;
        if factory && let Some(key) = self.keys.get_mut(&candidate) {
            key.details.pin = PinState::Default;
        }
        self.announce(number);
        if complete {
            self.start_write(number);
        }
        Ok(())
    }
}
