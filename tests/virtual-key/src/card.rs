//! The card layer between a reader and the firmware's PIV application: SELECT, command chaining and
//! GET RESPONSE (ISO 7816-4, 5.3), with the limits and status words of the product.

use std::{cell::RefCell, thread, time::Duration};

use iso7816::{
    Data, Instruction, Status,
    command::{Command, CommandView},
};
use piv_authenticator::{Authenticator, Client, constants::PIV_AID};

use crate::habits::Habits;

/// Longest command data and longest answer in bytes, as in the product.
const MAX_LEN: usize = 7609;
/// Slot of the management key, which is not a private key.
const MANAGEMENT_KEY: u8 = 0x9B;

/// A card with one application.
pub struct Card<T> {
    piv: Authenticator<T>,
    habits: Habits,
    selected: bool,
    /// Pieces of a chained command received so far.
    pieces: Option<Box<Command<MAX_LEN>>>,
    /// Part of the last answer that was not fetched yet.
    unread: Vec<u8>,
    private_key_delay: Duration,
}

impl<T: Client> Card<T> {
    /// Makes a card that delays each use of a private key by this time.
    pub fn new(piv: Authenticator<T>, private_key_delay: Duration, habits: Habits) -> Self {
        Self { piv, habits, selected: false, pieces: None, unread: Vec::new(), private_key_delay }
    }

    /// Executes a command APDU; the answer ends with the status word.
    pub fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        let answer = match (self.habits.refuses(command), CommandView::try_from(command)) {
            (Some(status), _) => Err(status),
            (None, Ok(command)) => self.receive(command),
            (None, Err(_)) => Err(Status::UnspecifiedCheckingError),
        };
        answer.unwrap_or_else(|status| {
            self.unread.clear();
            self.pieces = None;
            u16::from(status).to_be_bytes().into()
        })
    }

    fn receive(&mut self, command: CommandView<'_>) -> Result<Vec<u8>, Status> {
        let expected = command.expected();
        if command.instruction() == Instruction::GetResponse {
            if self.unread.is_empty() {
                return Err(Status::UnspecifiedCheckingError);
            }
            return Ok(self.next_piece(expected));
        }
        let not_the_last = command.class().chain().not_the_last();
        if self.pieces.is_none() && !not_the_last {
            self.unread = self.execute(command)?;
            return Ok(self.next_piece(expected));
        }
        self.habits.piece(command);
        let whole = match self.pieces.take() {
            None => Box::new(command.to_owned().map_err(|_| Status::WrongLength)?),
            Some(mut pieces) => {
                pieces.extend_from_command_view(command).map_err(|_| Status::NotEnoughMemory)?;
                pieces
            }
        };
        if not_the_last {
            self.pieces = Some(whole);
            return Ok(u16::from(Status::Success).to_be_bytes().into());
        }
        self.unread = self.execute(whole.as_view())?;
        Ok(self.next_piece(expected))
    }

    fn execute(&mut self, command: CommandView<'_>) -> Result<Vec<u8>, Status> {
        if command.instruction() == Instruction::Select && command.p1 & 0x04 != 0 {
            // Selecting another application would deselect PIV, which this firmware ignores.
            self.selected = PIV_AID.matches(command.data());
        }
        if !self.selected {
            return Err(Status::NotFound);
        }
        let piv = RefCell::new(&mut self.piv);
        let respond = |command: CommandView<'_>| {
            let mut answer = Box::new(Data::<MAX_LEN>::new());
            piv.borrow_mut().respond(command, &mut *answer)?;
            Ok(answer.to_vec())
        };
        let mut of_bytes = |command: &[u8]| {
            let command = CommandView::try_from(command);
            respond(command.map_err(|_| Status::UnspecifiedCheckingError)?)
        };
        let answer = self.habits.execute(command, &mut of_bytes, || respond(command))?;
        let uses_private_key = match command.instruction() {
            Instruction::GenerateAsymmetricKeyPair => true,
            Instruction::GeneralAuthenticate => command.p2 != MANAGEMENT_KEY,
            _ => false,
        };
        if uses_private_key {
            thread::sleep(self.private_key_delay);
        }
        Ok(answer)
    }

    /// Returns at most `expected` unread bytes, with status 61xx if more remain.
    fn next_piece(&mut self, expected: usize) -> Vec<u8> {
        let rest = self.unread.split_off(expected.min(self.unread.len()));
        let mut piece = std::mem::replace(&mut self.unread, rest);
        let status = match self.unread.len() {
            0 => 0x9000,
            left => 0x6100 | u16::try_from(left).ok().filter(|left| *left < 256).unwrap_or(0),
        };
        piece.extend(status.to_be_bytes());
        piece
    }
}
