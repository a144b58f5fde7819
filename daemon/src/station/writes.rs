//! Starts writes from reviewed answers.

use keywright_token::hotplug::DeviceId;

use super::Station;
use crate::{
    error::Error,
    families::{Asker, Changes},
    serialization::{
        order::{Order, Report, Tools},
        write,
    },
    view::Label,
};

impl Station {
    /// Starts the write, or queues it behind jobs that use the same tokens. `by` gave the last PIN.
    pub(super) fn start_write(&mut self, number: u64, by: Asker) {
        self.jobs.renew_recovery_code(number, &self.keys);
        match self.jobs.order(number, &self.keys, &self.families, by) {
            Err(error @ Error::Store(_)) => {
                self.jobs.interrupted(number, &error, &[], &mut self.keys, &self.families, by);
            }
            Err(error) => self.give_up(number, &error, by),
            Ok(order) => self.queue_write(number, order, by),
        }
    }

    pub(super) fn give_up(&mut self, number: u64, error: &Error, by: Asker) {
        self.jobs.give_up(number, error, &mut self.keys, &self.families, by);
    }

    fn queue_write(&mut self, number: u64, order: Order, by: Asker) {
        let Some(job) = self.jobs.get(number) else { return };
        let issuer = order.issuer.is_some().then_some(job.issuer.clone()).flatten();
        let labels: Vec<Label> = issuer.into_iter().chain([job.candidate.clone()]).collect();
        let devices: Vec<DeviceId> = labels
            .iter()
            .filter_map(|label| Some(self.keys.get(label)?.device.as_ref()?.id.clone()))
            .collect();
        let myself = self.myself.clone();
        let report = move |report: Report| myself.tell(move |s| s.jobs.progress(number, report));
        let (registry, stop) = (self.families.registry().clone(), job.stop.clone());
        let tools = Tools { registry, report: Box::new(report), stop };
        let used = devices.clone();
        self.work(
            format!("write-{number}"),
            devices,
            move |station| {
                labels.iter().try_for_each(|label| station.keys.may_try(label).map(drop))
            },
            move || write::write(order, tools),
            move |station, ended| {
                let Self { jobs, keys, families, .. } = station;
                match ended {
                    Ok(Ok(made)) => {
                        let family = jobs.written(number, made, &used, keys, families);
                        let families = family.into_iter().collect();
                        station.apply(Changes { families, ..Changes::default() });
                    }
                    Ok(Err(stopped)) => jobs.stopped(number, stopped, &used, keys, families, by),
                    Err(error) => jobs.not_written(number, &error, &used, keys, families, by),
                }
            },
        );
    }
}
