//! One offer, or one job: who drives it, what was answered, how it stands; and the calls that answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use keywright_proto::{Certificate, Id, Kind, check_name};

use super::{
    Caller, Reply, Station,
    pins::Pins,
    view::{Label, Outcome, SerializationView, Summary},
};
use crate::{
    decision::{self, FOR_BLANK, Past},
    error::Error,
    presence::{self, State},
    registry::records::{Intent, LockEntry},
    serialization::{
        stage::Stage,
        wizard::{Event, Refusal, Selection, Step, Who, Wizard},
    },
    token::RecoveryCode,
};

/// How many Locks one statement may be about (contract section 4).
const MOST_LOCKS: usize = 100_000;

/// Which Locks a front-end selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChoice {
    /// All that the family has at Save.
    All,
    /// These.
    These(Vec<Id>),
}

/// A serialization on the bus.
pub struct Serialization {
    /// The issuing Key; none for a new Master.
    pub issuer: Option<Label>,
    /// The Key that is being made.
    pub candidate: Label,
    /// The answers and the step.
    pub wizard: Wizard,
    /// The Locks that were selected one by one, and all of them from Save on.
    pub locks: Vec<LockEntry>,
    /// The unique bus name of the front-end that drives it.
    pub owner: Option<String>,
    /// The PINs that were accepted.
    pub pins: Pins,
    /// How it stands.
    pub outcome: Outcome,
    /// What the write is doing.
    pub stage: Option<Stage>,
    /// Done and total.
    pub progress: (u32, u32),
    /// What its write is on disk with, once that has begun.
    pub intent: Option<Intent>,
    /// The new PUK, until it is taken.
    pub recovery_code: Option<RecoveryCode>,
    /// The same for the write, which needs it whether it was taken or not.
    pub new_puk: Option<RecoveryCode>,
    /// Tells a running write to stop.
    pub stop: Arc<AtomicBool>,
    /// The finished Key.
    pub result: Option<Label>,
}

impl Serialization {
    /// An offer.
    pub fn new(issuer: Option<Label>, candidate: Label, wizard: Wizard) -> Self {
        Self {
            issuer,
            candidate,
            wizard,
            locks: Vec::new(),
            owner: None,
            pins: Pins::default(),
            outcome: Outcome::default(),
            stage: None,
            progress: (0, 0),
            intent: None,
            recovery_code: None,
            new_puk: None,
            stop: Arc::default(),
            result: None,
        }
    }

    /// This Key is part of it.
    pub fn involves(&self, label: &Label) -> bool {
        self.candidate == *label || self.issuer.as_ref() == Some(label)
    }

    /// It is under way for this pair.
    pub fn is_live_for(&self, issuer: Option<&str>, candidate: &str) -> bool {
        !self.wizard.step().is_end()
            && self.issuer.as_deref() == issuer
            && self.candidate == candidate
    }

    /// One of its Keys left: what that token accepted counts no more.
    pub fn key_left(&mut self, label: &Label) {
        self.pins.forget(self.who(label));
    }

    /// Which of its two Keys this is.
    pub fn who(&self, label: &Label) -> Who {
        if self.candidate == *label { Who::Candidate } else { Who::Issuer }
    }

    /// What the bus shows.
    pub fn view(&self) -> SerializationView {
        let selection = self.wizard.selection();
        SerializationView {
            issuer: self.issuer.clone(),
            candidate: self.candidate.clone(),
            result: self.result.clone(),
            kinds: self.wizard.kinds().to_vec(),
            kind: self.wizard.kind(),
            name: self.wizard.name().to_owned(),
            selected: selection.count,
            all_locks: selection.all,
            step: self.wizard.step(),
            steps: self.wizard.steps(),
            revision: self.wizard.revision(),
            pins_needed: self.wizard.pins_needed().to_vec(),
            progress: self.progress,
            stage: self.stage,
            owner: self.owner.clone(),
            outcome: self.outcome.clone(),
        }
    }
}

impl Station {
    /// StartSerialization.
    pub fn start_serialization(
        &mut self,
        caller: Caller,
        issuer: Option<Label>,
        candidate: Label,
        kind: Option<Kind>,
        name: Option<String>,
        reply: Reply<u64>,
    ) {
        let started = self.start_pair(issuer, candidate, kind, name);
        if let Ok(number) = &started {
            tracing::debug!(number, caller = caller.name, "started by hand");
        }
        reply.answer(self, started);
    }

