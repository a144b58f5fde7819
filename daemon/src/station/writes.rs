//! From reviewed answers to a running write, and what becomes of the serialization when it ends.

use super::{Station, view::Label};
use crate::{
    error::Error,
    hotplug::DeviceId,
    serialization::{
        order::{Order, Report, Tools},
        write::{self},
    },
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
                Err(error) => station.not_written(number, &error, &used),
            },
        );
    }

    pub(super) fn progress(&mut self, number: u64, report: Report) {
        if let Some(job) = self.serializations.get_mut(&number) {
            job.stage = Some(report.stage);
            job.progress = (report.done, report.total);
        }
    }
}
