//! Applies plugs, probes and unplugs to the shown Keys.

use keywright_base::clock;
use keywright_proto::{ErrorName, PublicKey};
use keywright_rules::decision::Plugged;
use keywright_rules::presence::{self, Claims};
use keywright_token::hotplug::{Device, DeviceId};
use keywright_token::{Details, Identity, PinState, TokenError, TransportError};

use super::{Key, Keys};
use crate::{
    error::Error,
    families::{Families, new_label},
    view::{Label, Trouble},
};

/// After how many probes that report a plugged-in token as gone this is shown as its trouble.
const LOST_PROBES: u32 = 3;

/// Result of a probe.
pub enum Identified {
    /// Nothing changed.
    Nothing,
    /// The token may answer later: probe it again.
    ProbeAgain,
    /// The Key with this label is shown.
    Shown {
        /// Its label.
        label: Label,
        /// The label under which it was shown while it could not be read, if that was another one.
        before: Option<Label>,
        /// Whether this is a new plug, or a token that was plugged in all the while and has changed.
        is_new_plug: bool,
        /// Whether the trouble is temporary, so that the token has to be probed again.
        probe_again: bool,
    },
}

impl Keys {
    /// Counts a plug. The token is shown only after its probe, so that it appears at once with all of its properties.
    pub fn plugged(&mut self) -> Plugged {
        if !self.settled {
            return Plugged::AtStart;
        }
        self.plugs += 1;
        Plugged::Later(self.plugs)
    }

    /// Notes that every token plugged in at the start has been reported.
    pub fn settled(&mut self) {
        self.settled = true;
    }

    /// Notes that a probe begins. Offers wait for it, unless the Key is shown already.
    pub fn probe_begins(&mut self, device: &DeviceId) {
        self.probing.insert(device.clone());
        if self.by_device(device).is_none() {
            self.awaited.insert(device.clone());
        }
    }

    /// Notes that this token has been silent for long: offers stop waiting for it.
    pub fn is_silent(&mut self, device: &DeviceId) {
        self.awaited.remove(device);
    }

    /// Notes that a probe ended or was lost. Returns whether one was running.
    pub fn probe_ends(&mut self, device: &DeviceId) -> bool {
        self.awaited.remove(device);
        self.probing.remove(device)
    }

    /// Notes that a token no longer waits to be probed again. Returns whether it did.
    pub fn stop_waiting(&mut self, device: &DeviceId) -> bool {
        self.probing.remove(device)
    }

    /// Whether a plugged-in token has not been identified yet, and may still be soon.
    pub fn is_reading(&self) -> bool {
        !self.awaited.is_empty() || !self.settled
    }

    /// Whether any token is being probed, or not every token plugged in at the start has been reported.
    pub fn is_probing(&self) -> bool {
        !self.probing.is_empty() || !self.settled
    }

    /// Whether this token is shown and can be used.
    pub fn is_usable(&mut self, device: &DeviceId) -> bool {
        self.by_device(device).is_some_and(|(_, key)| key.trouble.is_none())
    }

