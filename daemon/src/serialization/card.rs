//! The family's card (`docs/formats.md`) on its way to a token: what goes on it, and what became of it. Nobody's job fails
//! for a card that a token does not take.

use std::cmp::Reverse;

use keywright_proto::{
    Card, Certificate, Id,
    card::{MAX_CARD, locks_on},
    tree::Hash,
};

use crate::{
    registry::{Filter, Registry, RegistryError},
    token::{CardSlot, Pin, Token, TokenError},
};

/// What is tried where a token does not take a card of the full length: three of its four Locks less.
const SMALLER: usize = MAX_CARD / 2;
/// How many Locks are offered to a card: more than any has room for.
const LOCKS: usize = 16;
/// Among how many the newest are looked for. In a family of more they are those among these, and those that the card
/// carries already: so it follows what its own Key adds, and costs no more however large the family is.
const AMONG: usize = 1000;

/// What became of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carried {
    /// This Key carries none.
    #[default]
    NotDue,
    /// It is on the token.
    Written,
    /// The token has something of another program in its place.
    InUse,
    /// It has no place for it, or not enough room.
    NoRoom,
    /// The management key is not one that this station may use.
    Locked,
}

impl Carried {
    /// Why it is not on the token: a word for programs, and one for people.
    pub const fn why_not(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::NotDue | Self::Written => return None,
            Self::InUse => ("in-use", "5FC10D on the token holds another program's data"),
            Self::NoRoom => ("no-room", "the token has no room for it"),
            Self::Locked => ("locked", "the token's management key is not one kept under its PIN"),
        })
    }
}

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
    /// What is there to choose from, beside what the Key's card carries already. Of a Lock on that card the certificate
    /// is the registry's, and only where it still is a Lock of the family.
    fn locks(&self, card: Option<&[u8]>) -> Result<Vec<Certificate>, RegistryError> {
        let filter = Filter { family: Some(self.family), query: None };
        let page = self.registry.locks_page(&filter, None, AMONG)?;
        let seen = page.items.into_iter().map(|(lock, seen)| (Reverse(seen.last_seen), lock));
        // Those that were heard of last, or added: which of them are the newest their certificates say.
        let mut known: Vec<_> = seen.collect();
        known.sort_unstable();
        known.truncate(LOCKS);
        let carried = card.map(locks_on).unwrap_or_default();
        let carried = carried.iter().map(|lock| lock.public_key().id());
        let mut locks: Vec<_> = self.added.iter().cloned().collect();
        for lock in carried.chain(known.into_iter().map(|(_, lock)| lock)) {
            let lock = self.registry.lock(lock)?.filter(|lock| lock.family == self.family);
            locks.extend(lock.map(|lock| lock.certificate));
        }
        let locks = locks.iter().filter_map(|der| Certificate::parse(der).ok());
        Ok(locks.filter(|lock| Some(lock.public_key().hash()) != self.removed).collect())
    }

    fn card(&self, locks: &[Certificate], room: usize) -> Option<Vec<u8>> {
        let statement = self.statement.as_ref().map(|(cose, seed)| (cose.as_slice(), *seed));
        Card::write(&self.chain, statement, locks.iter().cloned(), room)
    }
}

/// Puts a card on a token whose management key was authenticated: 3 commands, 1 where it is there already, 2 more where
/// the token has less room. What is not a card is never overwritten.
///
/// # Errors
/// [`TokenError::Transport`].
pub fn put_card(token: &mut Token, order: &CardOrder) -> Result<Carried, TokenError> {
    let found = match token.read_card() {
        Ok(found) => found,
        Err(error) => return not_taken(error, Carried::NoRoom),
    };
    let old = match found {
        CardSlot::Other => return Ok(Carried::InUse),
        CardSlot::Empty => None,
        CardSlot::Card(card) => Some(card),
    };
    let locks = match order.locks(old.as_deref()) {
        Ok(locks) => locks,
        Err(error) => {
            tracing::warn!(%error, "there is no family card");
            return Ok(Carried::NotDue);
        }
    };
    for room in [MAX_CARD, SMALLER] {
        let Some(card) = order.card(&locks, room) else { return Ok(Carried::NoRoom) };
        if old.as_ref() == Some(&card) {
            return Ok(Carried::Written);
        }
        match token.write_card(&card) {
            Ok(()) => return Ok(Carried::Written),
            Err(error) => not_taken(error, Carried::NoRoom).map(drop)?,
        }
    }
    Ok(Carried::NoRoom)
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
) -> Result<Carried, TokenError> {
    match token.authenticate_kept_key(pin) {
        Ok(true) => put_card(token, order),
        Ok(false) => Ok(Carried::Locked),
        Err(error) => not_taken(error, Carried::Locked),
    }
}

fn not_taken(error: TokenError, carried: Carried) -> Result<Carried, TokenError> {
    match error {
        error @ (TokenError::Transport(_) | TokenError::SessionEnded) => Err(error),
        error => {
            tracing::warn!(%error, "the token does not take the family's card");
            Ok(carried)
        }
    }
}

#[cfg(test)]
#[path = "card_tests.rs"]
mod tests;
