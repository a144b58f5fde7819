//! Plug and unplug: what a token told of itself is known again, and shown.

use keywright_proto::{ErrorName, Id, PublicKey};

use super::{
    Station,
    keys::Key,
    view::{Label, Trouble},
};
use crate::{
    clock,
    decision::Plugged,
    error::Error,
    hotplug::{Device, DeviceId},
    presence::{self, Claims},
    registry::{Batch, RegistryError},
    token::{Details, Identity, PinState, TokenError, TransportError},
};

/// How often a token that is plugged in may be said to be gone, before that is the first thing that is shown of it.
const LOST_LOOKS: u32 = 3;

impl Station {
    /// A token was plugged in: it is looked at before it is shown, so that it comes up once, whole.
    pub(super) fn plugged(&mut self, device: Device) {
        let plugged = if self.settled {
            self.plugs += 1;
            Plugged::Later(self.plugs)
        } else {
            Plugged::AtStart
        };
        tracing::debug!(?device, "plugged in");
        self.look_at(device, plugged, 0);
    }

    /// A token told what it is.
    pub(super) fn identified(
        &mut self,
        device: Device,
        plugged: Plugged,
        attempts: u32,
        identity: Result<Identity, TokenError>,
    ) {
        self.awaited.remove(&device.id);
        if !self.reading.remove(&device.id) {
            // It was pulled out before it had answered: it never came up.
            return;
        }
        let (mut claims, guid, trouble) = match &identity {
            Ok(identity) => (presence::claims(identity), identity.guid, None),
            // Only the rest was to be asked once more: what it is stands, and the end of this look says what comes next.
            Err(_) if self.is_usable(&device.id) => return,
            Err(TokenError::Transport(TransportError::Gone))
                if attempts < LOST_LOOKS || self.present_mut(&device.id).is_some() =>
            {
                // It was pulled out, and the kernel is about to say so; or pcscd lost a token that is there still.
                self.reading.insert(device.id.clone());
                return self.wait_until_free(device, plugged, attempts);
            }
            Err(error) => (Claims::default(), None, Some(Trouble::of(error))),
        };
        // Another program had it: it was shown as busy, and is the same Key now.
        let mut since_plug = Key { last_seen: clock::unix_seconds(), ..Key::default() };
        let busy = self.present_mut(&device.id).map(|(label, key)| {
            key.device = None;
            since_plug = key.since_plug();
            label
        });
        let (foreign, alien) = (since_plug.claims.foreign, since_plug.claims.alien);
        claims.foreign |= foreign;
        claims.alien |= alien;
        let label = match self.recognize(&device, &claims, guid, busy.clone()) {
            Ok(label) => label,
            Err(error) => return tracing::error!(%error, ?device, "a Key cannot be shown"),
        };
        match &trouble {
            // Said once, however often it is tried.
            Some(trouble) if attempts == 0 => {
                tracing::warn!(?device, trouble = trouble.text, "a token cannot be used");
            }
            _ => {}
        }
        if let Some(error) = &claims.card_refused {
            tracing::warn!(?device, %error, "a card that does not verify counts for nothing");
        }
        let passes = trouble.as_ref().is_some_and(|trouble| trouble.passes);
        let stays = busy.as_ref() == Some(&label) && self.stays(&label, trouble.as_ref());
        let key = Key {
            plugged,
            id: claims.access_key().map(PublicKey::id),
            name: self.keys.remove(&label).map(|key| key.name).unwrap_or_default(),
            guid,
            usb_serial: device.usb_serial.clone(),
            port: device.port.clone(),
            model: device.model.clone(),
            serial: guid.map(hex::encode).unwrap_or_default(),
            trouble,
            claims,
            device: Some(device.clone()),
            ..since_plug
        };
        self.keys.insert(label.clone(), key);
        self.refresh(&label);
        if let Some(busy) = busy.filter(|busy| *busy != label) {
            self.touched.insert(busy.clone());
            self.forget_if_unknown(&busy);
        }
        // One that was there all the while, and stays what it was, has not come.
        if !stays {
            self.history.retain(|(issuer, candidate), _| {
                issuer.as_ref() != Some(&label) && *candidate != label
            });
            self.key_came(&label);
        }
        if passes {
            self.wait_until_free(device, plugged, attempts);
        }
    }

