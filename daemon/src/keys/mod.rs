//! The shown Keys: plugged in or in the registry, their state, and how a Key is recognized at its next plug.
//!
//! Nothing here talks to a token: the station probes tokens on threads of its own and brings the results.
//!
//! | file | what |
//! | --- | --- |
//! | `key` | one Key |
//! | `plugs` | applies plugs, probes and unplugs |
//! | `pins` | when a Key may be sent a PIN |

mod key;
mod pins;
mod plugs;

use std::collections::{BTreeMap, BTreeSet};

use keywright_proto::{Id, PublicKey};
use keywright_rules::{decision, presence};
use keywright_token::hotplug::{Device, DeviceId};

pub use key::Key;
pub use pins::refusal;
pub use plugs::{Identified, left_early};

use crate::{
    audit::Token,
    error::Error,
    families::{Changes, Families, Present},
    outbox::{Outbox, Output},
    registry::records,
    serialization::card::CardOutcome,
    view::{KeyView, Label},
};

/// How many absent Keys are shown as objects; `ListKeys` has all.
pub const SHOWN_ABSENT_KEYS: usize = 1000;

/// All shown Keys.
pub struct Keys {
    map: BTreeMap<Label, Key>,
    /// Tokens that are being probed or wait to be probed again, also those reported unplugged that are re-probed.
    probing: BTreeSet<DeviceId>,
    /// The probed tokens that offers wait for. A token that has been silent for long is not one of them.
    awaited: BTreeSet<DeviceId>,
    /// How many plugs there were since the start.
    plugs: u64,
    /// Whether every token that was plugged in at the start has been reported.
    settled: bool,
    /// Absent Keys that changed since the last [`Self::publish`].
    touched: BTreeSet<Label>,
    /// What was last published on the bus.
    shown: BTreeMap<Label, KeyView>,
    outbox: Outbox,
    /// Whether every Key made here gets a new PIN in place of the factory's.
    require_new_pin: bool,
}

impl Keys {
    /// Starts without any Key.
    pub fn new(outbox: Outbox, require_new_pin: bool) -> Self {
        Self {
            map: BTreeMap::new(),
            probing: BTreeSet::new(),
            awaited: BTreeSet::new(),
            plugs: 0,
            settled: false,
            touched: BTreeSet::new(),
            shown: BTreeMap::new(),
            outbox,
            require_new_pin,
        }
    }

    /// The Key with this label, if it is shown.
    pub fn get(&self, label: &str) -> Option<&Key> {
        self.map.get(label)
    }

    /// Like [`Self::get`], mutable.
    pub fn get_mut(&mut self, label: &str) -> Option<&mut Key> {
        self.map.get_mut(label)
    }

