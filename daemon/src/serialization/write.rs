//! Runs the steps of a write in their order. Each step first checks whether it is done already, so that a resumed job
//! goes through the same steps.

use std::sync::atomic::Ordering;

use keywright_base::clock;
use keywright_proto::{
    Id, Kind, PublicKey,
    statement::next_version,
    words::{Stage, Who},
};
use keywright_token::{
    CardOutcome, Cleared, Container, KeyOrigin, Pin, PukReplacement, Session, Slot, Token,
    TokenError, TransportError, Usage, challenge, random_serial,
};

use super::{
    card::{CardOrder, put_card},
    closer_look,
    commit::new_issuer,
    order::{Failure, FinishedWrite, Order, PukOutcome, Report, Side, Stop, Stopped, Tools},
};
use crate::registry::Batch;

/// A write that is running.
pub(super) struct Write {
    pub(super) order: Order,
    pub(super) tools: Tools,
    pub(super) candidate: Session,
    pub(super) stage: Stage,
    pub(super) done: u32,
    issuer_authorized: bool,
}

/// Runs a write. Blocks the calling thread; each token has a thread of its own.
pub fn write(order: Order, tools: Tools) -> Result<FinishedWrite, Stopped> {
    begin(&order, &tools)?;
    let candidate = open(&order.candidate, Who::Candidate)?;
    let mut write = Write {
        order,
        tools,
        candidate,
        stage: Stage::Checking,
        done: 0,
        issuer_authorized: false,
    };
    let written = write.run();
    written.map_err(|stop| {
        // However the job stopped, clear the candidate, so that it does not stay authorized.
        let cleared = write.candidate.run(Token::clear);
        let candidate_authorized = stays_authorized(&cleared);
        Stopped { stop, issuer_authorized: write.issuer_authorized, candidate_authorized }
    })
}

/// Whether a token that could not be cleared has to be re-plugged. An unplugged token forgets its authorization.
pub(super) fn stays_authorized(cleared: &Result<Cleared, TokenError>) -> bool {
    match cleared {
        Ok(cleared) => cleared.authorized,
        Err(TokenError::Transport(TransportError::Gone)) => false,
        Err(_) => true,
    }
}

/// Saves the intent, before the first write to a token.
fn begin(order: &Order, tools: &Tools) -> Result<(), Stop> {
    if tools.registry.intent(order.intent.number)?.is_none() {
        let mut batch = Batch::new();
        // The CA has to be known under its id, so that what it signs can be revoked.
        if let (Some(by), Some(family)) = (&order.intent.issuer, order.intent.family) {
            let ca = Id::of_spki(&by.issuing_key);
            if tools.registry.issuer(ca)?.is_none() {
                batch.put_issuer(ca, new_issuer(family, &order.chain));
            }
        }
        batch.put_intent(order.intent.clone());
        batch.put_intent_entries(order.intent.number, order.locks.to_vec());
        tools.registry.commit(batch)?;
    }
    Ok(())
}

/// Whether all of the issuer's signatures are saved: from here on the job completes without the issuer.
pub fn issuer_is_done(intent: &crate::registry::records::Intent) -> bool {
    let made = &intent.made;
    intent.issuer.is_none() || made.statement.is_some()
}

pub(super) fn open(side: &Side, who: Who) -> Result<Session, Stop> {
    Session::open(&side.connector, &format!("token-{}", side.port))
        .map_err(|error| Stop::of(who, error))
}

impl Write {
    fn run(&mut self) -> Result<FinishedWrite, Stop> {
        self.check()?;
        self.keys()?;
        self.issue()?;
        self.certify()?;
        self.put_certificates()?;
        let card = self.put_card()?;
        let puk = self.secrets()?;
        self.enter(Stage::Verifying)?;
        let candidate_authorized = self.on_candidate(Token::clear)?.authorized;
        self.enter(Stage::Saving)?;
        let key = self.commit()?;
        let issuer_authorized = self.issuer_authorized;
        Ok(FinishedWrite { key, issuer_authorized, candidate_authorized, puk, card })
    }

    /// Verifies the PIN and checks that the candidate is not in use. What is fixed for the job is saved before anything
    /// is written.
    fn check(&mut self) -> Result<(), Stop> {
        self.enter(Stage::Checking)?;
        let pin = self.pin();
        self.on_candidate(move |token| token.verify_pin(&pin))?;
        if !self.order.intent.made.looked {
            let pin = self.pin();
            let usage = self.on_candidate(move |token| token.read_usage(&pin))?;
            if self.is_blank() {
                closer_look::check_blank(&usage, self.order.leftover)?;
            }
            self.order.intent.made.container = Some(if self.is_blank() {
                Container::AccessCertificate.number()
            } else if let Some(membership) = self.membership_container() {
                membership
            } else if let Some(container) = self.renewed_container()? {
                container.number()
            } else {
                self.free_container(usage)?.number()
            });
        }
        if self.writes_token() {
            let origin = self.on_candidate(Token::authenticate_management)?;
            if origin == KeyOrigin::Factory {
                self.on_candidate(Token::check_management_key_can_change)?;
            }
        }
        let made = &mut self.order.intent.made;
        // While the job waited for its Keys, another job may have issued a statement on the same Key.
        let newest = self.order.newest_version;
        if made.statement.is_none() && made.version <= newest.or(Some(0)) {
            made.version = Some(
                next_version(newest, clock::unix_millis())
                    .map_err(|error| Failure::Profile(error.to_string()))?,
            );
        }
        if !made.looked {
            let serial = || random_serial().map_err(Failure::from);
            made.serials = vec![serial()?, serial()?];
            getrandom::fill(&mut made.salt_seed).map_err(|_| no_randomness())?;
            made.looked = true;
            self.save()?;
        }
        Ok(())
    }

