//! The Keys that are shown: plugged in or known, what they claim, and how they are told apart.

use keywright_proto::{Id, Role};

use super::{
    SHOWN_ABSENT_KEYS, Station,
    view::{KeyView, Label, Trouble},
};
use crate::{
    decision::{Plugged, Present, Reason},
    error::Error,
    hotplug::{Device, DeviceId},
    presence::{self, Claims, Known, State},
    queries::counts,
    registry::{RegistryError, records},
    serialization::card::Carried,
    token::{Details, PinState},
};

/// A Key on the bus.
#[derive(Debug, Default)]
pub struct Key {
    /// The token, while it is plugged in.
    pub device: Option<Device>,
    /// When that was.
    pub plugged: Plugged,
    /// What it is.
    pub state: State,
    /// What its certificates claim.
    pub claims: Claims,
    /// The access key, once it has one of ours: its id.
    pub id: Option<Id>,
    /// It is in the registry.
    pub known: bool,
    /// What people call it.
    pub name: String,
    /// Its families, the first one first.
    pub memberships: Vec<(Id, Role)>,
    /// The CHUID's GUID.
    pub guid: Option<[u8; 16]>,
    /// The USB serial number.
    pub usb_serial: Option<String>,
    /// Where it is plugged in, or was.
    pub port: String,
    /// The product name.
    pub model: String,
    /// The token's serial number where unique, else the GUID in hex.
    pub serial: String,
    /// What else was asked of the token.
    pub details: Details,
    /// A PIN was refused since it was plugged in.
    pub refused: bool,
    /// How often AddLock has renewed its card since it was plugged in.
    pub card_renewals: usize,
    /// What became of its card when that was last to be written, since it was plugged in.
    pub card: Carried,
    /// Something on it stays authorized until it is re-plugged.
    pub authorized: bool,
    /// Why it cannot be used.
    pub trouble: Option<Trouble>,
    /// Active and pending rights.
    pub rights: (u32, u32),
    /// Unix seconds.
    pub last_seen: u64,
}

impl Key {
    /// Plugged in.
    pub fn is_present(&self) -> bool {
        self.device.is_some()
    }

    /// How people know it, in an error's text.
    pub fn called(&self) -> String {
        match (self.name.as_str(), self.port.as_str()) {
            ("", "") => format!("the {} Key", self.state.as_str()),
            ("", port) => format!("the {} Key at {port}", self.state.as_str()),
            (name, _) => format!("Key \"{name}\""),
        }
    }

    /// What the bus shows.
    pub fn view(&self) -> KeyView {
        KeyView {
            id: self.id.map(|id| id.to_string()).unwrap_or_default(),
            name: self.name.clone(),
            state: self.state.as_str(),
            memberships: self
                .memberships
                .iter()
                .map(|(family, role)| (family.to_string(), role.to_string()))
                .collect(),
            trouble: self.trouble.clone().filter(|_| self.is_present()),
            present: self.is_present(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            port: self.port.clone(),
            pin: self.details.pin,
            pin_retries: self.details.retries.map_or(-1, i32::from),
            card: self.card.why_not().filter(|_| self.is_present()),
            authorized: self.authorized,
            locks: self.rights.0,
            pending_locks: self.rights.1,
            last_seen: self.last_seen,
        }
    }

    /// Why nothing can be made with it.
    pub fn unusable(&self) -> Error {
        match &self.trouble {
            Some(Trouble { holder: Some(holder), .. }) => {
                Error::KeyBusy { key: self.called(), holder: holder.clone() }
            }
            Some(trouble) => Error::Unsupported(format!("{}: {}", self.called(), trouble.text)),
            None => Error::Pair(Reason::Unusable),
        }
    }

    /// Where the token does not say, a Key of this station has a PIN of its own: its job saw to that.
    pub fn assume_pin(&mut self) {
        if self.details.pin == PinState::Unknown && self.known {
            self.details.pin = PinState::Set;
        }
    }

    /// What stays when a token that is plugged in all the while is looked at once more: what was learnt of it since its
    /// plug, and when that was, so that another look in vain is no news to anybody.
    pub(super) fn since_plug(&mut self) -> Self {
        Self {
            last_seen: self.last_seen,
            refused: self.refused,
            authorized: self.authorized,
            card_renewals: self.card_renewals,
            claims: Claims {
                foreign: self.trouble.is_none() && self.claims.foreign,
                alien: self.trouble.is_none() && self.claims.alien,
                ..Claims::default()
            },
            card: std::mem::take(&mut self.card),
            details: std::mem::take(&mut self.details),
            ..Self::default()
        }
    }

    /// The same blank token: equal GUID, USB serial and port (contract section 2).
    pub(super) fn is_same_blank(&self, guid: Option<[u8; 16]>, device: &Device) -> bool {
        self.state == State::Blank
            && self.guid == guid
            && self.usb_serial == device.usb_serial
            && self.port == device.port
    }
}

impl Station {
    /// Shows a known Key that is not plugged in.
    pub(super) fn recall(&mut self, id: Id, record: &records::Key) {
        let key = Key {
            id: Some(id),
            name: record.name.clone(),
            guid: record.guid,
            model: record.model.clone(),
            serial: record.serial.clone(),
            last_seen: record.last_seen,
            ..Key::default()
        };
        self.keys.insert(record.label.clone(), key);
        self.refresh(&record.label);
    }

