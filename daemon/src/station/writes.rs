//! From reviewed answers to a running write, and what becomes of the serialization when it ends.

use std::sync::atomic::Ordering;

use keywright_proto::{Certificate, Id, Kind};

use super::{
    Station,
    keys::Key,
    pins::token_error,
    serializations::Serialization,
    view::{Detail, Label, Outcome},
};
use crate::{
    clock,
    decision::{Past, Reason},
    error::Error,
    hotplug::{Device, DeviceId},
    presence::Claims,
    registry::records::{Intent, IntentCandidate, IntentIssuer, IntentMade, Scope},
    serialization::{
        left_behind,
        order::{Made, Order, Puk, Report, Side, Stop, Stopped, Tools},
        roll_back,
        wizard::{Event, Selection, Step, Who, Wizard},
        write::{self, issuer_is_done},
    },
    token::PinState,
};

impl Station {
    /// Starts the write, or queues it behind others that use the same tokens.
    pub(super) fn start_write(&mut self, number: u64) {
        self.renew_recovery_code(number);
        match self.order(number) {
            Err(error @ Error::Store(_)) => self.interrupted(number, &error, &[]),
            Err(error) => self.give_up(number, &error),
            Ok(order) => self.queue_write(number, order),
        }
    }

    fn queue_write(&mut self, number: u64, order: Order) {
        let Some(job) = self.serializations.get(&number) else { return };
        let labels: Vec<Label> = order
            .issuer
            .is_some()
            .then_some(job.issuer.clone())
            .flatten()
            .into_iter()
            .chain([job.candidate.clone()])
            .collect();
        let devices: Vec<DeviceId> = labels
            .iter()
            .filter_map(|label| Some(self.keys.get(label)?.device.as_ref()?.id.clone()))
            .collect();
        let myself = self.myself.clone();
        let report = move |report: Report| myself.tell(move |s| s.progress(number, report));
        let (registry, stop) = (self.registry.clone(), job.stop.clone());
        let tools = Tools { registry, report: Box::new(report), stop };
        let used = devices.clone();
        self.work(
            format!("write-{number}"),
            devices,
            move |station| labels.iter().try_for_each(|label| station.may_try(label).map(drop)),
            move || write::write(order, tools),
            move |station, ended| match ended {
                Ok(Ok(made)) => station.written(number, made, &used),
                Ok(Err(stopped)) => station.stopped(number, stopped, &used),
                Err(error) => station.interrupted(number, &error, &used),
            },
        );
    }

    /// Everything that the write needs, from what was reviewed and what is known.
    fn order(&mut self, number: u64) -> Result<Order, Error> {
        let job = self
            .serializations
            .get(&number)
            .ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        let (key, device) = self.present_key(&job.candidate)?;
        // Somebody used the token while the job waited for it.
        if key.claims.alien {
            return Err(Error::Pair(Reason::ForeignCredentials));
        }
        let pin = job.pins.candidate.clone().ok_or(Error::PinRequired(Who::Candidate))?;
        let candidate =
            Side { connector: device.connector.clone(), port: device.port.clone(), pin };
        let intent = match &job.intent {
            Some(intent) => intent.clone(),
            None => self.intent(number, job, key)?,
        };
        let issuer = match &job.issuer {
            Some(label) if !issuer_is_done(&intent) => {
                let (_, device) = self.present_key(label)?;
                let pin = job.pins.issuer.clone().ok_or(Error::PinRequired(Who::Issuer))?;
                Some(Side { connector: device.connector.clone(), port: device.port.clone(), pin })
            }
            _ => None,
        };
        let chain = self.issuer_chain(&intent)?;
        let family = intent.family;
        let access_key = intent.made.access_key.as_ref().or(intent.candidate.access_key.as_ref());
        let newest = match (access_key, family) {
            (Some(spki), Some(family)) => self.registry.statement(Id::of_spki(spki), family)?,
            _ => None,
        };
        Ok(Order {
            membership: self.membership(key, &intent, &chain)?,
            locks: job.locks.clone(),
            issuer,
            chain,
            candidate,
            guid: key.guid,
            leftover: match key.guid {
                Some(guid) => self.registry.leftover(guid)?.is_some(),
                None => false,
            },
            new_pin: job.pins.candidate_new.clone(),
            recovery_code: job.new_puk.clone(),
            factory_puk: key.details.puk_is_factory,
            puk_tried: self.puk_tried(key)?,
            newest_version: newest.and_then(|statement| statement.version),
            certificate_years: self.config.certificate_years,
            crl_years: self.config.crl_years,
            intent,
        })
    }

