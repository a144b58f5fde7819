//! Writes the family's card (`docs/formats.md`) to a token. A job does not fail if the token does not accept the card.
//!
//! A card is renewed in two steps: [`OldCard::read`] reads the card on the token, so that the caller can look up the Locks
//! that it names, and [`OldCard::replace`] writes the new one. The Locks on the token's card are unproven claims, so this
//! module returns only their ids and takes their certificates from the caller.

use keywright_proto::{
    Card, Certificate, Id,
    card::{MAX_CARD, locks_on},
};

use crate::{CardSlot, Pin, Token, TokenError};

/// The length of the card that is tried if a token rejects the full length: it has one Lock instead of four.
const SMALLER: usize = MAX_CARD / 2;

/// The result of renewing the card on a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardOutcome {
    /// The Key carries no card.
    #[default]
    NotDue,
    /// The card is on the token.
    Written,
    /// The card's place on the token holds data of another program.
    InUse,
    /// The token has no such place, or not enough room.
    NoRoom,
    /// The management key is not stored under the PIN, so this station cannot use it.
    Locked,
}

impl CardOutcome {
    /// Returns why the card is not on the token: a word for programs and a text for people.
    pub const fn why_not(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::NotDue | Self::Written => return None,
            Self::InUse => ("in-use", "5FC10D on the token holds another program's data"),
            Self::NoRoom => ("no-room", "the token has no room for it"),
            Self::Locked => ("locked", "the token's management key is not one kept under its PIN"),
        })
    }
}

/// The contents of a new card, except for the Locks.
pub struct CardContents<'a> {
    /// The Key's CA certificates, its own first, the root last.
    pub chain: &'a [Certificate],
    /// The newest statement on this Key, with its seed.
    pub statement: Option<(&'a [u8], [u8; 32])>,
}

impl CardContents<'_> {
    /// Encodes the card with as many of these Locks as fit into `room` bytes; `None` if not even the rest fits.
    pub fn card(&self, locks: &[Certificate], room: usize) -> Option<Vec<u8>> {
        Card::write(self.chain, self.statement, locks.iter().cloned(), room)
    }
}

/// The card on a token before it is replaced, if there is one.
pub struct OldCard(Option<Vec<u8>>);

impl OldCard {
    /// Reads the card. 1 command.
    ///
    /// Returns a [`CardOutcome`] if its place holds other data or cannot be read, so that no card can be written.
    pub fn read(token: &mut Token) -> Result<Result<Self, CardOutcome>, TokenError> {
        match token.read_card() {
            Ok(CardSlot::Card(card)) => Ok(Ok(Self(Some(card)))),
            Ok(CardSlot::Empty) => Ok(Ok(Self(None))),
            Ok(CardSlot::Other) => Ok(Err(CardOutcome::InUse)),
            Err(error) => not_taken(error, CardOutcome::NoRoom).map(Err),
        }
    }

    /// Returns the ids of the Locks on the card.
    pub fn locks(&self) -> Vec<Id> {
        let locks = self.0.as_deref().map(locks_on).unwrap_or_default();
        locks.iter().map(|lock| lock.public_key().id()).collect()
    }

    /// Writes a new card; needs the management key. 2 commands, none if the token has the same card already, 2 more if the
    /// token rejects the full length.
    pub fn replace(
        self,
        token: &mut Token,
        contents: &CardContents<'_>,
        locks: &[Certificate],
    ) -> Result<CardOutcome, TokenError> {
        for room in [MAX_CARD, SMALLER] {
            let Some(card) = contents.card(locks, room) else { return Ok(CardOutcome::NoRoom) };
            if self.0.as_ref() == Some(&card) {
                return Ok(CardOutcome::Written);
            }
            match token.write_card(&card) {
                Ok(()) => return Ok(CardOutcome::Written),
                Err(error) => not_taken(error, CardOutcome::NoRoom).map(drop)?,
            }
        }
        Ok(CardOutcome::NoRoom)
    }
}

/// Authenticates with the management key that is stored under the PIN, so that a card can be written. 3 commands.
///
/// Returns a [`CardOutcome`] if the key is not stored there.
pub fn unlock_for_card(
    token: &mut Token,
    pin: &Pin,
) -> Result<Result<(), CardOutcome>, TokenError> {
    match token.authenticate_protected_key(pin) {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Ok(Err(CardOutcome::Locked)),
        Err(error) => not_taken(error, CardOutcome::Locked).map(Err),
    }
}

fn not_taken(error: TokenError, carried: CardOutcome) -> Result<CardOutcome, TokenError> {
    match error {
        error @ (TokenError::Transport(_) | TokenError::SessionEnded) => Err(error),
        error => {
            tracing::warn!(%error, "the token does not accept the family's card");
            Ok(carried)
        }
    }
}
