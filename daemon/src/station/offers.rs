//! From the present Keys to offers and decisions: asks [`decision`] and does what it says.

use super::{
    Station,
    keys::Key,
    serializations::Serialization,
    view::{DecisionView, Label, Outcome, Output},
};
use crate::{
    audit::AuditEvent,
    decision::{self, Past, Ruling, Verdict},
    error::Error,
    serialization::wizard::{Event, Step, Wizard},
};

impl Station {
    /// Offers what is to be offered now.
    pub(super) fn make_offers(&mut self) {
        // What a token is that has not answered yet may change who the issuer is.
        if self.is_reading() {
            return;
        }
        let offers: Vec<_> = self.rule(|ruling| match (ruling.issuer, ruling.verdict) {
            (Some(issuer), Verdict::Offer(kinds)) => {
                Some((issuer.to_owned(), ruling.other.to_owned(), kinds))
            }
            _ => None,
        });
        for (issuer, candidate, kinds) in offers {
            let wizard = Wizard::new(kinds);
            if let Err(error) = self.add_serialization(Some(issuer), candidate, wizard) {
                return tracing::error!(%error, "a serialization cannot be offered");
            }
        }
    }

    /// Each present pair without an offer, and why.
    pub(super) fn decisions(&self) -> Vec<DecisionView> {
        if self.is_reading() {
            // What was decided stands meanwhile, but for Keys that have gone.
            let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
            let mut decisions = self.shown.decisions.clone();
            decisions.retain(|d| present(&d.other) && d.issuer.as_ref().is_none_or(present));
            return decisions;
        }
        let mut decisions = self.rule(|ruling| match ruling.verdict {
            Verdict::None(reason) => Some(DecisionView {
                issuer: ruling.issuer.map(str::to_owned),
                other: ruling.other.to_owned(),
                reason,
            }),
            Verdict::Offer(_) => None,
        });
        decisions.sort();
        decisions
    }

    fn rule<T>(&self, pick: impl Fn(&Ruling<'_>) -> Option<T>) -> Vec<T> {
        let mut history: Vec<_> = self
            .history
            .iter()
            .map(|((issuer, candidate), past)| (issuer.as_deref(), candidate.as_str(), *past))
            .collect();
        history.retain(|(issuer, candidate, _)| {
            !self.serializations.values().any(|job| job.is_live_for(*issuer, candidate))
        });
        history.extend(
            self.serializations
                .values()
                .filter(|job| !job.wizard.step().is_end())
                .map(|job| (job.issuer.as_deref(), job.candidate.as_str(), Past::Live)),
        );
        let half_made = |label: &str| self.is_half_made(label, None);
        decision::decide(&self.present(), &history)
            .iter()
            .filter(|ruling| !ruling.issuer.is_some_and(half_made) && !half_made(ruling.other))
            .filter_map(pick)
            .collect()
    }

    /// Makes a new serialization and shows it.
    pub(super) fn add_serialization(
        &mut self,
        issuer: Option<Label>,
        candidate: Label,
        wizard: Wizard,
    ) -> Result<u64, Error> {
        let number = self.registry.take_serialization_number()?;
        tracing::info!(number, ?issuer, candidate, "a serialization is offered");
        self.serializations.insert(number, Serialization::new(issuer, candidate, wizard));
        self.propose(number);
        // Whoever hears of it finds its Keys there.
        self.put_keys();
        self.announce(number);
        Ok(number)
    }

    /// A Key of some serializations was unplugged.
    pub(super) fn key_left(&mut self, label: &Label) {
        for number in self.serializations_of(label) {
            let Some(job) = self.serializations.get_mut(&number) else { continue };
            job.key_left(label);
            // A running write notices by itself; what has ended stays as it is.
            if job.wizard.happen(Event::KeyLeft).is_ok() {
                self.announce(number);
            }
            self.withdraw_if_unanswered(number);
        }
        self.history
            .retain(|(issuer, candidate), _| issuer.as_ref() != Some(label) && candidate != label);
    }

    /// An offer that nobody touched goes when both its Keys have gone.
    fn withdraw_if_unanswered(&mut self, number: u64) {
        let Some(job) = self.serializations.get(&number) else { return };
        let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
        let untouched = job.owner.is_none() && job.wizard.revision() == 0 && job.intent.is_none();
        if untouched && !present(&job.candidate) && !job.issuer.as_ref().is_some_and(present) {
            self.remove_serialization(number);
        }
    }

    /// A Key came that some serializations may have waited for, or that is where another one should be.
    pub(super) fn key_came(&mut self, label: &Label) {
        let port = self.keys.get(label).map(|key| key.port.clone()).unwrap_or_default();
        let waiting: Vec<u64> = self
            .serializations
            .iter()
            .filter(|(_, job)| job.wizard.step() == Step::AwaitingKey)
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            self.resume_if_complete(number);
            self.note_wrong_key(number, label, &port);
            self.announce(number);
        }
    }

