//! New PINs outside of a job: ChangePin and UnblockPin.

use super::{Reply, Station, view::Label};
use crate::{
    audit::{AuditEvent, Token},
    error::Error,
    serialization::wizard::Step,
    token::{Cleared, Details, Pin, RecoveryCode},
};

impl Station {
    /// ChangePin.
    pub fn change_pin(&mut self, label: Label, old: Pin, new: Pin, reply: Reply<()>) {
        let device = new
            .check_new()
            .map_err(|error| Error::InvalidArgument(error.to_string()))
            .and_then(|()| self.may_try(&label));
        match device {
            Err(error) => reply.answer(self, Err(error)),
            Ok(device) => self.on_token(
                "pin",
                device,
                {
                    let label = label.clone();
                    move |station| station.may_try(&label).map(drop)
                },
                move |token| {
                    token.change_pin(&old, &new)?;
                    Ok((token.clear()?, token.read_details(false)?))
                },
                move |station, result| {
                    station.pin_set(&label, result, |token| AuditEvent::PinChanged { token }, reply)
                },
            ),
        }
    }

    /// UnblockPin.
    pub fn unblock_pin(&mut self, label: Label, code: RecoveryCode, new: Pin, reply: Reply<()>) {
        let device = new
            .check_new()
            .map_err(|error| Error::InvalidArgument(error.to_string()))
            .and_then(|()| Ok(self.present_key(&label)?.1.clone()));
        match device {
            Err(error) => reply.answer(self, Err(error)),
            Ok(device) => self.on_token(
                "pin",
                device,
                |_| Ok(()),
                move |token| {
                    token.unblock_pin(&code, &new)?;
                    Ok((token.clear()?, token.read_details(false)?))
                },
                move |station, result| {
                    station.pin_set(
                        &label,
                        result,
                        |token| AuditEvent::PinUnblocked { token },
                        reply,
                    )
                },
            ),
        }
    }

    /// The PIN of a Key is another one now: jobs that were given the old one ask again.
    pub(super) fn pin_changed(&mut self, label: &Label) {
        for job in self.serializations.values_mut().filter(|job| job.involves(label)) {
            let who = job.who(label);
            if job.wizard.step() != Step::Writing && job.pins.forget(who) {
                job.wizard.need_pin(who);
            }
        }
    }

    fn pin_set(
        &mut self,
        label: &Label,
        result: Result<(Cleared, Details), Error>,
        event: fn(Token) -> AuditEvent,
        reply: Reply<()>,
    ) {
        let result = result.map(|(_, details)| {
            if let Some(key) = self.keys.get_mut(label) {
                key.refused = false;
                key.details = details;
                key.assume_pin();
            }
            self.pin_changed(label);
            self.note_event(&event(self.token(label)));
        });
        reply.answer(self, result);
    }
}
