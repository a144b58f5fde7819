//! What the registry knows of a shown Key.

use keywright_proto::{Id, Role};
use keywright_rules::presence::{Claims, Known};

use super::Families;
use crate::{
    error::Error,
    queries::count_rights,
    registry::{Batch, RegistryError},
};

/// What the registry knows of a Key.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The facts that decide its state.
    pub known: Known,
    /// Its name; `None` if no Key with this label is in the registry.
    pub name: Option<String>,
    /// Its families. The one to show first comes first.
    pub memberships: Vec<(Id, Role)>,
    /// The families that revoked it.
    pub revoked_in: Vec<Id>,
    /// Active and pending rights.
    pub rights: (u32, u32),
}

impl Families {
    /// What the registry knows of the Key with this label, by its id and its GUID.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn facts(
        &self,
        label: &str,
        id: Option<Id>,
        guid: Option<[u8; 16]>,
    ) -> Result<Facts, RegistryError> {
        let record = match id {
            Some(id) => self.registry.key(id)?,
            None => None,
        };
        // A token with copied certificates may have been seen first, and have the label.
        let owns = match id {
            Some(id) => self.registry.memberships(id)?,
            None => Vec::new(),
        };
        let revoked_in = owns.iter().filter(|(_, own)| own.revoked).map(|(family, _)| *family);
        let revoked_in: Vec<Id> = revoked_in.collect();
        let shown = record.as_ref().map(|record| record.family);
        let revoked = shown.map_or(!revoked_in.is_empty(), |shown| revoked_in.contains(&shown));
        let record = record.filter(|record| record.label == label);
        let leftover = match guid {
            Some(guid) => self.registry.leftover(guid)?.is_some(),
            None => false,
        };
        let (Some(id), Some(record)) = (id, record) else {
            let known = Known { leftover, revoked, ..Known::default() };
            return Ok(Facts { known, revoked_in, ..Facts::default() });
        };
        let mut memberships: Vec<_> =
            owns.iter().map(|(family, own)| (*family, own.role)).collect();
        memberships.sort_by_key(|(family, _)| *family != record.family);
        let mut rights = (0u32, 0u32);
        for (family, _) in &memberships {
            let (active, pending) = count_rights(&self.registry, id, *family, self.moment())?;
            rights = (rights.0.saturating_add(active), rights.1.saturating_add(pending));
        }
        let role = memberships.iter().map(|(_, role)| *role).max();
        let known = Known { leftover: false, revoked, role };
        Ok(Facts { known, name: Some(record.name), memberships, revoked_in, rights })
    }

    /// Whether the family of a Key has a Lock, here or on the Key's card.
    pub fn has_lock(&self, claims: &Claims) -> bool {
        let Some((family, _)) = claims.family else { return false };
        match self.registry.family(family) {
            Ok(Some(known)) if known.locks > 0 => true,
            Ok(_) => !self.carried_by(claims).is_empty(),
            Err(_) => false,
        }
    }

    /// Notes when a known Key was last seen, and its label, model and serial number. A Key with another label is only a
    /// copy of its certificates.
    ///
    /// # Errors
    /// The registry cannot be written.
    pub fn remember_plug(
        &self,
        id: Id,
        label: &str,
        last_seen: u64,
        model: &str,
        serial: &str,
    ) -> Result<(), RegistryError> {
        let record = self.registry.key(id)?.filter(|record| record.label == label);
        let Some(mut record) = record else { return Ok(()) };
        record.last_seen = last_seen;
        model.clone_into(&mut record.model);
        serial.clone_into(&mut record.serial);
        let mut batch = Batch::new();
        batch.put_key(id, record);
        self.registry.commit(batch)
    }

    /// Whether the factory PUK was offered to a token before: to this Key, or to a token that a rolled-back job left.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn puk_tried(&self, id: Option<Id>, guid: Option<[u8; 16]>) -> Result<bool, Error> {
        let leftover = match guid {
            Some(guid) => self.registry.leftover(guid)?.is_some_and(|left| left.puk_tried),
            None => false,
        };
        let known = match id {
            Some(id) => self.registry.key(id)?.is_some_and(|record| record.puk_tried),
            None => false,
        };
        Ok(leftover || known)
    }
}
