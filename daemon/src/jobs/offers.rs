//! Makes offers and decisions from the plugged-in Keys, as [`decision`] rules.

use keywright_rules::decision::{self, PairState, Ruling, Verdict};

use super::{Jobs, Serialization};
use crate::{
    audit::AuditEvent,
    error::Error,
    families::{Asker, Families},
    keys::{Key, Keys},
    serialization::wizard::{Step, Wizard, WizardEvent},
    view::{DecisionView, Label, Outcome},
};

impl Jobs {
    /// Makes the offers that are due.
    pub fn make_offers(&mut self, keys: &mut Keys, families: &Families) {
        // A token that is not identified yet may change which Key is the issuer. Without what a lost registry knew, it is
        // not known who may issue.
        if keys.is_reading() || families.registry().lost().is_some() {
            return;
        }
        let offers: Vec<_> =
            self.rule(keys, families, |ruling| match (ruling.issuer, ruling.verdict) {
                (Some(issuer), Verdict::Offer(kinds)) => {
                    Some((issuer.to_owned(), ruling.other.to_owned(), kinds))
                }
                _ => None,
            });
        for (issuer, candidate, kinds) in offers {
            let wizard = Wizard::new(kinds);
            if let Err(error) = self.add(Some(issuer), candidate, wizard, keys, families) {
                return tracing::error!(%error, "a serialization cannot be offered");
            }
        }
    }

    /// Each plugged-in pair without an offer, and why there is none.
    pub(super) fn decisions(&self, keys: &Keys, families: &Families) -> Vec<DecisionView> {
        if keys.is_reading() {
            // Until all tokens are identified, show the previous decisions of the Keys that are still plugged in.
            let present = |label: &Label| keys.is_present(label);
            let mut decisions = self.shown_decisions.clone();
            decisions.retain(|d| present(&d.other) && d.issuer.as_ref().is_none_or(present));
            return decisions;
        }
        let mut decisions = self.rule(keys, families, |ruling| match ruling.verdict {
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

    fn rule<T>(
        &self,
        keys: &Keys,
        families: &Families,
        pick: impl Fn(&Ruling<'_>) -> Option<T>,
    ) -> Vec<T> {
        let mut history: Vec<_> = self
            .history
            .iter()
            .map(|((issuer, candidate), past)| (issuer.as_deref(), candidate.as_str(), *past))
            .collect();
        history.retain(|(issuer, candidate, _)| {
            !self.map.values().any(|job| job.is_live_for(*issuer, candidate))
        });
        history.extend(
            self.map
                .values()
                .filter(|job| !job.has_ended())
                .map(|job| (job.issuer.as_deref(), job.candidate.as_str(), PairState::Live)),
        );
        let half_made = |label: &str| self.is_half_made(label, None);
        decision::decide(&keys.candidates(families), &history)
            .iter()
            .filter(|ruling| !ruling.issuer.is_some_and(half_made) && !half_made(ruling.other))
            .filter_map(pick)
            .collect()
    }

    /// Adds a new serialization and publishes it.
    pub(super) fn add(
        &mut self,
        issuer: Option<Label>,
        candidate: Label,
        wizard: Wizard,
        keys: &mut Keys,
        families: &Families,
    ) -> Result<u64, Error> {
        let number = families.registry().take_serialization_number()?;
        tracing::info!(number, ?issuer, candidate, "a serialization is offered");
        self.map.insert(number, Serialization::new(issuer, candidate, wizard));
        self.propose(number, keys, families);
        // Publish the Keys first, because the serialization refers to them.
        keys.publish();
        self.announce(number);
        Ok(number)
    }

    /// Handles the unplug of a Key that is part of serializations.
    pub fn key_left(&mut self, label: &Label, keys: &mut Keys, families: &Families) {
        for number in self.numbers(|job| job.involves(label)) {
            let Some(job) = self.map.get_mut(&number) else { continue };
            job.key_left(label);
            // A running write notices by itself; an ended one does not change.
            if job.wizard.apply(WizardEvent::KeyLeft).is_ok() {
                self.announce(number);
            }
            self.withdraw_if_unanswered(number, keys, families);
        }
        self.forget_history_of(label);
    }

    /// A Key was plugged in again: its pairs may be offered again.
    pub fn forget_history_of(&mut self, label: &Label) {
        self.history
            .retain(|(issuer, candidate), _| issuer.as_ref() != Some(label) && candidate != label);
    }

    /// Withdraws an offer that nobody has touched when both of its Keys are unplugged.
    fn withdraw_if_unanswered(&mut self, number: u64, keys: &mut Keys, families: &Families) {
        let Some(job) = self.map.get(&number) else { return };
        let untouched = job.owner.is_none() && job.wizard.revision() == 0 && job.intent.is_none();
        if untouched && !job.labels().any(|label| keys.is_present(label)) {
            self.remove(number, keys, families);
        }
    }

    /// A Key was plugged in: serializations may have waited for it, or for another Key at its port.
    pub fn key_came(&mut self, label: &Label, keys: &Keys, families: &Families) {
        let port = keys.get(label).map(|key| key.port.clone()).unwrap_or_default();
        for number in self.numbers(|job| job.wizard.step() == Step::AwaitingKey) {
            self.resume_if_complete(number, keys);
            self.note_wrong_key(number, label, &port, keys, families);
            self.announce(number);
        }
    }

    /// Resumes a waiting job if its Keys are plugged in.
    pub(super) fn resume_if_complete(&mut self, number: u64, keys: &Keys) {
        if !self.map.get(&number).is_some_and(|job| job.has_its_keys(keys)) {
            return;
        }
        let needed = self.pins_to_ask(number, keys);
        self.renew_recovery_code(number, keys);
        if let Some(job) = self.map.get_mut(&number)
            && job.wizard.apply(WizardEvent::KeysBack).is_ok()
        {
            job.outcome = Outcome::default();
            if job.wizard.step() == Step::Pins {
                needed.into_iter().for_each(|who| job.wizard.need_pin(who));
            }
        }
    }

    /// Shows in the outcome that another Key is plugged in at the port of the missing one.
    fn note_wrong_key(
        &mut self,
        number: u64,
        came: &Label,
        port: &str,
        keys: &Keys,
        families: &Families,
    ) {
        let Some(job) = self.map.get_mut(&number) else { return };
        if job.wizard.step() != Step::AwaitingKey || job.involves(came) {
            return;
        }
        let is_missed = |key: &&Key| !key.is_present() && key.port == port;
        let missed = job.labels().filter_map(|label| keys.get(label)).find(is_missed);
        let Some(outcome) = missed.map(|key| Outcome::wrong_key(&key.called(), port)) else {
            return;
        };
        // An offer without an owner or a saved state is not logged: nobody waits for its Key.
        if job.owner.is_some() || job.intent.is_some() {
            let event = AuditEvent::WrongKey { serialization: number, token: keys.token(came) };
            families.note_event(&event, Asker::default());
        }
        job.outcome = outcome;
    }

    /// Removes ended serializations that have no owner and of which a Key is unplugged.
    pub fn drop_ended(&mut self, keys: &mut Keys, families: &Families) {
        let is_over = |job: &Serialization| {
            job.has_ended()
                && job.owner.is_none()
                && job.recovery_code.is_none()
                && !job.has_its_keys(keys)
        };
        for number in self.numbers(is_over) {
            self.remove(number, keys, families);
        }
    }
}