    /// The label of the Key that this token is, an old one or a new.
    fn recognize(
        &self,
        device: &Device,
        claims: &Claims,
        guid: Option<[u8; 16]>,
        busy: Option<Label>,
    ) -> Result<Label, Error> {
        let absent = |label: &Label| self.keys.get(label).is_none_or(|key| !key.is_present());
        if let Some(access_key) = claims.access_key()
            && let Some(record) = self.registry.key(access_key.id())?
            && record.access_key == access_key.spki_der()
            && absent(&record.label)
        {
            return Ok(record.label);
        }
        if let Some(label) = self.interrupted_candidate(device, claims, guid)
            && absent(&label)
        {
            return Ok(label);
        }
        let blank = claims.access.is_none() && !claims.foreign;
        let again = self.keys.iter().find(|(_, key)| {
            !key.is_present()
                && match claims.access_key() {
                    Some(access_key) => key.claims.access_key() == Some(access_key),
                    None => blank && key.is_same_blank(guid, device),
                }
        });
        again.map(|(label, _)| label.clone()).or(busy).map_or_else(new_label, Ok)
    }

    /// A token told the rest.
    pub(super) fn detailed(&mut self, device: &DeviceId, details: Details) {
        let sets_pins = self.config.require_new_pin;
        let Some((label, key)) = self.present_mut(device) else { return };
        if let Some(serial) = &details.serial {
            key.serial.clone_from(serial);
        }
        key.details = details;
        // Where a factory PIN may stay, a Key of this station can have one.
        if sets_pins {
            key.assume_pin();
        }
        if key.details.pin == PinState::Blocked && key.details.puk_blocked == Some(true) {
            key.trouble = Some(Trouble {
                error: ErrorName::PinBlocked,
                text: "its PIN and its recovery code are blocked; only a reset of its PIV application helps"
                    .into(),
                holder: None,
                passes: false,
            });
            self.refresh(&label);
        }
        let id = self.keys.get(&label).and_then(|key| key.id);
        if let Some(id) = id
            && let Err(error) = self.remember_plug(id, &label)
        {
            tracing::warn!(%error, "when this Key was last seen cannot be noted");
        }
    }

    /// Whether a Key that is looked at again can be used as before, or as little.
    fn stays(&self, label: &Label, trouble: Option<&Trouble>) -> bool {
        let before = self.keys.get(label).map(|key| key.trouble.is_some());
        before == Some(trouble.is_some())
    }

    /// Notes in the registry when and as what a known Key was last seen.
    pub(super) fn remember_plug(&self, id: Id, label: &Label) -> Result<(), RegistryError> {
        let (Some(mut record), Some(key)) = (self.registry.key(id)?, self.keys.get(label)) else {
            return Ok(());
        };
        if record.label != *label {
            return Ok(());
        }
        record.last_seen = key.last_seen;
        record.model.clone_from(&key.model);
        record.serial.clone_from(&key.serial);
        let mut batch = Batch::new();
        batch.put_key(id, record);
        self.registry.commit(batch)
    }

    /// A token was pulled out.
    pub(super) fn unplugged(&mut self, device: &DeviceId) {
        let unseen = self.reading.remove(device);
        self.awaited.remove(device);
        let Some((label, key)) = self.present_mut(device) else {
            if unseen {
                left_early(device);
            }
            return;
        };
        tracing::debug!(label, "unplugged");
        key.device = None;
        key.authorized = false;
        key.refused = false;
        key.last_seen = clock::unix_seconds();
        self.touched.insert(label.clone());
        self.key_left(&label);
        self.forget_if_unknown(&label);
        self.forget_the_longest_absent();
    }

    /// Whether some token that is plugged in has not said yet what it is, and may still do so soon.
    pub(super) fn is_reading(&self) -> bool {
        !self.awaited.is_empty() || !self.settled
    }
}

/// It never came up, so nobody sees it; what is said of it is said here.
pub(super) fn left_early(device: &DeviceId) {
    tracing::info!(?device, "a token was pulled out before it had said what it is");
}

impl Trouble {
    /// Why a token could not be looked at.
    pub(super) fn of(error: &TokenError) -> Self {
        let (name, holder) = match error {
            TokenError::Transport(TransportError::Busy { holder }) => {
                (ErrorName::KeyBusy, Some(holder.clone()))
            }
            TokenError::NoPiv
            | TokenError::Unsupported(_)
            | TokenError::Transport(TransportError::Unusable(_)) => (ErrorName::Unsupported, None),
            _ => (ErrorName::TokenFailed, None),
        };
        // Other programs' doings: they pass.
        let disturbed = matches!(
            error,
            TokenError::Transport(TransportError::ServiceGone | TransportError::Reset)
        );
        let next = match holder {
            Some(_) => "it is taken up again when that lets it go",
            None if disturbed => "it is looked at again soon",
            None => "use another one, or unplug it and plug it in again",
        };
        let passes = disturbed || holder.is_some();
        Self { error: name, text: format!("{error}; {next}"), holder, passes }
    }
}

/// A label that nobody has: random, so that nothing has to be remembered to keep it unique.
pub(super) fn new_label() -> Result<Label, Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::Unsupported(format!("the system gives no random numbers: {error}"))
    })?;
    Ok(hex::encode(random))
}
