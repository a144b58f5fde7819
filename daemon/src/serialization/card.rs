//! The Locks on a family's card (`docs/formats.md`): which ones a card is given, out of all that the registry has.

use std::cmp::Reverse;

use keywright_proto::{Certificate, Id, tree::Hash};
use keywright_token::{CardContents, OldCard, Pin, Token, TokenError, unlock_for_card};

use crate::registry::{Filter, Registry, RegistryError};

pub use keywright_token::CardOutcome;

/// How many Locks are offered to a card: more than any has room for.
const LOCKS: usize = 16;
/// Among how many the newest are looked for. In a family of more they are those among these, and those that the card
/// carries already: so it follows what its own Key adds, and costs no more however large the family is.
const AMONG: usize = 1000;

/// What goes on a card.
#[derive(Clone)]
pub struct CardOrder {
    /// The family.
    pub family: Id,
    /// The Key's CA certificates, its own first, the root last.
    pub chain: Vec<Certificate>,
    /// The newest statement on it, with its seed.
    pub statement: Option<(Vec<u8>, [u8; 32])>,
    /// The Locks that are known.
    pub registry: Registry,
    /// One more, whose certificate (DER) was signed just now.
    pub added: Option<Vec<u8>>,
    /// One less: its key hash.
    pub removed: Option<Hash>,
}

impl CardOrder {
    /// The Locks to choose from, beside those that the Key's card names already: `carried`. The certificate of one of
    /// those is the registry's, and it is taken only if it still is a Lock of the family.
    fn locks(&self, carried: &[Id]) -> Result<Vec<Certificate>, RegistryError> {
        let filter = Filter { family: Some(self.family), query: None };
        let page = self.registry.locks_page(&filter, None, AMONG)?;
        let seen = page.items.into_iter().map(|(lock, seen)| (Reverse(seen.last_seen), lock));
        // Those that were heard of last, or added: which of them are the newest their certificates say.
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

/// Puts a card on a token whose management key was authenticated: 3 commands, 1 where it is there already, 2 more where
/// the token has less room. What is not a card is never overwritten.
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
            tracing::warn!(%error, "there is no family card");
            Ok(CardOutcome::NotDue)
        }
    }
}

/// The same for an issuing token that has just signed: its management key, which the PIN keeps, is authenticated for this
/// alone. 3 commands more.
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