    /// The Key with a label that a caller passed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn key(&self, label: &Label) -> Result<&Key, Error> {
        self.get(label).ok_or_else(|| Error::NotFound("Key at this path".into()))
    }

    /// A Key that is plugged in, and its token.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::KeyAbsent`].
    pub fn present_key(&self, label: &Label) -> Result<(&Key, &Device), Error> {
        let key = self.key(label)?;
        let device = key.device.as_ref().ok_or_else(|| Error::KeyAbsent(key.called()))?;
        Ok((key, device))
    }

    /// Whether the Key with this label is plugged in.
    pub fn is_present(&self, label: &str) -> bool {
        self.get(label).is_some_and(Key::is_present)
    }

    /// The Key that is plugged in as this device.
    pub fn by_device(&mut self, device: &DeviceId) -> Option<(Label, &mut Key)> {
        self.map
            .iter_mut()
            .find(|(_, key)| key.device.as_ref().is_some_and(|held| held.id == *device))
            .map(|(label, key)| (label.clone(), key))
    }

    /// The Keys that are plugged in.
    pub fn present(&self) -> impl Iterator<Item = (&Label, &Key)> {
        self.map.iter().filter(|(_, key)| key.is_present())
    }

    /// Names a Key for the text of an error.
    pub fn called(&self, label: &str) -> String {
        self.get(label).map(Key::called).unwrap_or_default()
    }

    /// The token of a Key as the audit log names it.
    pub fn token(&self, label: &str) -> Token {
        self.get(label).map(Key::token).unwrap_or_default()
    }

    /// The plugged-in Keys, as `decision` judges them.
    pub fn candidates(&self, families: &Families) -> Vec<decision::PresentKey<'_>> {
        let present = self.present().map(|(label, key)| decision::PresentKey {
            label,
            class: classify(key, families),
            plugged: key.plugged,
            revoked_in: &key.revoked_in,
        });
        present.collect()
    }

    /// The plugged-in Keys, as families need them.
    pub fn for_families(&self) -> Present<'_> {
        let issuing = self.present().filter(|(_, key)| key.claims.issuing.is_some());
        Present {
            issuers: issuing.filter_map(|(_, key)| Some(key.claims.family?.0)).collect(),
            claims: self.present().map(|(_, key)| &key.claims).collect(),
        }
    }

    /// The label of the shown Key with this access key.
    pub fn label_of(&self, access_key: &PublicKey) -> Option<Label> {
        let shows = |key: &Key| key.claims.access_key() == Some(access_key);
        self.map.iter().find(|(_, key)| shows(key)).map(|(label, _)| label.clone())
    }

    /// Publishes an absent Key again at the next [`Self::publish`].
    pub fn touch(&mut self, label: &str) {
        self.touched.insert(label.to_owned());
    }

    /// Shows the candidate of an interrupted job that is absent, unless a Key with this label is shown.
    pub fn show_absent(&mut self, label: Label, key: impl FnOnce() -> Key) {
        self.touched.insert(label.clone());
        self.map.entry(label).or_insert_with(key);
    }

    /// Shows a Key of the registry that is not plugged in.
    pub fn recall(&mut self, id: Id, record: &records::Key, families: &Families) {
        let key = Key {
            id: Some(id),
            name: record.name.clone(),
            guid: record.guid,
            model: record.model.clone(),
            serial: record.serial.clone(),
            last_seen: record.last_seen,
            ..Key::default()
        };
        self.map.insert(record.label.clone(), key);
        self.refresh(&record.label, families);
    }

    /// Applies changes of the registry.
    pub fn apply(&mut self, changes: &Changes, families: &Families) {
        for id in &changes.new_keys {
            match families.registry().key(*id) {
                Ok(Some(record)) => self.show_new(*id, &record, families),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, key = %id, "a new Key cannot be shown"),
            }
        }
        for family in &changes.families {
            self.refresh_family(*family, families);
        }
        for id in &changes.keys {
            let label =
                self.map.iter().find(|(_, key)| key.id == Some(*id)).map(|(l, _)| l.clone());
            if let Some(label) = label {
                self.refresh(&label, families);
            }
        }
    }

    /// Shows a Key that is new in a family. It may be shown already, because it is plugged in or a member of another
    /// family.
    fn show_new(&mut self, id: Id, record: &records::Key, families: &Families) {
        if !self.map.contains_key(&record.label) {
            return self.recall(id, record, families);
        }
        self.refresh(&record.label, families);
        if self.require_new_pin
            && let Some(key) = self.map.get_mut(&record.label)
        {
            key.assume_pin();
        }
        if self.is_present(&record.label) {
            self.remember_plug(&record.label, families);
        }
    }

    /// Applies what the registry knows of a Key.
    pub fn refresh(&mut self, label: &Label, families: &Families) {
        self.touch(label);
        let Some(key) = self.map.get_mut(label) else { return };
        match families.facts(label, key.id, key.guid) {
            Ok(facts) => key.take(facts),
            Err(error) => {
                // It may have been revoked, so nothing is made with it.
                key.state = presence::KeyState::Unusable;
                tracing::error!(%error, label, "what is known of a Key cannot be read");
            }
        }
    }

    /// Applies what the registry knows of every Key of a family.
    fn refresh_family(&mut self, family: Id, families: &Families) {
        let of_family: Vec<Label> = self
            .map
            .iter()
            .filter(|(_, key)| {
                key.memberships.iter().any(|(member_of, _)| *member_of == family)
                    || key.claims.family.is_some_and(|(claimed, _)| claimed == family)
            })
            .map(|(label, _)| label.clone())
            .collect();
        of_family.iter().for_each(|label| self.refresh(label, families));
    }

    /// Notes the outcome for a Key's family card, if the card was to be written.
    pub fn note_card(&mut self, label: &Label, card: CardOutcome) {
        let Some(key) = self.map.get_mut(label).filter(|_| card != CardOutcome::NotDue) else {
            return;
        };
        if let Some((_, why)) = card.why_not() {
            tracing::warn!("the family's card on {} is not renewed: {why}", key.called());
        }
        key.card = card;
        self.touched.insert(label.clone());
    }

    /// Stops showing an absent Key that is not in the registry, unless a job needs it.
    pub fn forget_if_unknown(&mut self, label: &Label, is_in_job: bool, families: &Families) {
        let Some(key) = self.map.get(label) else { return };
        let is_known = key.id.is_some_and(
            |id| matches!(families.registry().key(id), Ok(Some(record)) if record.label == *label),
        );
        if !key.is_present() && !is_known && !is_in_job {
            self.map.remove(label);
        }
    }

    /// Stops showing the Keys that have been absent longest, if there are more than [`SHOWN_ABSENT_KEYS`].
    pub fn forget_the_longest_absent(&mut self, is_in_job: impl Fn(&Label) -> bool) {
        let absent = self.map.iter().filter(|(_, key)| !key.is_present());
        let mut absent: Vec<_> =
            absent.map(|(label, key)| (key.last_seen, label.clone())).collect();
        let too_many = absent.len().saturating_sub(SHOWN_ABSENT_KEYS);
        absent.sort_unstable();
        absent.retain(|(_, label)| !is_in_job(label));
        for (_, label) in absent.into_iter().take(too_many) {
            self.map.remove(&label);
        }
    }

    /// Publishes every change on the bus.
    pub fn publish(&mut self) {
        // There may be many absent Keys, so only those that were touched are compared.
        let touched = std::mem::take(&mut self.touched);
        let views: Vec<_> = self
            .map
            .iter()
            .filter(|(label, key)| key.is_present() || touched.contains(*label))
            .map(|(label, key)| (label.clone(), key.view()))
            .collect();
        for (label, view) in views {
            if self.shown.get(&label) != Some(&view) {
                self.shown.insert(label.clone(), view.clone());
                self.outbox.send(Output::Key(label, Box::new(view)));
            }
        }
        let map = &self.map;
        let gone = self.shown.extract_if(.., |label, _| !map.contains_key(label));
        for (label, _) in gone {
            self.outbox.send(Output::KeyGone(label));
        }
    }
}

/// The class of a Key, by which `decision` judges it.
pub fn classify(key: &Key, families: &Families) -> decision::KeyClass {
    presence::classify(key.state, &key.claims, families.has_lock(&key.claims))
}
