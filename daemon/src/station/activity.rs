//! Publishes what the station is doing. Idle exit, the watchdog and the delay of a suspend depend on it.

use keywright_rules::presence::KeyState;

use super::Station;
use crate::{jobs::Serialization, outbox::Output, serialization::wizard::Step, view::Activity};

impl Station {
    /// Publishes the activity if it has changed.
    pub(super) fn publish_activity(&mut self) {
        let activity = self.activity();
        if self.shown_activity != Some(activity) {
            self.shown_activity = Some(activity);
            self.outbox.send(Output::Activity(activity));
        }
    }

    fn activity(&self) -> Activity {
        let working = self.leases.is_any_held();
        // A Key with a temporary trouble may be usable soon, so the daemon stays; other unusable Keys do not keep it.
        let key = self.keys.present().any(|(_, key)| {
            let passes = key.trouble.as_ref().is_some_and(|trouble| trouble.passes);
            key.state != KeyState::Unusable || passes
        });
        // A recovery code that may be in force exists only here, so it keeps the daemon; one that no write has used
        // does not.
        let holds_code = |job: &Serialization| {
            let is_writing = job.wizard.step() == Step::Writing;
            let may_be_in_force = job.intent.is_some() || is_writing || job.has_ended();
            job.recovery_code.is_some() && may_be_in_force
        };
        let job = self.jobs.iter().any(|job| job.owner.is_some() || holds_code(job));
        Activity {
            needed: key || job || working || self.keys.is_probing(),
            working,
            writing: self.jobs.iter().any(|job| job.wizard.step() == Step::Writing),
            judges_at: self.families.judges_at(),
        }
    }
}