    fn intent(&self, number: u64, job: &Serialization, key: &Key) -> Result<Intent, Error> {
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        // Since the offer another job may have made something of one of them.
        for label in job.issuer.iter().chain([&job.candidate]) {
            self.is_free(label, Some(number))?;
        }
        if !self.kinds_for(job.issuer.as_ref(), &job.candidate)?.contains(&kind) {
            return Err(Error::InvalidArgument(format!(
                "a {kind} Key cannot be made of {} any more; start anew",
                key.called()
            )));
        }
        let issuer = match &job.issuer {
            None => None,
            Some(label) => {
                let issuer = self.key(label)?;
                let (Some(access), Some(issuing)) =
                    (issuer.claims.access_key(), issuer.claims.issuing_key())
                else {
                    return Err(Error::Pair(Reason::NotAnIssuer));
                };
                Some(IntentIssuer {
                    label: label.clone(),
                    access_key: access.spki_der().to_vec(),
                    issuing_key: issuing.spki_der().to_vec(),
                    port: issuer.port.clone(),
                })
            }
        };
        let family = match issuer {
            Some(_) => Some(self.issuing_family(number)?),
            None => None,
        };
        let blank = key.claims.access_key().is_none() || key.id.is_none();
        let access_key = key.claims.access_key().filter(|_| !blank);
        Ok(Intent {
            number,
            kind,
            name: job.wizard.name().to_owned(),
            started: clock::unix_seconds(),
            family,
            issuer,
            candidate: IntentCandidate {
                label: job.candidate.clone(),
                access_key: access_key.map(|key| key.spki_der().to_vec()),
                guid_before: key.guid,
                guid: if blank { Some(random_guid()?) } else { None },
                usb_serial: key.usb_serial.clone(),
                port: key.port.clone(),
                model: key.model.clone(),
                serial: key.serial.clone(),
            },
            scope: match kind {
                Kind::Sub => Scope::Listed(u32::try_from(job.locks.len()).unwrap_or(u32::MAX)),
                Kind::Master | Kind::Backup => Scope::All,
            },
            made: IntentMade::default(),
        })
    }

    /// The issuer's CA certificates; it counts only under a root that is pinned here.
    fn issuer_chain(&self, intent: &Intent) -> Result<Vec<Certificate>, Error> {
        let (Some(by), Some(family)) = (&intent.issuer, intent.family) else {
            return Ok(Vec::new());
        };
        if let Some(issuer) = self.registry.issuer(Id::of_spki(&by.issuing_key))? {
            return issuer
                .chain
                .iter()
                .map(|der| Certificate::parse(der))
                .collect::<Result<_, _>>()
                .map_err(|_| Error::Unverified(family));
        }
        let own = self.key(&by.label)?.claims.issuing.clone().ok_or(Error::Unverified(family))?;
        match self.chain_of(&own, family)? {
            (chain, false) => Ok(chain),
            (_, true) => Err(Error::Unverified(family)),
        }
    }

    /// The access certificate that the candidate has of the issuer's family, if it is a real one.
    fn membership(
        &self,
        key: &Key,
        intent: &Intent,
        chain: &[Certificate],
    ) -> Result<Option<Certificate>, Error> {
        let (Some(id), Some(family)) = (key.id, intent.family) else { return Ok(None) };
        if intent.candidate.access_key.is_none() {
            return Ok(None);
        }
        let known = self.registry.memberships(id)?.into_iter().find(|(of, _)| *of == family);
        if let Some((_, membership)) = known {
            return Ok(Certificate::parse(&membership.certificate).ok());
        }
        // Made at another station: its own certificate counts if this issuer signed it.
        let Some(access) = &key.claims.access else { return Ok(None) };
        let mut full = vec![access.clone()];
        full.extend_from_slice(chain);
        let root = chain.last().map(Certificate::der).unwrap_or_default();
        let proven = keywright_proto::verify_chain(&full, root, None);
        Ok((proven == Ok(family)).then(|| access.clone()))
    }