    pub(super) fn resume_if_complete(&mut self, number: u64) {
        let Some(job) = self.serializations.get(&number) else { return };
        let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
        if !present(&job.candidate) || !job.issuer.as_ref().is_none_or(present) {
            return;
        }
        let needed = self.pins_to_ask(number);
        self.renew_recovery_code(number);
        if let Some(job) = self.serializations.get_mut(&number)
            && job.wizard.happen(Event::KeysBack).is_ok()
        {
            job.outcome = Outcome::default();
            if job.wizard.step() == Step::Pins {
                needed.into_iter().for_each(|who| job.wizard.need_pin(who));
            }
        }
    }

    /// Says so where another Key is plugged in at the place of the one that is missed.
    fn note_wrong_key(&mut self, number: u64, came: &Label, port: &str) {
        let Some(job) = self.serializations.get(&number) else { return };
        if job.wizard.step() != Step::AwaitingKey || job.involves(came) {
            return;
        }
        let missed = [job.issuer.as_ref(), Some(&job.candidate)]
            .into_iter()
            .flatten()
            .filter_map(|label| self.keys.get(label))
            .find(|key| !key.is_present() && key.port == port);
        let Some(missed) = missed else { return };
        let outcome = Outcome::wrong_key(&missed.called(), port);
        // An offer that nobody took up waits for nobody.
        if job.owner.is_some() || job.intent.is_some() {
            self.note_event(&AuditEvent::WrongKey {
                serialization: number,
                token: self.token(came),
            });
        }
        if let Some(job) = self.serializations.get_mut(&number) {
            job.outcome = outcome;
        }
    }

    /// The serializations that a Key is part of.
    fn serializations_of(&self, label: &Label) -> Vec<u64> {
        let of = self.serializations.iter().filter(|(_, job)| job.involves(label));
        of.map(|(number, _)| *number).collect()
    }

    /// Stops showing what has ended, once nobody drives it and one of its Keys is gone.
    pub(super) fn drop_ended(&mut self) {
        let present = |label: &Label| self.keys.get(label).is_some_and(Key::is_present);
        let ended: Vec<u64> = self
            .serializations
            .iter()
            .filter(|(_, job)| {
                job.wizard.step().is_end()
                    && job.owner.is_none()
                    && job.recovery_code.is_none()
                    && !(present(&job.candidate) && job.issuer.as_ref().is_none_or(present))
            })
            .map(|(number, _)| *number)
            .collect();
        ended.into_iter().for_each(|number| self.remove_serialization(number));
    }

    /// Stops showing a serialization.
    pub(super) fn remove_serialization(&mut self, number: u64) {
        let Some(job) = self.serializations.remove(&number) else { return };
        if self.shown.serializations.remove(&number).is_some() {
            self.put(Output::SerializationGone(number));
        }
        for label in job.issuer.iter().chain([&job.candidate]) {
            self.forget_if_unknown(label);
        }
    }
}
