//! Starts a serialization on request, and proposes answers for it.

use keywright_proto::Kind;
use keywright_rules::decision;
use keywright_rules::presence::KeyState;

use super::Jobs;
use crate::{
    error::Error,
    families::{Families, checked},
    keys::{self, Keys},
    serialization::wizard::{Selection, Step, Wizard},
    view::Label,
};

impl Jobs {
    /// StartSerialization. Returns the number of the running serialization for this pair, or of a new one.
    pub fn start(
        &mut self,
        issuer: Option<Label>,
        candidate: Label,
        kind: Option<Kind>,
        name: Option<String>,
        keys: &mut Keys,
        families: &Families,
    ) -> Result<u64, Error> {
        if let Some(name) = &name {
            checked(name)?;
        }
        families.registry().check_nothing_is_lost()?;
        let live = self
            .map
            .iter()
            .find(|(_, job)| job.is_live_for(issuer.as_deref(), &candidate))
            .map(|(number, _)| *number);
        if let Some(number) = live
            && self.is_half_made(&candidate, None)
        {
            return Ok(number);
        }
        let kinds = match (self.kinds_for(issuer.as_ref(), &candidate, keys, families), live) {
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
                    self.is_free(label, None, keys)?;
                }
                let mut wizard = Wizard::new(kinds);
                // A new Master was asked for explicitly, so its kind needs no question.
                if let Some(kind) = kind.or(issuer.is_none().then_some(Kind::Master)) {
                    wizard.set_kind(kind)?;
                }
                self.history.remove(&(issuer.clone(), candidate.clone()));
                self.add(issuer, candidate, wizard, keys, families)?
            }
        };
        if let Some(name) = name
            && let Some(job) = self.map.get_mut(&number)
        {
            match job.wizard.step() {
                Step::Name => job.wizard.set_name(name)?,
                _ => job.wizard.propose_name(name),
            }
        }
        Ok(number)
    }

    /// The kinds of Keys that a requested pair can make. Errors about roles come first.
    pub fn kinds_for(
        &self,
        issuer: Option<&Label>,
        candidate: &Label,
        keys: &Keys,
        families: &Families,
    ) -> Result<&'static [Kind], Error> {
        let other = keys.key(candidate)?;
        let Some(issuer) = issuer else {
            keys.present_key(candidate)?;
            return match other.state {
                KeyState::Blank => Ok(&[Kind::Master]),
                KeyState::Foreign => Err(Error::Pair(decision::Reason::ForeignCredentials)),
                KeyState::Revoked => Err(Error::Pair(decision::Reason::Revoked)),
                KeyState::Unusable => Err(other.unusable()),
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
        let key = keys.key(issuer)?;
        let class = keys::classify(key, families);
        let other_class =
            decision::class_for(class, keys::classify(other, families), &other.revoked_in);
        let kinds = match decision::allowed_kinds(class, other_class) {
            Err(decision::Reason::Unusable) => {
                let which = if key.state == KeyState::Unusable { key } else { other };
                return Err(which.unusable());
            }
            Err(reason) => return Err(Error::Pair(reason)),
            Ok(kinds) => kinds,
        };
        keys.present_key(issuer)?;
        keys.present_key(candidate)?;
        Ok(kinds)
    }

    /// Fills in known answers: a Key whose rights are changed keeps its name and its Locks.
    pub(super) fn propose(&mut self, number: u64, keys: &Keys, families: &Families) {
        let Some(job) = self.map.get(&number) else { return };
        let (Some(key), Some(issuer)) =
            (keys.get(&job.candidate), job.issuer.as_ref().and_then(|issuer| keys.get(issuer)))
        else {
            return;
        };
        let (Some(id), Some((family, _))) = (key.id, issuer.claims.family) else { return };
        let registry = families.registry();
        let mut entries = registry.statement_entries(id, family).unwrap_or_default();
        let removed = registry.removed_locks(family).unwrap_or_default();
        entries.retain(|entry| {
            entry.allow && removed.iter().all(|(removed, _)| *removed != entry.lock)
        });
        let Some(job) = self.map.get_mut(&number) else { return };
        if job.wizard.name().is_empty() {
            job.wizard.propose_name(key.name.clone());
        }
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        job.wizard.propose_locks(Selection { all: false, count });
        job.locks = entries.into();
    }
}