    fn start_pair(
        &mut self,
        issuer: Option<Label>,
        candidate: Label,
        kind: Option<Kind>,
        name: Option<String>,
    ) -> Result<u64, Error> {
        if let Some(name) = &name {
            checked(name)?;
        }
        let live = self
            .serializations
            .iter()
            .find(|(_, job)| job.is_live_for(issuer.as_deref(), &candidate))
            .map(|(number, _)| *number);
        if let Some(number) = live
            && self.is_half_made(&candidate, None)
        {
            return Ok(number);
        }
        let kinds = self.kinds_for(issuer.as_ref(), &candidate)?;
        if let Some(kind) = kind
            && !kinds.contains(&kind)
        {
            return Err(Error::InvalidArgument(format!(
                "option \"kind\": a {kind} Key cannot be made of this pair; leave the option out, and Kinds says what can"
            )));
        }
        let number = match live {
            Some(number) => return Ok(number),
            None => {
                for label in issuer.iter().chain([&candidate]) {
                    self.is_free(label, None)?;
                }
                let mut wizard = Wizard::new(kinds);
                // A new Master is no choice: the question is answered by asking for it.
                if let Some(kind) = kind.or(issuer.is_none().then_some(Kind::Master)) {
                    wizard.set_kind(kind)?;
                }
                self.history.remove(&(issuer.clone(), candidate.clone()));
                self.add_serialization(issuer, candidate, wizard)?
            }
        };
        if let Some(name) = name
            && let Some(job) = self.serializations.get_mut(&number)
        {
            match job.wizard.step() {
                Step::Name => job.wizard.set_name(name)?,
                _ => job.wizard.propose_name(name),
            }
        }
        Ok(number)
    }