    /// Finds a free container for one more family's certificate. The key history is only a claim, so the container is
    /// read before it is used.
    fn free_container(&self, mut usage: Usage) -> Result<Container, Stop> {
        loop {
            let retired = closer_look::free_container(&usage)?;
            let container = Container::Retired(retired);
            match self.on_candidate(move |token| token.read_certificate(container))? {
                None => return Ok(container),
                Some(certificate) => usage.retired.push((retired, certificate)),
            }
        }
    }

    /// Generates the keys on the token. A key that exists already has to sign a challenge.
    fn keys(&mut self) -> Result<(), Stop> {
        self.enter(Stage::Keys)?;
        if let Some(guid) = self.order.intent.candidate.guid.filter(|g| self.order.guid != Some(*g))
        {
            self.on_candidate(move |token| token.write_guid(&guid))?;
        }
        let known = self.order.intent.made.access_key.clone();
        match known.or_else(|| self.order.intent.candidate.access_key.clone()) {
            Some(access_key) => {
                self.prove(Slot::Access, &access_key)?;
                self.order.intent.made.access_key = Some(access_key);
            }
            None => {
                let key = self.generate(Slot::Access)?;
                self.order.intent.made.access_key = Some(key.spki_der().to_vec());
            }
        }
        self.save()?;
        if self.order.intent.kind == Kind::Sub {
            return Ok(());
        }
        match self.order.intent.made.issuing_key.clone() {
            Some(issuing_key) => self.prove(Slot::Issuing, &issuing_key)?,
            None => {
                let key = self.generate(Slot::Issuing)?;
                self.order.intent.made.issuing_key = Some(key.spki_der().to_vec());
                if self.order.intent.kind == Kind::Master {
                    self.order.intent.family = Some(key.id());
                }
                self.save()?;
            }
        }
        Ok(())
    }

    fn generate(&mut self, slot: Slot) -> Result<PublicKey, Stop> {
        self.step()?;
        let point = self.on_candidate(move |token| token.generate(slot))?;
        let key = PublicKey::from_sec1_point(&point).map_err(|_| {
            let error = TokenError::Malformed { command: "GENERATE ASYMMETRIC KEY PAIR" };
            Failure::Token { who: Who::Candidate, error }
        })?;
        // A key that the registry knows was not generated just now.
        if self.tools.registry.key(key.id())?.is_some() {
            return Err(Failure::NotGenuine(Who::Candidate).into());
        }
        Ok(key)
    }

    /// Makes the candidate sign a challenge with the key that it should hold.
    fn prove(&mut self, slot: Slot, spki: &[u8]) -> Result<(), Stop> {
        self.step()?;
        let key =
            PublicKey::from_spki_der(spki).map_err(|error| Failure::Profile(error.to_string()))?;
        let digest = challenge().map_err(Failure::from)?;
        let pin = self.pin();
        let signature = self.on_candidate(move |token| token.sign_with(slot, &pin, &digest))?;
        key.verify_prehash(&digest, &signature)
            .map_err(|_| Failure::NotGenuine(Who::Candidate).into())
    }

    /// Writes the certificates to the token, and reads them back.
    fn put_certificates(&mut self) -> Result<(), Stop> {
        let made = self.order.intent.made.clone();
        if let Some(ca) = made.ca_certificate {
            self.put_certificate(Container::IssuingCertificate, ca)?;
        }
        if let (Some(access), None) = (made.access_certificate, &self.order.membership) {
            let container = made.container.and_then(Container::of_number);
            self.put_certificate(container.unwrap_or(Container::AccessCertificate), access)?;
        }
        Ok(())
    }

    fn put_certificate(&mut self, container: Container, der: Vec<u8>) -> Result<(), Stop> {
        self.step()?;
        self.on_candidate(move |token| token.write_certificate(container, &der))
    }

    /// Writes the family's card to a Key that can issue. A Sub Key gets none: it cannot issue, so no station would read
    /// its card.
    fn put_card(&mut self) -> Result<CardOutcome, Stop> {
        let made = &self.order.intent.made;
        let (Some(family), Some(statement), true) =
            (self.order.intent.family, made.statement.clone(), made.ca_certificate.is_some())
        else {
            return Ok(CardOutcome::NotDue);
        };
        let order = CardOrder {
            family,
            chain: [&[self.own_ca()?][..], &self.order.chain].concat(),
            statement: Some((statement, made.salt_seed)),
            registry: self.tools.registry.clone(),
            added: None,
            removed: None,
        };
        self.step()?;
        self.on_candidate(move |token| put_card(token, &order))
    }

