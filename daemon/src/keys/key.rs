//! One shown Key: its token if it is plugged in, what its certificates claim, and what the registry knows of it.

use keywright_proto::{Id, Role};
use keywright_rules::decision::{Plugged, Reason};
use keywright_rules::presence::{self, Claims, KeyState};
use keywright_token::hotplug::Device;
use keywright_token::{Cleared, Details, PinState, TokenError, TransportError};

use crate::{
    audit::Token,
    error::Error,
    families::{Facts, Issuer},
    serialization::card::CardOutcome,
    view::{KeyView, Label, Trouble},
};

/// A Key as the bus shows it.
#[derive(Debug, Default)]
pub struct Key {
    /// The token, while it is plugged in.
    pub device: Option<Device>,
    /// When the token was plugged in.
    pub plugged: Plugged,
    /// Its state.
    pub state: KeyState,
    /// What its certificates claim.
    pub claims: Claims,
    /// The id of its access key, once it has one of ours.
    pub id: Option<Id>,
    /// Whether it is in the registry.
    pub known: bool,
    /// Its name; empty while it has none.
    pub name: String,
    /// Its families. The first one is shown first.
    pub memberships: Vec<(Id, Role)>,
    /// The families that revoked it.
    pub revoked_in: Vec<Id>,
    /// The CHUID's GUID.
    pub guid: Option<[u8; 16]>,
    /// The USB serial number.
    pub usb_serial: Option<String>,
    /// The port where it is plugged in, or was last.
    pub port: String,
    /// The product name.
    pub model: String,
    /// The token's serial number where unique, else the GUID in hex.
    pub serial: String,
    /// The other details that the token told.
    pub details: Details,
    /// Whether it has refused a PIN since it was plugged in.
    pub refused: bool,
    /// How often AddLock has renewed its card since it was plugged in.
    pub card_renewals: usize,
    /// Outcome of the last attempt to write its card since it was plugged in.
    pub card: CardOutcome,
    /// Whether an authorization on it lasts until it is re-plugged.
    pub authorized: bool,
    /// Why it cannot be used.
    pub trouble: Option<Trouble>,
    /// Active and pending rights.
    pub rights: (u32, u32),
    /// When it was seen last, in Unix seconds.
    pub last_seen: u64,
}

impl Key {
    /// Whether it is plugged in.
    pub fn is_present(&self) -> bool {
        self.device.is_some()
    }

    /// Names the Key for the text of an error.
    pub fn called(&self) -> String {
        match (self.name.as_str(), self.port.as_str()) {
            ("", "") => format!("the {} Key", self.state.as_str()),
            ("", port) => format!("the {} Key at {port}", self.state.as_str()),
            (name, _) => format!("Key \"{name}\""),
        }
    }

    /// The properties that the bus shows.
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

    /// The error that says why nothing can be made with it.
    pub fn unusable(&self) -> Error {
        match &self.trouble {
            Some(Trouble { holder: Some(holder), .. }) => {
                Error::KeyBusy { key: self.called(), holder: holder.clone() }
            }
            Some(trouble) => Error::Unsupported(format!("{}: {}", self.called(), trouble.text)),
            None => Error::Pair(Reason::Unusable),
        }
    }

    /// Assumes that a Key in the registry has a PIN of its own, if the token does not tell: the job that made it saw to
    /// that.
    pub fn assume_pin(&mut self) {
        if self.details.pin == PinState::Unknown && self.known {
            self.details.pin = PinState::Set;
        }
    }

    /// The values to keep when a token that stayed plugged in is probed again: those learnt since its plug, and
    /// `last_seen`, so that another failed probe changes nothing that is shown.
    pub(super) fn since_plug(&mut self) -> Self {
        Self {
            last_seen: self.last_seen,
            refused: self.refused,
            authorized: self.authorized,
            card_renewals: self.card_renewals,
            claims: Claims {
                foreign: self.trouble.is_none() && self.claims.foreign,
                unknown_profile: self.trouble.is_none() && self.claims.unknown_profile,
                ..Claims::default()
            },
            card: std::mem::take(&mut self.card),
            details: std::mem::take(&mut self.details),
            ..Self::default()
        }
    }

    /// Whether this is the same blank token: equal GUID, USB serial and port.
    pub(super) fn is_same_blank(&self, guid: Option<[u8; 16]>, device: &Device) -> bool {
        self.state == KeyState::Blank
            && self.guid == guid
            && self.usb_serial == device.usb_serial
            && self.port == device.port
    }

    /// The token as the audit log names it.
    pub fn token(&self) -> Token {
        Token { key: self.id, serial: self.serial.clone(), port: self.port.clone() }
    }

    /// The Key as its family needs it to sign.
    pub fn as_issuer(&self, label: &Label) -> Issuer {
        Issuer {
            label: label.clone(),
            id: self.id,
            name: self.name.clone(),
            called: self.called(),
            is_revoked: self.claims.family.is_some_and(|(of, _)| self.revoked_in.contains(&of)),
            guid: self.guid,
            serial: self.serial.clone(),
            model: self.model.clone(),
            claims: self.claims.clone(),
        }
    }

    /// Whether its PIN is the factory's, as far as the token tells.
    pub fn has_factory_pin(&self) -> bool {
        self.details.pin == PinState::Default
    }

    /// Applies the token's answer when it was cleared. An authorization that could not be cleared lasts until a
    /// re-plug.
    pub fn note_cleared(&mut self, cleared: Cleared) {
        self.authorized |= cleared.authorized;
        if cleared.retries.is_some() {
            self.details.retries = cleared.retries;
        }
    }

    /// Applies the token's refusal of a PIN.
    pub fn note_refusal(&mut self, error: &TokenError) {
        let retries = match error {
            TokenError::PinRefused { retries } => *retries,
            TokenError::PinBlocked => 0,
            _ => return,
        };
        self.refused = true;
        self.details.retries = Some(retries);
        if retries == 0 {
            self.details.pin = PinState::Blocked;
        }
    }

    /// Translates an error of its token into an error about this Key.
    pub fn token_error(&self, error: TokenError) -> Error {
        let called = self.called();
        match error {
            TokenError::PinRefused { retries } => Error::PinInvalid { key: called, retries },
            TokenError::CodeRefused { retries } => Error::CodeInvalid { key: called, retries },
            TokenError::PinBlocked => Error::PinBlocked(called),
            TokenError::CodeBlocked => Error::CodeBlocked(called),
            TokenError::PinFormat | TokenError::NewPinRefused => {
                Error::InvalidArgument(error.to_string())
            }
            TokenError::Transport(TransportError::Busy { holder }) => {
                Error::KeyBusy { key: called, holder }
            }
            TokenError::Transport(TransportError::Gone) => Error::KeyAbsent(called),
            TokenError::NoPiv | TokenError::Unsupported(_) | TokenError::ForeignManagementKey => {
                Error::Unsupported(format!("{called}: {error}"))
            }
            source => Error::Token { key: called, source },
        }
    }

    /// Applies what the registry knows.
    pub(super) fn take(&mut self, facts: Facts) {
        self.known = facts.name.is_some();
        if let Some(name) = facts.name {
            self.name = name;
        }
        self.rights = facts.rights;
        self.memberships = facts.memberships;
        self.revoked_in = facts.revoked_in;
        if self.memberships.is_empty() {
            self.memberships.extend(self.claims.family);
        }
        self.state = match self.trouble {
            Some(_) => KeyState::Unusable,
            None => presence::state(&self.claims, facts.known),
        };
        if self.state == KeyState::Blank {
            self.id = None;
            self.memberships.clear();
        }
    }
}