    /// Applies the first part of a probe. `attempts` is the number of failed probes before. `interrupted` finds the
    /// candidate of an interrupted job by a token's claims and GUID.
    pub fn identified(
        &mut self,
        device: &Device,
        plugged: Plugged,
        attempts: u32,
        identity: Result<Identity, TokenError>,
        families: &Families,
        interrupted: impl Fn(&Claims, Option<[u8; 16]>) -> Option<Label>,
    ) -> Identified {
        if !self.probe_ends(&device.id) {
            // It was unplugged before it answered, so it was never shown.
            return Identified::Nothing;
        }
        let (mut claims, guid, trouble) = match &identity {
            Ok(identity) => (presence::claims(identity), identity.guid, None),
            // Only the details were to be read again. The Key stays as shown, and the end of this probe decides what
            // comes next.
            Err(_) if self.is_usable(&device.id) => return Identified::Nothing,
            Err(TokenError::Transport(TransportError::Gone))
                if attempts < LOST_PROBES || self.by_device(&device.id).is_some() =>
            {
                // Either it was unplugged and the kernel is about to report that, or pcscd lost a token that is still
                // plugged in.
                self.probing.insert(device.id.clone());
                return Identified::ProbeAgain;
            }
            Err(error) => (Claims::default(), None, Some(Trouble::of(error))),
        };
        // The token was shown while it could not be read; it stays the same Key.
        let mut since_plug = Key { last_seen: clock::unix_seconds(), ..Key::default() };
        let busy = self.by_device(&device.id).map(|(label, key)| {
            key.device = None;
            since_plug = key.since_plug();
            label
        });
        claims.foreign |= since_plug.claims.foreign;
        claims.unknown_profile |= since_plug.claims.unknown_profile;
        let label = match self.recognize(device, &claims, guid, busy.clone(), families, interrupted)
        {
            Ok(label) => label,
            Err(error) => {
                tracing::error!(%error, ?device, "a Key cannot be shown");
                return Identified::Nothing;
            }
        };
        match &trouble {
            // Logged once, not at each attempt.
            Some(trouble) if attempts == 0 => {
                tracing::warn!(?device, trouble = trouble.text, "a token cannot be used");
            }
            _ => {}
        }
        if let Some(error) = &claims.card_refused {
            tracing::warn!(?device, %error, "a family card that does not verify is ignored");
        }
        let probe_again = trouble.as_ref().is_some_and(|trouble| trouble.passes);
        let stays = busy.as_ref() == Some(&label) && self.stays(&label, trouble.as_ref());
        let key = Key {
            plugged,
            id: claims.access_key().map(PublicKey::id),
            name: self.map.remove(&label).map(|key| key.name).unwrap_or_default(),
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
        self.map.insert(label.clone(), key);
        self.refresh(&label, families);
        let before = busy.filter(|busy| *busy != label);
        Identified::Shown { label, before, is_new_plug: !stays, probe_again }
    }

    /// The label for this token: that of a known Key, or a new one.
    fn recognize(
        &self,
        device: &Device,
        claims: &Claims,
        guid: Option<[u8; 16]>,
        busy: Option<Label>,
        families: &Families,
        interrupted: impl Fn(&Claims, Option<[u8; 16]>) -> Option<Label>,
    ) -> Result<Label, Error> {
        let absent = |label: &Label| !self.is_present(label);
        if let Some(access_key) = claims.access_key()
            && let Some(record) = families.registry().key(access_key.id())?
            && record.access_key == access_key.spki_der()
            && absent(&record.label)
        {
            return Ok(record.label);
        }
        if let Some(label) = interrupted(claims, guid)
            && absent(&label)
        {
            return Ok(label);
        }
        let blank = claims.access.is_none() && !claims.foreign;
        let again = self.map.iter().find(|(_, key)| {
            !key.is_present()
                && match claims.access_key() {
                    Some(access_key) => key.claims.access_key() == Some(access_key),
                    None => blank && key.is_same_blank(guid, device),
                }
        });
        again.map(|(label, _)| label.clone()).or(busy).map_or_else(new_label, Ok)
    }

    /// Applies the second part of a probe: the details.
    pub fn detailed(&mut self, device: &DeviceId, details: Details, families: &Families) {
        let sets_pins = self.require_new_pin;
        let Some((label, key)) = self.by_device(device) else { return };
        if let Some(serial) = &details.serial {
            key.serial.clone_from(serial);
        }
        key.details = details;
        // Only if every Key made here gets a new PIN can a Key of this station be assumed to have one.
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
            self.refresh(&label, families);
        }
        self.remember_plug(&label, families);
    }

    /// Notes in the registry when a known Key was last seen, and its label, model and serial number.
    pub(super) fn remember_plug(&self, label: &Label, families: &Families) {
        let Some((key, id)) = self.map.get(label).and_then(|key| Some((key, key.id?))) else {
            return;
        };
        let noted = families.remember_plug(id, label, key.last_seen, &key.model, &key.serial);
        if let Err(error) = noted {
            tracing::warn!(%error, "when this Key was last seen cannot be noted");
        }
    }

    /// Whether a Key that was probed again is usable or unusable as before.
    fn stays(&self, label: &Label, trouble: Option<&Trouble>) -> bool {
        let before = self.map.get(label).map(|key| key.trouble.is_some());
        before == Some(trouble.is_some())
    }

    /// Applies an unplug. Returns the label of the Key, if it was shown.
    pub fn unplugged(&mut self, device: &DeviceId) -> Option<Label> {
        let was_probed = self.probe_ends(device);
        let Some((label, key)) = self.by_device(device) else {
            if was_probed {
                left_early(device);
            }
            return None;
        };
        tracing::debug!(label, "unplugged");
        key.device = None;
        key.authorized = false;
        key.refused = false;
        key.last_seen = clock::unix_seconds();
        self.touch(&label);
        Some(label)
    }
}

/// Logs that a token was unplugged before it was identified: it was never shown.
pub fn left_early(device: &DeviceId) {
    tracing::info!(?device, "a token was unplugged before it was identified");
}

impl Trouble {
    /// The trouble of a token that could not be probed.
    pub fn of(error: &TokenError) -> Self {
        let (name, holder) = match error {
            TokenError::Transport(TransportError::Busy { holder }) => {
                (ErrorName::KeyBusy, Some(holder.clone()))
            }
            TokenError::NoPiv
            | TokenError::Unsupported(_)
            | TokenError::Transport(TransportError::Unusable(_)) => (ErrorName::Unsupported, None),
            _ => (ErrorName::TokenFailed, None),
        };
        // Other programs cause these errors, and they are temporary.
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