    /// Replaces the PIN, then the management key, then the PUK.
    fn secrets(&mut self) -> Result<PukOutcome, Stop> {
        self.enter(Stage::Secrets)?;
        if let Some(new) = self.order.new_pin.take() {
            self.order.intent.made.pin_begun = true;
            self.save()?;
            let (old, fresh) = (self.pin(), new.clone());
            let changed = self.on_candidate(move |token| token.change_pin(&old, &fresh));
            if matches!(changed, Err(Stop::Pin { .. } | Stop::Failed(_))) {
                self.order.intent.made.pin_begun = false;
                self.save()?;
            }
            changed?;
            self.order.candidate.pin = new;
        }
        if !self.writes_token() {
            return Ok(PukOutcome::Left);
        }
        self.order.intent.made.management_key_begun = true;
        self.save()?;
        let pin = self.pin();
        self.on_candidate(move |token| token.protect_management_key(&pin))?;
        self.replace_puk()
    }

    fn replace_puk(&mut self) -> Result<PukOutcome, Stop> {
        let made = &self.order.intent.made;
        if made.puk_replaced {
            return Ok(PukOutcome::Replaced);
        }
        let begun = made.puk_begun;
        match self.order.factory_puk {
            Some(false) if begun => return Ok(PukOutcome::Unknown),
            Some(false) => return Ok(PukOutcome::Left),
            // A token that does not tell is offered the factory PUK once; the attempt is saved first.
            None if begun => return Ok(PukOutcome::Unknown),
            None if self.order.puk_tried => return Ok(PukOutcome::Left),
            None | Some(true) => {}
        }
        let Some(code) = self.order.recovery_code.clone() else { return Ok(PukOutcome::Left) };
        self.order.intent.made.puk_begun = true;
        self.save()?;
        match self.on_candidate(move |token| token.replace_factory_puk(&code))? {
            PukReplacement::Replaced => {}
            PukReplacement::Fixed => return Ok(PukOutcome::Fixed),
            PukReplacement::Kept { .. } => return Ok(PukOutcome::Left),
        }
        self.order.intent.made.puk_replaced = true;
        self.save()?;
        Ok(PukOutcome::Replaced)
    }

    /// Whether the candidate was blank when the job began.
    pub(super) fn is_blank(&self) -> bool {
        self.order.intent.candidate.access_key.is_none()
    }

    /// Whether the candidate is written to. A change of rights in its own family writes nothing.
    fn writes_token(&self) -> bool {
        self.is_blank() || self.order.membership.is_none()
    }

    /// The container of the certificate to replace, if that certificate really is there.
    fn renewed_container(&self) -> Result<Option<Container>, Stop> {
        let Some((number, der)) = self.order.renews.clone() else { return Ok(None) };
        let Some(container) = Container::of_number(number) else { return Ok(None) };
        let found = self.on_candidate(move |token| token.read_certificate(container))?;
        Ok(found.filter(|found| *found == der).map(|_| container))
    }

    fn membership_container(&self) -> Option<u32> {
        self.order.membership.as_ref().map(|_| Container::AccessCertificate.number())
    }

    fn pin(&self) -> Pin {
        self.order.candidate.pin.clone()
    }

    /// Runs a job on the candidate.
    pub(super) fn on_candidate<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Token) -> Result<R, TokenError> + Send + 'static,
    ) -> Result<R, Stop> {
        self.candidate.run(job).map_err(|error| Stop::of(Who::Candidate, error))
    }

    /// Notes whether the issuer stays authorized.
    pub(super) fn issuer_stays_authorized(&mut self, authorized: bool) {
        self.issuer_authorized = authorized;
    }

    /// Saves the progress of the job.
    pub(super) fn save(&self) -> Result<(), Stop> {
        let mut batch = Batch::new();
        batch.put_intent(self.order.intent.clone());
        Ok(self.tools.registry.commit(batch)?)
    }

    /// Begins a stage.
    pub(super) fn enter(&mut self, stage: Stage) -> Result<(), Stop> {
        self.stage = stage;
        self.step()
    }

    /// Begins a step: reports progress, or stops if a person has cancelled.
    pub(super) fn step(&mut self) -> Result<(), Stop> {
        if self.tools.stop.load(Ordering::Relaxed) {
            return Err(Stop::Cancelled);
        }
        let total = self.total();
        (self.tools.report)(Report { stage: self.stage, done: self.done.min(total), total });
        self.done += 1;
        Ok(())
    }

    /// The number of steps of this kind of job: seven stages, keys, signatures, certificates and the card.
    fn total(&self) -> u32 {
        match self.order.intent.kind {
            Kind::Sub => 7 + 1 + 2 + 1,
            Kind::Backup | Kind::Master => 7 + 2 + 4 + 3,
        }
    }
}

fn no_randomness() -> Failure {
    Failure::Profile("the system gives no random numbers".into())
}
