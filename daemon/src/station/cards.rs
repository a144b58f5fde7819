//! What Keys carry of families that this station has never met, or of which it knows no Lock: claims, until the Key has
//! signed here with its PIN.

use std::collections::BTreeSet;

use keywright_proto::{Certificate, Id, PublicKey};

use super::{Reply, Station, issuing::Issuing, view::Label};
use crate::{
    error::Error,
    presence::Claims,
    queries::LockRow,
    registry::{
        Batch, Filter,
        records::{Family, LockEntry},
    },
    serialization::card::{CardOrder, Carried},
};

impl Station {
    /// The Locks on the card of a Key, by id: of a family of which none is known here, and that is not pinned here with
    /// another root. Not those that were removed.
    pub(super) fn carried_by(&self, claims: &Claims) -> Vec<LockEntry> {
        let (Some(card), Some((family, _))) = (&claims.card, claims.family) else {
            return Vec::new();
        };
        let fits = match self.registry.family(family) {
            Ok(Some(known)) => known.locks == 0 && known.root == card.root().der(),
            Ok(None) => true,
            Err(_) => false,
        };
        if !fits || card.root().family() != family {
            return Vec::new();
        }
        let stays = |lock: &&Certificate| {
            self.is_removed(family, lock.public_key()).is_ok_and(|removed| !removed)
        };
        let entry = |lock: &Certificate| LockEntry {
            lock: lock.public_key().id(),
            key_hash: lock.public_key().hash(),
            allow: true,
        };
        let mut entries: Vec<_> = card.locks().iter().filter(stays).map(entry).collect();
        entries.sort_unstable();
        entries
    }

    /// The same of the Keys that are plugged in, for a family.
    pub(super) fn carried(&self, family: Id) -> Vec<LockEntry> {
        let of_family = |claims: &&Claims| claims.family.is_some_and(|(of, _)| of == family);
        let present = self.keys.values().filter(|key| key.is_present()).map(|key| &key.claims);
        let carried = present.filter(of_family).map(|claims| self.carried_by(claims));
        carried.max_by_key(Vec::len).unwrap_or_default()
    }

    /// A Lock of a family: one that is known, or that a Key which is plugged in claims.
    pub(super) fn lock_entry(&self, family: Id, lock: Id) -> Result<Option<LockEntry>, Error> {
        let known = self.registry.lock_entry(family, lock)?;
        Ok(known.or_else(|| self.carried(family).into_iter().find(|entry| entry.lock == lock)))
    }

    /// All of them.
    pub(super) fn lock_entries(&self, family: Id) -> Result<Vec<LockEntry>, Error> {
        let known = self.registry.lock_entries(family)?;
        Ok(if known.is_empty() { self.carried(family) } else { known })
    }

    /// How many there are.
    pub(super) fn lock_count(&self, family: Id) -> Result<u32, Error> {
        let known = self.registry.family(family)?.map_or(0, |family| family.locks);
        let carried = || u32::try_from(self.carried(family).len()).unwrap_or(u32::MAX);
        Ok(if known == 0 { carried() } else { known })
    }

    /// For ListLocks: the Locks that Keys which are plugged in claim of families of which none is known here; of these ids
    /// where some are given.
    pub fn carried_locks(
        &mut self,
        filter: Filter,
        only: Option<Vec<Id>>,
        reply: Reply<Vec<LockRow>>,
    ) {
        let present = self.keys.values().filter(|key| key.is_present());
        let families: BTreeSet<Id> =
            present.filter_map(|key| Some(key.claims.card.as_ref()?.root().family())).collect();
        let mut rows = Vec::new();
        for family in families {
            for entry in self.carried(family) {
                let (lock, name) = (entry.lock, super::exchange::lock_name(entry.lock));
                let wanted = only.as_ref().is_none_or(|only| only.contains(&lock));
                if wanted && filter.admits(family, lock, &name) {
                    rows.push((lock.to_string(), name, family.to_string(), false, 0));
                }
            }
        }
        reply.answer(self, Ok(rows));
    }

    /// The chain of an issuer whose family is not pinned here, up to the root that its card names.
    pub(super) fn carried_chain(&self, claims: &Claims) -> Result<Option<Vec<Certificate>>, Error> {
        let (Some(card), Some((family, _))) = (&claims.card, claims.family) else {
            return Ok(None);
        };
        let pinned = self.registry.family(family)?.is_some();
        Ok((!pinned && card.root().family() == family).then(|| card.chain().to_vec()))
    }

    /// Shows what became of a Key's card, where it was to be written.
    pub(super) fn note_card(&mut self, label: &Label, card: Carried) {
        let Some(key) = self.keys.get_mut(label).filter(|_| card != Carried::NotDue) else {
            return;
        };
        if let Some((_, why)) = card.why_not() {
            tracing::warn!("the family's card on {} is not renewed: {why}", key.called());
        }
        key.card = card;
        self.touched.insert(label.clone());
    }

    /// The issuing key that has to sign here before what its Key carries is believed.
    pub(super) fn has_to_prove(&self, label: &Label) -> Option<PublicKey> {
        let claims = &self.keys.get(label)?.claims;
        (!self.carried_by(claims).is_empty()).then(|| claims.issuing_key().cloned())?
    }

    /// A Key has signed here with its PIN: the root that it leads to is pinned, where the family has none yet, and what is on
    /// its card is taken in like a file.
    pub(super) fn believe(&mut self, label: &Label) -> Result<(), Error> {
        let key = self.key(label)?;
        let (Some((family, _)), Some(own)) = (key.claims.family, key.claims.issuing.clone()) else {
            return Ok(());
        };
        if let Some(chain) = self.carried_chain(&key.claims)? {
            let device = self.present_key(label)?.1.clone();
            let (now, root) = (crate::clock::unix_seconds(), chain.last().unwrap_or(&own));
            let mut batch = Batch::new();
            batch.put_family(family, Family { root: root.der().to_vec(), pinned: now, locks: 0 });
            let issuing = Issuing { device, family, chain, unpinned: true };
            self.pin_family(&mut batch, label, &issuing, now)?;
            self.registry.commit(batch)?;
        }
        self.take_card(label);
        Ok(())
    }

    /// Takes in what is on a Key's card, once its family's root is pinned. A card that does not fit that is dropped.
    pub(super) fn take_card(&mut self, label: &Label) {
        let Some(claims) = self.keys.get(label).map(|key| key.claims.clone()) else { return };
        let (Some(card), Some((family, _))) = (claims.card, claims.family) else { return };
        let pinned = self.registry.family(family).ok().flatten();
        if pinned.is_none_or(|known| known.root != card.root().der()) {
            return tracing::warn!(%family, "a card of another root is dropped");
        }
        match self.take_in(family, card.objects()) {
            Ok(new) => tracing::info!(%family, new, "a Key's card was taken in"),
            Err(error) => tracing::warn!(%family, %error, "a Key's card cannot be taken in"),
        }
        self.refresh_family(family);
    }

    /// What goes on the card of an issuing Key.
    pub(super) fn card_order(&self, label: &Label, issuing: &Issuing) -> Result<CardOrder, Error> {
        let family = issuing.family;
        let statement = match self.key(label)?.id {
            Some(id) => self.registry.statement(id, family)?,
            None => None,
        };
        Ok(CardOrder {
            family,
            chain: issuing.chain.clone(),
            statement: statement.map(|statement| (statement.cose, statement.salt_seed)),
            registry: self.registry.clone(),
            added: None,
            removed: None,
        })
    }
}