    /// Stops showing an absent Key that is neither known nor part of a job.
    pub(super) fn forget_if_unknown(&mut self, label: &Label) {
        let Some(key) = self.keys.get(label) else { return };
        let known = key.id.is_some_and(
            |id| matches!(self.registry.key(id), Ok(Some(record)) if record.label == *label),
        );
        let in_job = self
            .serializations
            .values()
            .any(|job| job.candidate == *label || job.issuer.as_ref() == Some(label));
        if !key.is_present() && !known && !in_job {
            self.keys.remove(label);
        }
    }

    /// Stops showing those that have been absent for the longest, where more are than can be shown.
    pub(super) fn forget_the_longest_absent(&mut self) {
        let absent = self.keys.iter().filter(|(_, key)| !key.is_present());
        let mut absent: Vec<_> =
            absent.map(|(label, key)| (key.last_seen, label.clone())).collect();
        let too_many = absent.len().saturating_sub(SHOWN_ABSENT_KEYS);
        absent.sort_unstable();
        absent.retain(|(_, label)| !self.serializations.values().any(|job| job.involves(label)));
        for (_, label) in absent.into_iter().take(too_many) {
            self.keys.remove(&label);
        }
    }

    /// Brings what the registry knows of a Key into what is shown of it.
    pub(super) fn refresh(&mut self, label: &Label) {
        self.touched.insert(label.clone());
        let Some(key) = self.keys.get(label) else { return };
        match self.known(label, key) {
            Ok(facts) => {
                if let Some(key) = self.keys.get_mut(label) {
                    facts.apply(key);
                }
            }
            Err(error) => tracing::error!(%error, label, "what is known of a Key cannot be read"),
        }
    }

    fn known(&self, label: &Label, key: &Key) -> Result<Facts, RegistryError> {
        let record = match key.id {
            Some(id) => self.registry.key(id)?,
            None => None,
        };
        // A token with copied certificates may have been there first and have its label.
        let revoked = record.as_ref().is_some_and(|record| record.revoked);
        let record = record.filter(|record| record.label == *label);
        let leftover = match key.guid {
            Some(guid) => self.registry.leftover(guid)?.is_some(),
            None => false,
        };
        let (Some(id), Some(record)) = (key.id, record) else {
            let known = Known { leftover, revoked, ..Known::default() };
            return Ok(Facts { known, ..Facts::default() });
        };
        let mut memberships: Vec<_> = self
            .registry
            .memberships(id)?
            .into_iter()
            .map(|(family, membership)| (family, membership.role))
            .collect();
        memberships.sort_by_key(|(family, _)| *family != record.family);
        let mut rights = (0u32, 0u32);
        for (family, _) in &memberships {
            let (active, pending) = counts(&self.registry, id, *family, self.moment())?;
            rights = (rights.0.saturating_add(active), rights.1.saturating_add(pending));
        }
        Ok(Facts {
            known: Known {
                leftover: false,
                revoked,
                role: memberships.iter().map(|(_, role)| *role).max(),
            },
            name: Some(record.name),
            memberships,
            rights,
        })
    }

    /// The present Keys as the decision sees them.
    pub(super) fn present(&self) -> Vec<Present<'_>> {
        self.keys
            .iter()
            .filter(|(_, key)| key.is_present())
            .map(|(label, key)| Present {
                label,
                standing: presence::standing(key.state, &key.claims, self.has_lock(&key.claims)),
                plugged: key.plugged,
            })
            .collect()
    }

    pub(super) fn has_lock(&self, claims: &Claims) -> bool {
        let Some((family, _)) = claims.family else { return false };
        match self.registry.family(family) {
            Ok(Some(known)) if known.locks > 0 => true,
            Ok(_) => !self.carried_by(claims).is_empty(),
            Err(_) => false,
        }
    }

    /// A Key that is shown.
    pub(super) fn key(&self, label: &Label) -> Result<&Key, Error> {
        self.keys.get(label).ok_or_else(|| Error::NotFound("Key at this path".into()))
    }

    /// A Key that is plugged in, and its token.
    pub(super) fn present_key(&self, label: &Label) -> Result<(&Key, &Device), Error> {
        let key = self.key(label)?;
        let device = key.device.as_ref().ok_or_else(|| Error::KeyAbsent(key.called()))?;
        Ok((key, device))
    }

    pub(super) fn present_mut(&mut self, device: &DeviceId) -> Option<(Label, &mut Key)> {
        self.keys
            .iter_mut()
            .find(|(_, key)| key.device.as_ref().is_some_and(|held| held.id == *device))
            .map(|(label, key)| (label.clone(), key))
    }
}

/// What the registry knows of a Key.
#[derive(Default)]
struct Facts {
    known: Known,
    name: Option<String>,
    memberships: Vec<(Id, Role)>,
    rights: (u32, u32),
}

impl Facts {
    fn apply(self, key: &mut Key) {
        key.known = self.name.is_some();
        if let Some(name) = self.name {
            key.name = name;
        }
        key.rights = self.rights;
        key.memberships = self.memberships;
        if key.memberships.is_empty() {
            key.memberships.extend(key.claims.family);
        }
        key.state = match key.trouble {
            Some(_) => State::Unusable,
            None => presence::state(&key.claims, self.known),
        };
        if key.state == State::Blank {
            key.id = None;
            key.memberships.clear();
        }
    }
}
