//! Sends PINs to tokens: ProvidePin, ChangePin, UnblockPin.

use keywright_proto::PublicKey;
use keywright_token::hotplug::Device;
use keywright_token::{Cleared, Details, Pin, RecoveryCode, Slot, Token, TokenError, challenge};

use super::{Reply, Station};
use crate::{
    audit::{AuditEvent, Token as LoggedToken},
    caller::Caller,
    error::Error,
    families::Asker,
    jobs::Given,
    serialization::wizard::Who,
    view::Label,
};

impl Station {
    /// ProvidePin.
    pub fn provide_pin(
        &mut self,
        number: u64,
        caller: Caller,
        who: Who,
        pin: Pin,
        reply: Reply<()>,
    ) {
        let by = reply.by();
        let (label, device) = match self.jobs.pin_given(number, &caller, who, &pin, &self.keys) {
            Err(error) => return self.answered(number, &caller, Err(error), reply),
            Ok(Given::IsNew) => {
                let result = self.pin_accepted(number, who, pin, by);
                return self.answered(number, &caller, result, reply);
            }
            Ok(Given::AskToken(label, device)) => (label, device),
        };
        let (given, id) = (pin.clone(), device.id.clone());
        let prove = match self.keys.get(&label) {
            Some(key) if who == Who::Issuer => self.families.has_to_prove(&key.claims),
            _ => None,
        };
        let proven = prove.is_some().then(|| label.clone());
        self.check_pin(label, device, given, prove, by, move |station, result| {
            if let Err(error) = station.jobs.token_answered(number, &caller) {
                return reply.answer(station, Err(error));
            }
            let result = result.and_then(|()| match station.keys.by_device(&id) {
                Some(_) => proven.map_or(Ok(()), |label| station.believe(&label, by)),
                // A PIN is kept only while its token stays plugged in.
                None => Err(Error::KeyAbsent("the Key".into())),
            });
            let result = result.and_then(|()| station.pin_accepted(number, who, pin, by));
            if let Err(error @ (Error::NotGenuine(_) | Error::Unverified(_))) = &result
                && station.jobs.get(number).is_some_and(|job| !job.has_ended())
            {
                // The token does not hold the keys that its certificates claim. Nothing was written.
                station.give_up(number, error, by);
            }
            station.jobs.tell_refusal(number, who, result.as_ref().err());
            station.answered(number, &caller, result, reply);
        });
    }

    /// Keeps a PIN. The write starts with the last one.
    fn pin_accepted(&mut self, number: u64, who: Who, pin: Pin, by: Asker) -> Result<(), Error> {
        if self.jobs.pin_accepted(number, who, pin, &mut self.keys)? {
            self.start_write(number, by);
        }
        Ok(())
    }

    /// Sends a PIN to its token and clears the authorization afterwards. An issuing key that has to be proved signs a
    /// challenge.
    fn check_pin(
        &mut self,
        label: Label,
        device: Device,
        pin: Pin,
        prove: Option<PublicKey>,
        by: Asker,
        done: impl FnOnce(&mut Self, Result<(), Error>) + Send + 'static,
    ) {
        let called = self.keys.called(&label);
        self.on_token(
            "pin",
            device,
            by,
            move |station| station.keys.may_try(&label).map(drop),
            move |token| {
                token.verify_pin(&pin)?;
                let proven = match prove {
                    Some(key) => signs(token, &pin, &key),
                    None => Ok(true),
                };
                Ok((token.clear()?, proven?))
            },
            move |station, result| {
                let proven = result.and_then(|(_, proven)| match proven {
                    true => Ok(()),
                    false => Err(Error::NotGenuine(called)),
                });
                done(station, proven);
            },
        );
    }

    /// A Key has signed here with its PIN: imports its family's card.
    fn believe(&mut self, label: &Label, by: Asker) -> Result<(), Error> {
        let issuer = self.keys.key(label)?.as_issuer(label);
        self.change_families(|families, keys, changes| {
            families.believe(&issuer, &|key| keys.label_of(key), by, changes)
        })
    }

    /// ChangePin.
    pub fn change_pin(&mut self, label: Label, old: Pin, new: Pin, reply: Reply<()>) {
        let device = checked(&new).and_then(|()| Ok(self.keys.may_try(&label)?.clone()));
        let device = match device {
            Err(error) => return reply.answer(self, Err(error)),
            Ok(device) => device,
        };
        let may = {
            let label = label.clone();
            move |station: &Self| station.keys.may_try(&label).map(drop)
        };
        let change = move |token: &mut Token| {
            token.change_pin(&old, &new)?;
            Ok((token.clear()?, token.read_details(false)?))
        };
        self.on_token("pin", device, reply.by(), may, change, move |station, result| {
            station.pin_set(&label, result, |token| AuditEvent::PinChanged { token }, reply);
        });
    }

    /// UnblockPin.
    pub fn unblock_pin(&mut self, label: Label, code: RecoveryCode, new: Pin, reply: Reply<()>) {
        let device = checked(&new).and_then(|()| Ok(self.keys.present_key(&label)?.1.clone()));
        let device = match device {
            Err(error) => return reply.answer(self, Err(error)),
            Ok(device) => device,
        };
        let unblock = move |token: &mut Token| {
            token.unblock_pin(&code, &new)?;
            Ok((token.clear()?, token.read_details(false)?))
        };
        self.on_token(
            "pin",
            device,
            reply.by(),
            |_| Ok(()),
            unblock,
            move |station, result| {
                station.pin_set(&label, result, |token| AuditEvent::PinUnblocked { token }, reply);
            },
        );
    }

    fn pin_set(
        &mut self,
        label: &Label,
        result: Result<(Cleared, Details), Error>,
        event: fn(LoggedToken) -> AuditEvent,
        reply: Reply<()>,
    ) {
        let result = result.map(|(_, details)| {
            if let Some(key) = self.keys.get_mut(label) {
                key.refused = false;
                key.details = details;
                key.assume_pin();
            }
            self.jobs.pin_changed(label);
            self.families.note_event(&event(self.keys.token(label)), reply.by());
        });
        reply.answer(self, result);
    }
}

fn checked(new: &Pin) -> Result<(), Error> {
    new.check_new().map_err(|error| Error::InvalidArgument(error.to_string()))
}

/// Whether the token signs a challenge with this issuing key.
fn signs(token: &mut Token, pin: &Pin, key: &PublicKey) -> Result<bool, TokenError> {
    let digest = challenge().map_err(|_| TokenError::Unsupported("there are no random numbers"))?;
    match token.sign_with(Slot::Issuing, pin, &digest) {
        Ok(signature) => Ok(key.verify_prehash(&digest, &signature).is_ok()),
        // The token has no key in this slot.
        Err(TokenError::Unsupported(_) | TokenError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
