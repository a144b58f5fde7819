//! Chooses the Locks on a family's card (`docs/formats.md`) from those in the registry, and writes the card.

use std::cmp::Reverse;

use keywright_proto::{Certificate, Id, tree::Hash};
use keywright_token::{CardContents, OldCard, Pin, Token, TokenError, unlock_for_card};

use crate::registry::{Filter, Registry, RegistryError};

pub use keywright_token::CardOutcome;

/// How many Locks are offered to a card: more than fit on any.
const LOCKS: usize = 16;
/// How many Locks are read to find the newest. In a larger family only these and the Locks already on the card are
/// considered, so that the cost does not grow with the family; the card still follows the Locks that its own Key adds.
const AMONG: usize = 1000;

/// What to put on a card.
#[derive(Clone)]
pub struct CardOrder {
    /// The family.
    pub family: Id,
    /// The Key's CA certificates, its own first, the root last.
    pub chain: Vec<Certificate>,
    /// The newest statement on the Key, with its seed.
    pub statement: Option<(Vec<u8>, [u8; 32])>,
    /// Has the Locks of the family.
    pub registry: Registry,
    /// The certificate (DER) of a Lock that was signed just now and has to be added.
    pub added: Option<Vec<u8>>,
    /// The key hash of a Lock to leave out.
    pub removed: Option<Hash>,
}

impl CardOrder {
    /// The Locks to choose from: `added`, those on the card now (`carried`), and the ones seen last. Certificates come
    /// from the registry, and only of Locks that still belong to the family.
    fn locks(&self, carried: &[Id]) -> Result<Vec<Certificate>, RegistryError> {
        let filter = Filter { family: Some(self.family), query: None };
        let page = self.registry.locks_page(&filter, None, AMONG)?;
        let seen = page.items.into_iter().map(|(lock, seen)| (Reverse(seen.last_seen), lock));
        // The Locks seen or added last. Their certificates tell which of them are the newest.
        let mut known: Vec<_> = seen.collect();
        known.sort_unstable();
        known.truncate(LOCKS);
        let mut locks: Vec<_> = self.added.iter().cloned().collect();
        for lock in carried.iter().copied().chain(known.into_iter().map(|(_, lock)| lock)) {
            let lock = self.registry.lock(lock)?.filter(|lock| lock.family == self.family);
            locks.extend(lock.map(|lock| lock.certificate));
        }
        let locks = locks.iter().filter_map(|der| Certificate::parse(der).ok());
        Ok(locks.filter(|lock| Some(lock.public_key().hash()) != self.removed).collect())
    }

    fn contents(&self) -> CardContents<'_> {
        let statement = self.statement.as_ref().map(|(cose, seed)| (cose.as_slice(), *seed));
        CardContents { chain: &self.chain, statement }
    }
}

/// Writes the card to a token whose management key is authenticated: 3 commands; 1 if the card is there already; 2 more
/// if the token has less space. An object that is not a card is never overwritten.
///
/// # Errors
/// [`TokenError::Transport`].
pub fn put_card(token: &mut Token, order: &CardOrder) -> Result<CardOutcome, TokenError> {
    let old = match OldCard::read(token)? {
        Ok(old) => old,
        Err(why_not) => return Ok(why_not),
    };
    match order.locks(&old.locks()) {
        Ok(locks) => old.replace(token, &order.contents(), &locks),
        Err(error) => {
            tracing::warn!(%error, "cannot read the registry; the family card is not written");
            Ok(CardOutcome::NotDue)
        }
    }
}

/// Writes the card to an issuing token that has just signed. The management key, which the PIN protects, is
/// authenticated only for this: 3 commands more than [`put_card`].
///
/// # Errors
/// [`TokenError::Transport`].
pub fn put_card_with_pin(
    token: &mut Token,
    pin: &Pin,
    order: &CardOrder,
) -> Result<CardOutcome, TokenError> {
    match unlock_for_card(token, pin)? {
        Ok(()) => put_card(token, order),
        Err(why_not) => Ok(why_not),
    }
}

#[cfg(test)]
#[path = "card_tests.rs"]
mod tests;