    fn progress(&mut self, number: u64, report: Report) {
        if let Some(job) = self.serializations.get_mut(&number) {
            job.stage = Some(report.stage);
            job.progress = (report.done, report.total);
        }
    }

    fn written(&mut self, number: u64, made: Made, used: &[DeviceId]) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        let candidate = job.candidate.clone();
        job.progress.0 = job.progress.1;
        job.intent = None;
        job.result = Some(candidate.clone());
        // One that may be in force is not withheld.
        if made.puk == Puk::Left {
            job.recovery_code = None;
        }
        tracing::info!(number, key = %made.key, "a Key was made");
        self.note_authorized(number, [made.issuer_authorized, made.candidate_authorized], used);
        self.reread(&candidate, made.key);
        let outcome = self.success(number, made);
        if let Some(job) = self.serializations.get_mut(&number) {
            job.outcome = outcome;
            if let Err(error) = job.wizard.happen(Event::Written) {
                tracing::error!(number, %error, "a finished write was not expected");
            }
        }
        self.ask_for_replug(number);
        self.ended(number, Past::Done);
        self.pin_changed(&candidate);
        if let Some(family) = self.keys.get(&candidate).and_then(|key| key.claims.family) {
            self.refresh_family(family.0);
        }
    }

    /// What a person should know of a finished write: what became of the PUK.
    fn success(&self, number: u64, made: Made) -> Outcome {
        let known = self.serializations.get(&number).is_some_and(|job| job.new_puk.is_some());
        let (word, text) = match made.puk {
            Puk::Replaced if known => return Outcome::default(),
            Puk::Replaced => (
                "replaced",
                "the recovery code that was handed out before the interruption is in force; if nobody took it, it is lost",
            ),
            Puk::Left => ("left", "the PUK was not the factory's and stays as it was"),
            Puk::Unknown => (
                "unknown",
                "whether the recovery code is in force could not be learnt; keep the old PUK too",
            ),
        };
        Outcome { text: text.into(), ..Outcome::default() }.with("puk", Detail::Text(word.into()))
    }

    /// Shows which tokens of a write (issuer, candidate) stay authorized, unless they were re-plugged.
    fn note_authorized(&mut self, number: u64, stays: [bool; 2], used: &[DeviceId]) {
        let Some(job) = self.serializations.get(&number) else { return };
        for (label, stays) in [job.issuer.as_ref(), Some(&job.candidate)].into_iter().zip(stays) {
            if let Some(key) = label.and_then(|label| self.keys.get_mut(label))
                && key.device.as_ref().is_some_and(|device| used.contains(&device.id))
            {
                key.authorized |= stays;
            }
        }
    }

    /// Asks for a re-plug of what stays authorized.
    fn ask_for_replug(&mut self, number: u64) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        let called: Vec<String> = [job.issuer.as_ref(), Some(&job.candidate)]
            .into_iter()
            .flatten()
            .filter_map(|label| self.keys.get(label))
            .filter(|key| key.authorized)
            .map(Key::called)
            .collect();
        if !called.is_empty() {
            let called = called.join(" and ");
            job.outcome.add(&format!("unplug {called} now: the token stays authorized until then"));
            job.outcome.details.push(("replug", Detail::Flag(true)));
        }
    }

    /// Takes over what is now on a Key, without asking the token again.
    fn reread(&mut self, label: &Label, id: Id) {
        let known = || {
            let record = self.registry.key(id)?;
            let first = self.registry.memberships(id)?;
            let issuing = match record.as_ref().and_then(|record| record.issuing_key.as_ref()) {
                Some(spki) => self.registry.issuer(Id::of_spki(spki))?,
                None => None,
            };
            Ok::<_, crate::registry::RegistryError>((record, first, issuing))
        };
        let (record, memberships, issuing) = match known() {
            Ok((Some(record), memberships, issuing)) => (record, memberships, issuing),
            Ok((None, ..)) => return,
            Err(error) => return tracing::error!(%error, "a new Key cannot be read"),
        };
        let Some(key) = self.keys.get_mut(label) else { return };
        let parse = |der: &Vec<u8>| Certificate::parse(der).ok();
        // A member of several families keeps showing what it showed: the first family's.
        if key.id.is_none() {
            key.claims = Claims {
                family: Some((record.family, record.role)),
                access: memberships
                    .iter()
                    .find(|(family, _)| *family == record.family)
                    .and_then(|(_, first)| parse(&first.certificate)),
                issuing: issuing.and_then(|issuer| issuer.chain.first().and_then(parse)),
                ..Claims::default()
            };
        }
        key.id = Some(id);
        key.guid = record.guid;
        key.serial = record.serial;
        if self.config.require_new_pin {
            key.details.pin = PinState::Set;
        }
        key.details.puk_is_factory = key.details.puk_is_factory.map(|_| false);
        self.refresh(label);
    }

    fn stopped(&mut self, number: u64, stopped: Stopped, used: &[DeviceId]) {
        tracing::warn!(number, ?stopped, "a write stopped");
        let stays = [stopped.issuer_authorized, stopped.candidate_authorized];
        self.note_authorized(number, stays, used);
        self.take_stop(number, stopped.stop, used);
        self.ask_for_replug(number);
    }

    fn take_stop(&mut self, number: u64, stop: Stop, used: &[DeviceId]) {
        let job = self.serializations.get(&number);
        let called_off = job.is_some_and(|job| job.stop.load(Ordering::Relaxed));
        match stop {
            // A Cancel that was answered holds, even where something else was noticed first.
            Stop::Pin { .. } | Stop::Interrupted { .. } if called_off => {
                self.take_stop(number, Stop::Cancelled, used);
            }
            Stop::Cancelled => {
                if let Some(job) = self.serializations.get_mut(&number)
                    && let Err(error) = job.wizard.happen(Event::Cancel)
                {
                    tracing::error!(number, %error, "a write was cancelled out of step");
                }
                self.ended(number, Past::Cancelled);
                self.abandon_or_say(number);
            }
            Stop::Pin { who, error } => self.pin_lost(number, who, error),
            Stop::Interrupted { who, error } => {
                let error = match self.side(number, who) {
                    Some(key) => token_error(key, error),
                    None => Error::KeyAbsent("a Key of this job".into()),
                };
                self.interrupted(number, &error, used);
            }
            Stop::Store(error) => self.interrupted(number, &Error::Store(error), used),
            Stop::Failed(failure) => {
                let called = self.side(number, Who::Candidate).map(Key::called).unwrap_or_default();
                self.give_up(number, &Error::failed(&called, failure));
            }
        }
    }

    fn side(&self, number: u64, who: Who) -> Option<&Key> {
        let job = self.serializations.get(&number)?;
        self.keys.get(match who {
            Who::Issuer => job.issuer.as_ref()?,
            Who::Candidate | Who::CandidateNew => &job.candidate,
        })
    }

    /// A token refused in the write what it had accepted before: a person has to give it again.
    fn pin_lost(&mut self, number: u64, who: Who, error: crate::token::TokenError) {
        let Some(key) = self.side(number, who) else { return };
        let answer = token_error(key, error.clone());
        let device = key.device.as_ref().map(|device| device.id.clone());
        if let Some((_, key)) = device.and_then(|device| self.present_mut(&device)) {
            key.note_refusal(&error);
        }
        self.load_intent(number);
        if let Some(job) = self.serializations.get_mut(&number)
            && job.wizard.happen(Event::PinLost).is_ok()
        {
            job.pins.forget(who);
            job.wizard.need_pin(who);
            job.outcome =
                Outcome::failed(&answer).with("who", Detail::Text(who.as_str().to_owned()));
        }
        // One of the Keys may have left, or have come back, while the write ran.
        let needed = self.pins_to_ask(number);
        let Some(job) = self.serializations.get_mut(&number) else { return };
        needed.into_iter().for_each(|who| job.wizard.need_pin(who));
        let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
        let here = present(&job.candidate) && job.issuer.as_ref().is_none_or(present);
        if !here && let Err(error) = job.wizard.happen(Event::KeyLeft) {
            tracing::error!(number, %error, "a Key left out of step");
        }
    }

    /// The write was broken off: it is at awaiting-key until both Keys are back.
    fn interrupted(&mut self, number: u64, error: &Error, used: &[DeviceId]) {
        self.load_intent(number);
        let text = match error {
            Error::KeyAbsent(key) => format!(
                "the write was interrupted: {key} was unplugged; plug it in again to go on, or cancel"
            ),
            other => format!(
                "the write was interrupted: {other}; to go on, unplug both Keys and plug them in again"
            ),
        };
        let Some(job) = self.serializations.get_mut(&number) else { return };
        if job.wizard.happen(Event::Interrupted).is_err() {
            return;
        }
        job.owner = None;
        job.pins = Default::default();
        let name = match error {
            Error::Store(_) => error.name(),
            _ => keywright_proto::ErrorName::Interrupted,
        };
        let stage = job.stage.map(|stage| stage.as_str().to_owned()).unwrap_or_default();
        job.outcome = Outcome { error: Some(name), text, details: Vec::new() }
            .with("stage", Detail::Text(stage));
        self.announce(number);
        // A Key that came back while the write still ran has been announced already.
        let replugged = used.iter().any(|device| self.present_mut(device).is_none());
        if replugged {
            self.resume_if_complete(number);
        }
    }

    fn load_intent(&mut self, number: u64) {
        let intent = self.registry.intent(number).unwrap_or_else(|error| {
            tracing::error!(number, %error, "the intent of a job cannot be read");
            None
        });
        let Some(job) = self.serializations.get_mut(&number) else { return };
        // Once it has a key of this job it has its GUID too: no other blank token is taken for it.
        if let Some(intent) = &intent
            && let (Some(guid), Some(_)) = (intent.candidate.guid, &intent.made.access_key)
            && let Some(key) = self.keys.get_mut(&job.candidate)
        {
            key.guid = Some(guid);
        }
        job.intent = intent;
    }

    /// A job that cannot be done.
    fn give_up(&mut self, number: u64, error: &Error) {
        if let Some(job) = self.serializations.get_mut(&number) {
            if let Err(refusal) = job.wizard.happen(Event::Abandoned) {
                tracing::error!(number, %refusal, "a job failed out of step");
            }
            let stage = job.stage.map(|stage| stage.as_str().to_owned()).unwrap_or_default();
            job.outcome = Outcome::failed(error).with("stage", Detail::Text(stage));
        }
        self.ended(number, Past::Cancelled);
        self.abandon_or_say(number);
    }

    fn abandon_or_say(&mut self, number: u64) {
        if let Err(error) = self.abandon(number)
            && let Some(job) = self.serializations.get_mut(&number)
        {
            job.outcome = Outcome::failed(&error);
        }
    }

    /// Rolls back what a job began, and says what is left.
    pub(super) fn abandon(&mut self, number: u64) -> Result<(), Error> {
        let rolled_back = roll_back(&self.registry, number).inspect_err(|error| {
            tracing::error!(number, %error, "a job could not be rolled back");
        })?;
        // A recovery code that may be in force is still to be had; any other is worth nothing.
        if !rolled_back.as_ref().is_some_and(|intent| intent.made.puk_begun)
            && let Some(job) = self.serializations.get_mut(&number)
        {
            job.recovery_code = None;
        }
        let Some(intent) = rolled_back else { return Ok(()) };
        let left = left_behind(&intent);
        let candidate = intent.candidate.label.clone();
        if let Some(job) = self.serializations.get_mut(&number) {
            job.intent = None;
            let text = if left.is_empty() {
                "nothing was written".to_owned()
            } else {
                format!("left on the token, for the next job to replace: {}", left.join(", "))
            };
            job.outcome.add(&text);
            job.outcome.details.push(("left", Detail::Text(left.join(","))));
            if intent.made.puk_begun {
                job.outcome.details.push(("puk", Detail::Text("unknown".into())));
            }
        }
        // The token may have its new GUID, or not: what is there is read at the next plug.
        if let Some(key) = self.keys.get_mut(&candidate)
            && intent.made.looked
            && intent.candidate.guid.is_some()
        {
            key.guid = intent.candidate.guid;
        }
        self.refresh(&candidate);
        self.forget_if_unknown(&candidate);
        Ok(())
    }

    /// Shows a job that was interrupted before the daemon started.
    pub(super) fn take_up(&mut self, intent: Intent) {
        let number = intent.number;
        let locks = self.registry.intent_entries(number).unwrap_or_default();
        let selected = locks.iter().filter(|entry| entry.allow).count();
        let count = u32::try_from(selected).unwrap_or(u32::MAX);
        let wizard =
            Wizard::resumed(intent.kind, intent.name.clone(), Selection { all: false, count });
        let issuer = intent.issuer.as_ref().map(|issuer| issuer.label.clone());
        let candidate = intent.candidate.label.clone();
        self.touched.insert(candidate.clone());
        self.keys.entry(candidate.clone()).or_insert_with(|| Key {
            guid: intent.candidate.guid,
            usb_serial: intent.candidate.usb_serial.clone(),
            port: intent.candidate.port.clone(),
            model: intent.candidate.model.clone(),
            serial: intent.candidate.serial.clone(),
            ..Key::default()
        });
        if let (Some(label), Some(by)) = (&issuer, &intent.issuer)
            && let Some(key) = self.keys.get_mut(label)
        {
            key.port.clone_from(&by.port);
        }
        let mut job = Serialization::new(issuer, candidate, wizard);
        job.locks = locks;
        job.outcome = Outcome {
            error: Some(keywright_proto::ErrorName::Interrupted),
            text: "the write was interrupted; plug both Keys in to go on, or cancel it".into(),
            details: Vec::new(),
        };
        job.intent = Some(intent);
        self.serializations.insert(number, job);
    }

    /// The candidate of an interrupted job that this token is: by the GUID that the job gave it, by
    /// its access key, or, before anything was written, as a blank token.
    pub(super) fn interrupted_candidate(
        &self,
        device: &Device,
        claims: &Claims,
        guid: Option<[u8; 16]>,
    ) -> Option<Label> {
        self.serializations
            .values()
            .filter(|job| {
                job.wizard.step() == Step::AwaitingKey || job.wizard.step() == Step::Writing
            })
            .find_map(|job| {
                // A write that still runs has its intent on disk only.
                let intent = match &job.intent {
                    Some(intent) => Some(intent.clone()),
                    None => self.intent_of(&job.candidate),
                }?;
                let by_key = claims
                    .access_key()
                    .is_some_and(|key| intent.made.access_key.as_deref() == Some(key.spki_der()));
                let by_guid = guid.is_some() && guid == intent.candidate.guid;
                // Before anything was written it is the blank token that it was.
                let was = &intent.candidate;
                let untouched = intent.made.access_key.is_none()
                    && claims.access.is_none()
                    && !claims.foreign
                    && (guid, &device.usb_serial, &device.port)
                        == (was.guid_before, &was.usb_serial, &was.port);
                (by_key || by_guid || untouched).then(|| job.candidate.clone())
            })
    }

    fn intent_of(&self, candidate: &Label) -> Option<Intent> {
        let intents = self.registry.intents().ok()?;
        intents.into_iter().find(|intent| intent.candidate.label == *candidate)
    }
}

fn random_guid() -> Result<[u8; 16], Error> {
    crate::token::random_guid()
        .map_err(|_| Error::Unsupported("the system gives no random numbers".into()))
}
