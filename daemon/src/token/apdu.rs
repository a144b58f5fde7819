//! Command and response APDUs (ISO/IEC 7816-4): encoding by what the reader takes, command chaining, GET RESPONSE.

use iso7816::command::{ChainedCommandIterator, CommandBuilder, ExpectedLen, class::ZERO_CLA};
use iso7816::{Instruction, Status};
use zeroize::Zeroizing;

use super::{Limits, TokenError, Transport, TransportError};

/// The longest answer that is put together, in bytes. The largest object of any known token has 3 KB.
pub const LONGEST_ANSWER: usize = 16 * 1024;
/// GET RESPONSE commands for one answer: what [`LONGEST_ANSWER`] needs, twice.
const MOST_PIECES: usize = 2 * LONGEST_ANSWER / 256;

/// One command, before it is cut to what the reader takes.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// INS.
    pub instruction: u8,
    /// P1.
    pub p1: u8,
    /// P2.
    pub p2: u8,
    /// The data field; may hold a secret.
    pub data: &'a [u8],
    /// How much answer is expected.
    pub answer: Expected,
}

/// Le.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A status word only.
    Nothing,
    /// At most 256 bytes.
    Short,
    /// An object of any length.
    Object,
}

/// The whole answer to a command.
pub struct Answer {
    /// The data, without status words; may hold a secret.
    pub data: Zeroizing<Vec<u8>>,
    /// The last status word.
    pub status: Status,
}

impl Answer {
    /// The data, where the token said 9000.
    ///
    /// # Errors
    /// [`TokenError::Refused`].
    pub fn ok(self, command: &'static str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        match self.status {
            Status::Success => Ok(self.data),
            status => Err(TokenError::Refused { command, status: status.into() }),
        }
    }
}

/// Sends a command, in as many pieces as the reader needs, and puts the answer together.
///
/// # Errors
/// [`TokenError::Transport`]; an answer that is too short, too long or never ends is [`TransportError::Protocol`].
pub fn exchange(transport: &mut dyn Transport, command: &Command) -> Result<Answer, TokenError> {
    let mut pieces = command.encode(transport.limits())?;
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let answer = transmit(transport, &piece)?;
        if answer.status != Status::Success {
            return Ok(answer);
        }
    }
    let mut answer = transmit(transport, &last)?;
    for _ in 0..MOST_PIECES {
        let Status::MoreAvailable(length) = answer.status else { return Ok(answer) };
        let get = [0x00, Instruction::GetResponse.into(), 0, 0, length];
        let more = transmit(transport, &get)?;
        if answer.data.len() + more.data.len() > LONGEST_ANSWER {
            return Err(protocol("an answer of more than 16 KiB"));
        }
        // A new buffer each time: growing the old one would leave a copy that is not zeroized.
        answer = Answer {
            data: Zeroizing::new([&answer.data[..], &more.data[..]].concat()),
            status: more.status,
        };
    }
    Err(protocol("an answer that never ends"))
}

impl Command<'_> {
    /// The APDUs to send: one, or a chain of short ones (ISO/IEC 7816-4, 5.3.3).
    fn encode(&self, limits: Limits) -> Result<Vec<Zeroizing<Vec<u8>>>, TokenError> {
        if self.data.len() > usize::from(u16::MAX) {
            return Err(TokenError::Unsupported("more than 65,535 bytes in one command"));
        }
        let instruction = Instruction::from(self.instruction);
        let le = match self.answer {
            Expected::Nothing => ExpectedLen::Ne(0),
            Expected::Object if limits.extended => ExpectedLen::Max,
            Expected::Short | Expected::Object => ExpectedLen::Ne(256),
        };
        if limits.extended {
            let whole = CommandBuilder::new(ZERO_CLA, instruction, self.p1, self.p2, self.data, le);
            if whole.required_len() <= limits.longest_command {
                return Ok(vec![whole.serialize_to_vec().into()]);
            }
        }
        // Chains are of short APDUs even on an extended reader: those every token takes.
        let le = if self.answer == Expected::Nothing { 0 } else { 256 };
        Ok(short(instruction, self.p1, self.p2, self.data, le)
            .map(|piece| piece.serialize_to_vec().into())
            .collect())
    }
}

fn short(
    instruction: Instruction,
    p1: u8,
    p2: u8,
    data: &[u8],
    le: u16,
) -> ChainedCommandIterator<'_> {
    CommandBuilder::new_non_extended(ZERO_CLA, instruction, p1, p2, data, le, None)
}

/// One APDU there and back; asks again with the right Le where the token says 6Cxx, once.
fn transmit(transport: &mut dyn Transport, apdu: &[u8]) -> Result<Answer, TokenError> {
    let answer = split(transport.transmit(apdu)?)?;
    let Status::WrongLeField(le) = answer.status else { return Ok(answer) };
    // Only a short APDU that has an Le field can be told another one; in it Le is the last byte.
    let has_short_le =
        apdu.len() == 5 || (apdu.len() > 6 && apdu.len() == 6 + usize::from(apdu[4]));
    if !has_short_le {
        return Ok(answer);
    }
    let mut again = Zeroizing::new(apdu.to_vec());
    if let Some(last) = again.last_mut() {
        *last = le;
    }
    split(transport.transmit(&again)?)
}

fn split(mut response: Vec<u8>) -> Result<Answer, TokenError> {
    let Some((_, status)) = response.split_last_chunk::<2>() else {
        return Err(protocol("an answer without a status word"));
    };
    let status = Status::from(*status);
    response.truncate(response.len() - 2);
    Ok(Answer { data: response.into(), status })
}

fn protocol(what: &str) -> TokenError {
    TransportError::Protocol(what.to_owned()).into()
}
