//! What the station is doing, for whoever decides when the daemon may end, is watched, or holds up a suspend.

use super::{
    Station,
    serializations::Serialization,
    view::{Activity, Output},
};
use crate::{presence::State, serialization::wizard::Step};

impl Station {
    /// Tells of it where it has changed.
    pub(super) fn put_activity(&mut self) {
        let activity = self.activity();
        if self.shown.activity != Some(activity) {
            self.shown.activity = Some(activity);
            self.send(Output::Activity(activity));
        }
    }

    fn activity(&self) -> Activity {
        let working = self.leases.is_any_held();
        // One that is looked at again may be used soon; any other that cannot be used needs nobody.
        let key = self.keys.values().any(|key| {
            let passes = key.trouble.as_ref().is_some_and(|trouble| trouble.passes);
            key.is_present() && (key.state != State::Unusable || passes)
        });
        // A recovery code that may be in force is nowhere but here; one that no write has used is worth nothing.
        let holds_code = |job: &Serialization| {
            let step = job.wizard.step();
            let may_be_in_force = job.intent.is_some() || step == Step::Writing || step.is_end();
            job.recovery_code.is_some() && may_be_in_force
        };
        let job = self.serializations.values().any(|job| job.owner.is_some() || holds_code(job));
        Activity {
            needed: key || job || working || !self.reading.is_empty() || !self.settled,
            working,
            writing: self.serializations.values().any(|job| job.wizard.step() == Step::Writing),
            judges_at: self.judges_at.values().min().copied(),
        }
    }
}