    /// What may be made of a pair that a person names. Role errors come first.
    pub(super) fn kinds_for(
        &self,
        issuer: Option<&Label>,
        candidate: &Label,
    ) -> Result<&'static [Kind], Error> {
        let other = self.key(candidate)?;
        let Some(issuer) = issuer else {
            self.present_key(candidate)?;
            return match other.state {
                State::Blank => Ok(&[Kind::Master]),
                State::Foreign => Err(Error::Pair(decision::Reason::ForeignCredentials)),
                State::Revoked => Err(Error::Pair(decision::Reason::Revoked)),
                State::Unusable => Err(Error::Pair(decision::Reason::Unusable)),
                _ => Err(Error::InvalidArgument(format!(
                    "{} is somebody's Key already; a new Master takes a blank one",
                    other.called()
                ))),
            };
        };
        if issuer == candidate {
            return Err(Error::InvalidArgument(
                "issuer and candidate are the same Key; name two".into(),
            ));
        }
        let key = self.key(issuer)?;
        let standing = |key: &super::keys::Key| {
            presence::standing(key.state, &key.claims, self.has_lock(&key.claims))
        };
        let kinds = match decision::permit(standing(key), standing(other)) {
            Err(reason) => return Err(Error::Pair(reason)),
            Ok(FOR_BLANK) => FOR_BLANK,
            Ok(kinds) => kinds,
        };
        self.present_key(issuer)?;
        self.present_key(candidate)?;
        Ok(kinds)
    }

    /// A half-made Key is for its own job alone, until that is done or rolled back.
    pub(super) fn is_free(&self, label: &Label, own: Option<u64>) -> Result<(), Error> {
        if !self.is_half_made(label, own) {
            return Ok(());
        }
        let called = self.key(label).map(super::keys::Key::called).unwrap_or_default();
        let holder = "a serialization that has to be finished or cancelled first".into();
        Err(Error::KeyBusy { key: called, holder })
    }

    /// The write of another job that makes this Key has begun and not ended.
    pub(super) fn is_half_made(&self, label: &str, own: Option<u64>) -> bool {
        self.serializations.iter().any(|(number, job)| {
            let begun = job.intent.is_some() || job.wizard.step() == Step::Writing;
            begun && job.candidate == label && !job.wizard.step().is_end() && own != Some(*number)
        })
    }

    /// Fills in what is known already: a Key whose rights are changed keeps its name and its Locks.
    pub(super) fn propose(&mut self, number: u64) {
        let Some(job) = self.serializations.get(&number) else { return };
        let (Some(key), Some(issuer)) = (
            self.keys.get(&job.candidate),
            job.issuer.as_ref().and_then(|issuer| self.keys.get(issuer)),
        ) else {
            return;
        };
        let (Some(id), Some((family, _))) = (key.id, issuer.claims.family) else { return };
        let name = key.name.clone();
        let mut entries = self.registry.statement_entries(id, family).unwrap_or_default();
        entries.retain(|entry| entry.allow);
        let Some(job) = self.serializations.get_mut(&number) else { return };
        if job.wizard.name().is_empty() {
            job.wizard.propose_name(name);
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        job.wizard.propose_locks(Selection { all: false, count });
        job.locks = entries;
    }

    fn job(&mut self, number: u64) -> Result<&mut Serialization, Error> {
        self.serializations
            .get_mut(&number)
            .ok_or_else(|| Error::NotFound(format!("serialization {number}")))
    }

    /// The serialization, if this caller may drive it. Claiming is left to [`Self::answered`].
    pub(super) fn driven(
        &mut self,
        number: u64,
        caller: &Caller,
    ) -> Result<&mut Serialization, Error> {
        let job = self.job(number)?;
        match &job.owner {
            Some(owner) if *owner != caller.name => Err(Error::NotOwner { owner: owner.clone() }),
            _ => Ok(job),
        }
    }

    /// Answers a call that drives a serialization; the first that succeeds claims it.
    pub(super) fn answered<T: Send + 'static>(
        &mut self,
        number: u64,
        caller: &Caller,
        result: Result<T, Error>,
        reply: Reply<T>,
    ) {
        if result.is_ok()
            && let Some(job) = self.serializations.get_mut(&number)
        {
            job.owner.get_or_insert_with(|| caller.name.clone());
        }
        self.announce(number);
        reply.answer(self, result);
    }

    /// Claim.
    pub fn claim(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).map(|_| ());
        self.answered(number, &caller, result, reply);
    }

    /// Release. Nobody's serialization is released already.
    pub fn release(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).map(|job| job.owner = None);
        reply.answer(self, result);
    }

    /// A name left the bus: what it drove is nobody's now.
    pub fn bus_name_left(&mut self, name: &str) {
        for job in self.serializations.values_mut() {
            if job.owner.as_deref() == Some(name) {
                job.owner = None;
            }
        }
    }

    /// SetKind.
    pub fn set_kind(&mut self, number: u64, caller: Caller, kind: Kind, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.set_kind(kind)?;
            if kind != Kind::Sub {
                job.locks.clear();
            }
            Ok(())
        });
        self.answered(number, &caller, result, reply);
    }

    /// SetName.
    pub fn set_name(&mut self, number: u64, caller: Caller, name: String, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.check(Event::SetName)?;
            checked(&name)?;
            Ok(job.wizard.set_name(name)?)
        });
        self.answered(number, &caller, result, reply);
    }

    /// Back.
    pub fn back(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| Ok(job.wizard.back()?));
        self.answered(number, &caller, result, reply);
    }

    /// SelectLocks.
    pub fn select_locks(
        &mut self,
        number: u64,
        caller: Caller,
        choice: LockChoice,
        reply: Reply<()>,
    ) {
        let result = self.choose_locks(number, &caller, &choice);
        self.answered(number, &caller, result, reply);
    }

    fn choose_locks(
        &mut self,
        number: u64,
        caller: &Caller,
        choice: &LockChoice,
    ) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(Event::SelectLocks)?;
        let family = self.issuing_family(number)?;
        let (all, entries) = match choice {
            LockChoice::All => {
                let count = self.registry.family(family)?.map_or(0, |family| family.locks);
                let job = self.job(number)?;
                job.locks.clear();
                return Ok(job.wizard.select_locks(Selection { all: true, count })?);
            }
            LockChoice::These(ids) => (false, self.entries(family, ids)?),
        };
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let job = self.job(number)?;
        job.wizard.select_locks(Selection { all, count })?;
        job.locks = entries;
        Ok(())
    }

    /// The chosen Locks, sorted; each has to be one of the family's, and be named once.
    fn entries(&self, family: Id, ids: &[Id]) -> Result<Vec<LockEntry>, Error> {
        if ids.is_empty() {
            return Err(Error::InvalidArgument(
                "no Lock is selected; name at least one, or all".into(),
            ));
        }
        too_many(ids.len())?;
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            let entry = self.registry.lock_entry(family, *id)?;
            entries.push(entry.ok_or_else(|| Error::NotFound(format!("Lock {id}")))?);
        }
        entries.sort_by_key(|entry| entry.lock);
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].lock == pair[1].lock) {
            return Err(Error::InvalidArgument(format!(
                "Lock {} is named twice; name each once",
                twice[0].lock
            )));
        }
        Ok(entries)
    }

    /// The family that a serialization's issuer issues for.
    pub(super) fn issuing_family(&self, number: u64) -> Result<Id, Error> {
        let issuer = self.serializations.get(&number).and_then(|job| job.issuer.as_ref());
        let family = issuer
            .and_then(|issuer| self.keys.get(issuer))
            .and_then(|key| key.claims.family.or_else(|| key.memberships.first().copied()));
        family.map(|(family, _)| family).ok_or(Error::Pair(decision::Reason::NotAnIssuer))
    }

    /// A page of the Locks that are selected, for ListLocks.
    pub fn selected_locks(
        &mut self,
        number: u64,
        after: Option<Id>,
        limit: u32,
        reply: Reply<Vec<Id>>,
    ) {
        let result = self.selection(number).map(|entries| {
            let start = after.map_or(0, |after| entries.partition_point(|e| e.lock <= after));
            entries.iter().skip(start).take(limit as usize).map(|entry| entry.lock).collect()
        });
        reply.answer(self, result);
    }

    /// The Locks that are selected now.
    fn selection(&self, number: u64) -> Result<Vec<LockEntry>, Error> {
        let job = self.serializations.get(&number);
        let job = job.ok_or_else(|| Error::NotFound(format!("serialization {number}")))?;
        if job.wizard.selection().all && job.locks.is_empty() {
            return Ok(self.registry.lock_entries(self.issuing_family(number)?)?);
        }
        Ok(job.locks.iter().filter(|entry| entry.allow).copied().collect())
    }

    /// The Locks of the Key's newest statement that are not among these. They have to be denied: a
    /// Lock of which the next statement said nothing would go on admitting the Key.
    fn dropped(&self, number: u64, selected: &[LockEntry]) -> Result<Vec<LockEntry>, Error> {
        let candidate = self.serializations.get(&number).map(|job| &job.candidate);
        let key = candidate.and_then(|candidate| self.keys.get(candidate));
        let Some(id) = key.and_then(|key| key.id) else { return Ok(Vec::new()) };
        let mut known = self.registry.statement_entries(id, self.issuing_family(number)?)?;
        known.retain(|known| selected.binary_search_by_key(&known.lock, |e| e.lock).is_err());
        Ok(known)
    }

    /// Review.
    pub fn review(&mut self, number: u64, caller: Caller, reply: Reply<Summary>) {
        let result = self.driven(number, &caller).and_then(|job| {
            job.wizard.check(Event::Save)?;
            Ok(())
        });
        let result = result.and_then(|()| self.summary(number));
        self.answered(number, &caller, result, reply);
    }

    fn summary(&mut self, number: u64) -> Result<Summary, Error> {
        let mut warnings = self.warnings(number);
        if self.job(number)?.wizard.kind() == Some(Kind::Sub) {
            let dropped = self.dropped(number, &self.selection(number)?)?;
            let count = dropped.iter().filter(|entry| entry.allow).count();
            if count > 0 {
                let text =
                    format!("{count} of the Locks of this Key are not selected; it loses them");
                warnings.push(("rights-removed".into(), text));
            }
        }
        let job = self.job(number)?;
        let kind = job.wizard.kind().ok_or(Error::Cancelled)?;
        let (selected, issuer) = (job.wizard.selection().count, job.issuer.clone());
        let (name, revision) = (job.wizard.name().to_owned(), job.wizard.revision());
        let locks = match (kind, issuer) {
            (Kind::Sub, _) => selected,
            (_, Some(_)) => {
                let family = self.issuing_family(number)?;
                self.registry.family(family)?.map_or(0, |family| family.locks)
            }
            (_, None) => 0,
        };
        // Every right starts as pending: only the Lock itself makes it active.
        Ok(Summary { kind, name, locks, pending: locks, warnings, revision })
    }

    /// What a person should know before the write.
    fn warnings(&self, number: u64) -> Vec<(String, String)> {
        let Some(job) = self.serializations.get(&number) else { return Vec::new() };
        let issuer = job.issuer.as_ref().and_then(|label| self.keys.get(label));
        let mut warnings = Vec::new();
        if let (Some(issuer), Some(Kind::Backup)) = (issuer, job.wizard.kind()) {
            for (family, role) in issuer.memberships.iter().skip(1) {
                warnings.push((
                    "rights-not-copied".into(),
                    format!(
                        "{} is also a {role} Key of family {family}; the Backup Key gets no right there",
                        issuer.called()
                    ),
                ));
            }
        }
        warnings
    }

    /// Save.
    pub fn save(&mut self, number: u64, caller: Caller, revision: u32, reply: Reply<()>) {
        let result = self.accept(number, &caller, revision);
        self.answered(number, &caller, result, reply);
    }

    fn accept(&mut self, number: u64, caller: &Caller, revision: u32) -> Result<(), Error> {
        let job = self.driven(number, caller)?;
        job.wizard.check(Event::Save)?;
        let kind = job.wizard.kind();
        if kind == Some(Kind::Backup) && self.is_last_issuer(number) {
            return Err(Error::LimitExceeded(
                "a chain has at most 4 CA certificates; let a Key nearer to the Master make this one, or make it a Sub Key".into(),
            ));
        }
        let mut locks = if kind == Some(Kind::Sub) { self.selection(number)? } else { Vec::new() };
        if kind == Some(Kind::Sub) && locks.is_empty() {
            return Err(Error::Pair(decision::Reason::NoLock));
        }
        let count = u32::try_from(locks.len()).unwrap_or(u32::MAX);
        if kind == Some(Kind::Sub) {
            let dropped = self.dropped(number, &locks)?;
            locks.extend(dropped.into_iter().map(|entry| LockEntry { allow: false, ..entry }));
            locks.sort_by_key(|entry| entry.lock);
        }
        too_many(locks.len())?;
        let pins = self.pins_to_ask(number);
        let code = self.new_recovery_code(number)?;
        let job = self.job(number)?;
        job.wizard.save(revision, count, pins)?;
        job.locks = locks;
        job.new_puk.clone_from(&code);
        job.recovery_code = code;
        Ok(())
    }

    /// Its issuer's CA certificate is the last one that a chain may have.
    fn is_last_issuer(&self, number: u64) -> bool {
        let issuer = self.serializations.get(&number).and_then(|job| job.issuer.as_ref());
        let ca = issuer.and_then(|label| self.keys.get(label)?.claims.issuing.as_ref());
        ca.and_then(Certificate::path_len) == Some(0)
    }

    /// TakeRecoveryCode.
    pub fn take_recovery_code(&mut self, number: u64, caller: Caller, reply: Reply<RecoveryCode>) {
        let result = self.driven(number, &caller).and_then(|job| {
            if matches!(job.wizard.step(), Step::Kind | Step::Name | Step::Locks | Step::Review) {
                job.wizard.check(Event::PinsComplete)?;
            }
            job.recovery_code.take().ok_or_else(|| {
                Error::NotFound(
                    "recovery code: it was taken before, or the PUK is not replaced".into(),
                )
            })
        });
        self.answered(number, &caller, result, reply);
    }

    /// Finish.
    pub fn finish(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = self.driven(number, &caller).and_then(|job| match job.wizard.step() {
            step if step.is_end() => Ok(()),
            at => Err(Refusal::Step { at }.into()),
        });
        if result.is_ok() {
            self.remove_serialization(number);
        }
        reply.answer(self, result);
    }

    /// Cancel. Root may cancel what another drives.
    pub fn cancel(&mut self, number: u64, caller: Caller, reply: Reply<()>) {
        let result = match self.driven(number, &caller) {
            Err(Error::NotOwner { .. }) if caller.uid == 0 => self.call_off(number),
            Err(error) => Err(error),
            Ok(_) => self.call_off(number),
        };
        // It claims: whoever cancels can read what is left on the tokens before it goes.
        self.answered(number, &caller, result, reply);
    }

    fn call_off(&mut self, number: u64) -> Result<(), Error> {
        let job = self.job(number)?;
        if job.wizard.step() == Step::Writing {
            // The write stops before its next command, and rolls back.
            job.stop.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if job.wizard.step().is_end() {
            return Ok(job.wizard.cancel()?);
        }
        job.wizard.check(Event::Cancel)?;
        // What would have let it go on counts no more.
        let before = std::mem::take(&mut job.outcome);
        // What cannot be rolled back is not called off.
        if let Err(error) = self.abandon(number) {
            self.job(number)?.outcome = before;
            return Err(error);
        }
        self.job(number)?.wizard.cancel()?;
        self.ended(number, Past::Cancelled);
        Ok(())
    }

    /// The pair is not offered again before a re-plug; its PINs are forgotten.
    pub(super) fn ended(&mut self, number: u64, past: Past) {
        let Some(job) = self.serializations.get_mut(&number) else { return };
        job.pins = Pins::default();
        job.new_puk = None;
        self.history.insert((job.issuer.clone(), job.candidate.clone()), past);
    }
}

/// A name that may be given.
pub(super) fn checked(name: &str) -> Result<(), Error> {
    check_name(name).map_err(|error| Error::InvalidArgument(error.to_string()))
}

fn too_many(count: usize) -> Result<(), Error> {
    if count > MOST_LOCKS {
        return Err(Error::LimitExceeded(format!(
            "{count} Locks are more than the {MOST_LOCKS} that one Key can be given at once; select fewer"
        )));
    }
    Ok(())
}
