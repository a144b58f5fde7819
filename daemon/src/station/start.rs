//! Starting a serialization by hand, and what is proposed for its answers.

use keywright_proto::Kind;

use super::{Caller, Reply, Station, serializations::checked, view::Label};
use crate::{
    decision::{self, FOR_BLANK},
    error::Error,
    presence::{self, State},
    serialization::wizard::{Selection, Step, Wizard},
};

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
        let kinds = match (self.kinds_for(issuer.as_ref(), &candidate), live) {
            // It waits for a Key.
            (Err(Error::KeyAbsent(_)), Some(number)) => return Ok(number),
            (kinds, _) => kinds?,
        };
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
                State::Unusable => Err(other.unusable()),
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
            Err(decision::Reason::Unusable) => {
                let which = if key.state == State::Unusable { key } else { other };
                return Err(which.unusable());
            }
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
        let removed = self.registry.removed_locks(family).unwrap_or_default();
        entries.retain(|entry| {
            entry.allow && removed.iter().all(|(removed, _)| *removed != entry.lock)
        });
        let Some(job) = self.serializations.get_mut(&number) else { return };
        if job.wizard.name().is_empty() {
            job.wizard.propose_name(name);
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        job.wizard.propose_locks(Selection { all: false, count });
        job.locks = entries.into();
    }
}
