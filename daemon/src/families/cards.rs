//! The card that an issuing Key carries: Locks and a chain, for a station that does not know the family or none of its
//! Locks. The card is only a claim until the Key has signed here with its PIN.

use std::collections::BTreeSet;

use keywright_base::clock;
use keywright_proto::{Certificate, Id, PublicKey};
use keywright_rules::presence::Claims;

use super::{Asker, Changes, Families, Issuer, Issuing, Label, Present, import::lock_name};
use crate::{
    error::Error,
    queries::LockRow,
    registry::{
        Batch, Filter, Origin,
        records::{Family, LockEntry},
    },
    serialization::card::CardOrder,
};

impl Families {
    /// The Locks on a Key's card, by id, except removed ones. Empty if its family has a Lock here, or is pinned here
    /// with another root.
    pub fn carried_by(&self, claims: &Claims) -> Vec<LockEntry> {
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

    /// The Locks of a family on a plugged-in Key's card: the card with the most Locks counts.
    pub(super) fn carried(&self, family: Id, present: &Present<'_>) -> Vec<LockEntry> {
        let of_family = |claims: &&&Claims| claims.family.is_some_and(|(of, _)| of == family);
        let carried = present.claims.iter().filter(of_family).map(|claims| self.carried_by(claims));
        carried.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Rows of ListLocks for the Locks on the cards of plugged-in Keys. `only` restricts them to these ids.
    pub fn carried_locks(
        &self,
        filter: &Filter,
        only: Option<&[Id]>,
        present: &Present<'_>,
    ) -> Vec<LockRow> {
        let cards = present.claims.iter().filter_map(|claims| claims.card.as_ref());
        let families: BTreeSet<Id> = cards.map(|card| card.root().family()).collect();
        let mut rows = Vec::new();
        for family in families {
            for entry in self.carried(family, present) {
                let (lock, name) = (entry.lock, lock_name(entry.lock));
                let wanted = only.is_none_or(|only| only.contains(&lock));
                if wanted && filter.admits(family, lock, &name) {
                    rows.push((lock.to_string(), name, family.to_string(), false, 0));
                }
            }
        }
        rows
    }

    /// The chain of an issuer whose family is not pinned here, up to the root that its card names.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn carried_chain(&self, claims: &Claims) -> Result<Option<Vec<Certificate>>, Error> {
        let (Some(card), Some((family, _))) = (&claims.card, claims.family) else {
            return Ok(None);
        };
        let pinned = self.registry.family(family)?.is_some();
        Ok((!pinned && card.root().family() == family).then(|| card.chain().to_vec()))
    }

    /// The issuing key that has to sign a challenge before its Key's card is imported.
    pub fn has_to_prove(&self, claims: &Claims) -> Option<PublicKey> {
        (!self.carried_by(claims).is_empty()).then(|| claims.issuing_key().cloned())?
    }

    /// Trusts a Key that has just signed here with its PIN: pins the root of its chain if its family has none yet, and
    /// imports its card like a file.
    ///
    /// # Errors
    /// `Unverified`: its chain does not lead to that root.
    pub fn believe(
        &mut self,
        issuer: &Issuer,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let (Some((family, _)), Some(own)) = (issuer.claims.family, &issuer.claims.issuing) else {
            return Ok(());
        };
        if let Some(chain) = self.carried_chain(&issuer.claims)? {
            let root = chain.last().unwrap_or(own).der().to_vec();
            let mut batch = Batch::new();
            batch.put_family(family, Family { root, pinned: clock::unix_seconds(), locks: 0 });
            let issuing = Issuing { family, chain, unpinned: true };
            self.pin_family(&mut batch, issuer, &issuing, by)?;
            self.registry.commit(batch)?;
        }
        self.take_card(issuer, label_of, by, changes);
        Ok(())
    }

    /// Imports a Key's card, once its family's root is pinned. A card with another root is ignored.
    pub(super) fn take_card(
        &mut self,
        issuer: &Issuer,
        label_of: &dyn Fn(&PublicKey) -> Option<Label>,
        by: Asker,
        changes: &mut Changes,
    ) {
        let (Some(card), Some((family, _))) = (&issuer.claims.card, issuer.claims.family) else {
            return;
        };
        let pinned = self.registry.family(family).ok().flatten();
        if pinned.is_none_or(|known| known.root != card.root().der()) {
            return tracing::warn!(%family, "a card with another root is ignored");
        }
        match self.import_from(Origin::Key, family, card.objects(), label_of, by, changes) {
            Ok(new) => tracing::info!(%family, new, "a Key's card was imported"),
            Err(error) => tracing::warn!(%family, %error, "a Key's card cannot be imported"),
        }
        changes.families.insert(family);
    }

    /// What to write on the card of an issuing Key.
    pub(super) fn card_order(
        &self,
        issuer: &Issuer,
        issuing: &Issuing,
    ) -> Result<CardOrder, Error> {
        let family = issuing.family;
        let statement = match issuer.id {
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
