//! The Keys that are shown: plugged in or known, what they claim, and how they are told apart.

use keywright_proto::{Id, PublicKey, Role};

use super::{
    Station,
    view::{KeyView, Label},
};
use crate::{
    clock,
    decision::{Plugged, Present},
    error::Error,
    hotplug::{Device, DeviceId},
    presence::{self, Claims, Known, State},
    registry::{Batch, RegistryError, records},
    token::{Details, Identity, PinState, Session, TokenError, TransportError},
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
    /// Something on it stays authorized until it is re-plugged.
    pub authorized: bool,
    /// Why it cannot be used.
    pub trouble: Option<String>,
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
            present: self.is_present(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            port: self.port.clone(),
            pin: self.details.pin,
            pin_retries: self.details.retries.map_or(-1, i32::from),
            authorized: self.authorized,
            locks: self.rights.0,
            pending_locks: self.rights.1,
            last_seen: self.last_seen,
        }
    }

    /// Where the token does not say, a Key of this station has a PIN of its own: its job saw to that.
    pub fn assume_pin(&mut self) {
        if self.details.pin == PinState::Unknown && self.known {
            self.details.pin = PinState::Set;
        }
    }

    /// The same blank token: equal GUID, USB serial and port (contract section 2).
    fn is_same_blank(&self, guid: Option<[u8; 16]>, device: &Device) -> bool {
        self.state == State::Blank
            && self.guid == guid
            && self.usb_serial == device.usb_serial
            && self.port == device.port
    }
}

/// A label that nobody has: random, so that nothing has to be remembered to keep it unique.
fn new_label() -> Result<Label, Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::Unsupported(format!("the system gives no random numbers: {error}"))
    })?;
    Ok(hex::encode(random))
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

    /// A token was plugged in: it is looked at before it is shown, so that it comes up once, whole.
    pub(super) fn plugged(&mut self, device: Device) {
        let plugged = if self.settled {
            self.plugs += 1;
            Plugged::Later(self.plugs)
        } else {
            Plugged::AtStart
        };
        self.reading += 1;
        tracing::debug!(?device, "plugged in");
        let (connector, id) = (device.connector.clone(), device.id.clone());
        let early = self.myself.clone();
        let (shown, read) = (device.clone(), device.id.clone());
        let job = move || -> Result<Details, TokenError> {
            let session = Session::open(&connector, &format!("token-{}", shown.port));
            let identity = session
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|session| session.run(|token| token.read_identity()));
            // The offer need not wait for the rest.
            let failed = identity.as_ref().err().cloned();
            early.tell(move |station| station.identified(shown, plugged, identity));
            match failed {
                Some(error) => Err(error),
                None => session?.run(|token| token.read_details()),
            }
        };
        self.work(format!("plug-{}", device.port), vec![id], job, move |station, details| {
            if let Ok(Ok(details)) = details {
                station.detailed(&read, details);
            }
        });
    }

    /// A token told what it is.
    fn identified(
        &mut self,
        device: Device,
        plugged: Plugged,
        identity: Result<Identity, TokenError>,
    ) {
        self.reading -= 1;
        let (claims, guid, trouble) = match &identity {
            Ok(identity) => (presence::claims(identity), identity.guid, None),
            Err(TokenError::Transport(TransportError::Gone)) => return,
            Err(error) => (Claims::default(), None, Some(error.to_string())),
        };
        let label = match self.recognize(&device, &claims, guid) {
            Ok(label) => label,
            Err(error) => return tracing::error!(%error, ?device, "a Key cannot be shown"),
        };
        if let Some(trouble) = &trouble {
            tracing::warn!(?device, trouble, "a token cannot be used");
        }
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
            last_seen: clock::unix_seconds(),
            claims,
            device: Some(device),
            ..Key::default()
        };
        self.keys.insert(label.clone(), key);
        self.refresh(&label);
        self.history.retain(|(issuer, candidate), _| {
            issuer.as_ref() != Some(&label) && *candidate != label
        });
        self.key_came(&label);
    }

    /// The label of the Key that this token is, an old one or a new.
    fn recognize(
        &self,
        device: &Device,
        claims: &Claims,
        guid: Option<[u8; 16]>,
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
        again.map_or_else(new_label, |(label, _)| Ok(label.clone()))
    }

    /// A token told the rest.
    fn detailed(&mut self, device: &DeviceId, details: Details) {
        let Some((label, key)) = self.present_mut(device) else { return };
        if let Some(serial) = &details.serial {
            key.serial.clone_from(serial);
        }
        key.details = details;
        key.assume_pin();
        if let Some(id) = key.id
            && let Err(error) = self.remember_plug(id, &label)
        {
            tracing::warn!(%error, "when this Key was last seen cannot be noted");
        }
    }

    /// Notes in the registry when and as what a known Key was last seen.
    fn remember_plug(&self, id: Id, label: &Label) -> Result<(), RegistryError> {
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
        let Some((label, key)) = self.present_mut(device) else { return };
        tracing::debug!(label, "unplugged");
        key.device = None;
        key.authorized = false;
        key.refused = false;
        key.last_seen = clock::unix_seconds();
        self.touched.insert(label.clone());
        self.key_left(&label);
        self.forget_if_unknown(&label);
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
            Some(id) => self.registry.key(id)?.filter(|record| record.label == *label),
            None => None,
        };
        let leftover = match key.guid {
            Some(guid) => self.registry.leftover(guid)?.is_some(),
            None => false,
        };
        let (Some(id), Some(record)) = (key.id, record) else {
            let known = Known { leftover, ..Known::default() };
            return Ok(Facts { known, ..Facts::default() });
        };
        let mut memberships: Vec<_> = self
            .registry
            .memberships(id)?
            .into_iter()
            .map(|(family, membership)| (family, membership.role))
            .collect();
        memberships.sort_by_key(|(family, _)| *family != record.family);
        let mut pending = 0u32;
        for (family, _) in &memberships {
            pending += self.locks_of(id, *family)?;
        }
        Ok(Facts {
            known: Known {
                leftover: false,
                revoked: record.revoked,
                role: memberships.iter().map(|(_, role)| *role).max(),
            },
            name: Some(record.name),
            memberships,
            rights: (0, pending),
        })
    }

    /// How many Locks of a family a Key's newest statement allows it.
    fn locks_of(&self, key: Id, family: Id) -> Result<u32, RegistryError> {
        Ok(match self.registry.statement(key, family)?.map(|statement| statement.scope) {
            Some(records::Scope::All) => self.registry.family(family)?.map_or(0, |f| f.locks),
            Some(records::Scope::Listed(_)) => {
                let entries = self.registry.statement_entries(key, family)?;
                let allowed = entries.iter().filter(|entry| entry.allow).count();
                u32::try_from(allowed).unwrap_or(u32::MAX)
            }
            None => 0,
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
        matches!(self.registry.family(family), Ok(Some(family)) if family.locks > 0)
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

    /// Whether some token that is plugged in has not said yet what it is.
    pub(super) fn is_reading(&self) -> bool {
        self.reading > 0 || !self.settled
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
