//! The family's card (`docs/formats.md`) on its way to a token. Nothing else fails for a card that a token does not take.
//!
//! A card is renewed in two steps: [`OldCard::read`] reads the one on the token, so that the caller can look up the Locks
//! that it names, and [`OldCard::replace`] writes the new one. What the token's card says of Locks is a claim: this module
//! hands out their ids only, and takes certificates from the caller.

use keywright_proto::{
    Card, Certificate, Id,
    card::{MAX_CARD, locks_on},
};

use crate::{CardSlot, Pin, Token, TokenError};

/// What is tried where a token does not take a card of the full length: three of its four Locks less.
const SMALLER: usize = MAX_CARD / 2;

/// What became of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardOutcome {
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

impl CardOutcome {
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

/// What a new card says, beside the Locks.
pub struct CardContents<'a> {
    /// The Key's CA certificates, its own first, the root last.
    pub chain: &'a [Certificate],
    /// The newest statement on it, with its seed.
    pub statement: Option<(&'a [u8], [u8; 32])>,
}

impl CardContents<'_> {
    /// The card's bytes, with as many of these Locks as fit into `room` bytes; `None` where nothing fits.
    pub fn card(&self, locks: &[Certificate], room: usize) -> Option<Vec<u8>> {
        Card::write(self.chain, self.statement, locks.iter().cloned(), room)
    }
}

/// The card that is on a token now, if there is one: what a new one takes the place of.
pub struct OldCard(Option<Vec<u8>>);

impl OldCard {
    /// Reads it; answers why there will be no new one where the token holds something else in its place, or does not let
    /// it be read. 1 command.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
    pub fn read(token: &mut Token) -> Result<Result<Self, CardOutcome>, TokenError> {
        match token.read_card() {
            Ok(CardSlot::Card(card)) => Ok(Ok(Self(Some(card)))),
            Ok(CardSlot::Empty) => Ok(Ok(Self(None))),
            Ok(CardSlot::Other) => Ok(Err(CardOutcome::InUse)),
            Err(error) => not_taken(error, CardOutcome::NoRoom).map(Err),
        }
    }

    /// The Locks that it names.
    pub fn locks(&self) -> Vec<Id> {
        let locks = self.0.as_deref().map(locks_on).unwrap_or_default();
        locks.iter().map(|lock| lock.public_key().id()).collect()
    }

    /// Puts a new card on the token, whose management key was authenticated: 2 commands, none where the same card is there
    /// already, 2 more where the token has less room.
    ///
    /// # Errors
    /// [`TokenError::Transport`].
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

/// Authenticates the management key that the PIN keeps, so that a card can be written; answers why there will be none where
/// it is not kept so. 3 commands.
///
/// # Errors
/// [`TokenError::Transport`].
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
            tracing::warn!(%error, "the token does not take the family's card");
            Ok(carried)
        }
    }
}
