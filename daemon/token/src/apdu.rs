//! Encodes command APDUs and assembles responses (ISO/IEC 7816-4), with command chaining and GET RESPONSE.

use iso7816::command::{ChainedCommandIterator, CommandBuilder, ExpectedLen, class::ZERO_CLA};
use iso7816::{Instruction, Status};
use zeroize::Zeroizing;

use super::{Limits, TokenError, Transport, TransportError};

/// The longest response that is assembled, in bytes. The largest object of any known token has 3 KB.
pub const MAX_RESPONSE: usize = 16 * 1024;
/// GET RESPONSE commands for one response: twice as many as [`MAX_RESPONSE`] needs.
const MAX_GET_RESPONSES: usize = 2 * MAX_RESPONSE / 256;

/// One command, before it is split into APDUs that the reader accepts.
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
    /// The expected length of the response.
    pub expected: ExpectedLength,
}

/// The expected length of a response (Le).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedLength {
    /// A status word only.
    Nothing,
    /// At most 256 bytes.
    Short,
    /// An object of any length.
    Object,
}

/// The whole response to a command.
pub struct Response {
    /// The data, without status words; may hold a secret.
    pub data: Zeroizing<Vec<u8>>,
    /// The last status word.
    pub status: Status,
}

impl Response {
    /// Returns the data if the status is 9000.
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

/// Sends a command, split into as many APDUs as the reader needs, and assembles the response.
///
/// A token that refuses extended APDUs, which its reader accepts, gets short ones from then on: `limits` remembers that.
///
/// # Errors
/// [`TransportError::Protocol`] if the response has no status word, is too long or never ends.
pub fn exchange(
    transport: &mut dyn Transport,
    limits: &mut Limits,
    command: &Command,
) -> Result<Response, TokenError> {
    let mut pieces = command.encode(*limits)?;
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let answer = transmit(transport, &piece)?;
        if answer.status != Status::Success {
            return Ok(answer);
        }
    }
    let mut answer = transmit(transport, &last)?;
    if answer.status == Status::WrongLength && is_extended(&last) {
        limits.extended = false;
        return exchange(transport, limits, command);
    }
    for _ in 0..MAX_GET_RESPONSES {
        let Status::MoreAvailable(length) = answer.status else { return Ok(answer) };
        let get = [0x00, Instruction::GetResponse.into(), 0, 0, length];
        let more = transmit(transport, &get)?;
        if answer.data.len() + more.data.len() > MAX_RESPONSE {
            return Err(protocol("an answer of more than 16 KiB"));
        }
        // A new buffer each time, because growing the old one would leave a copy that is not zeroized.
        answer = Response {
            data: Zeroizing::new([&answer.data[..], &more.data[..]].concat()),
            status: more.status,
        };
    }
    Err(protocol("an answer that never ends"))
}

impl Command<'_> {
    /// Returns the APDUs to send: one, or a chain of short ones (ISO/IEC 7816-4, 5.3.3).
    fn encode(&self, limits: Limits) -> Result<Vec<Zeroizing<Vec<u8>>>, TokenError> {
        if self.data.len() > usize::from(u16::MAX) {
            return Err(TokenError::Unsupported("more than 65,535 bytes in one command"));
        }
        let instruction = Instruction::from(self.instruction);
        let le = match self.expected {
            ExpectedLength::Nothing => ExpectedLen::Ne(0),
            ExpectedLength::Object if limits.extended => ExpectedLen::Max,
            ExpectedLength::Short | ExpectedLength::Object => ExpectedLen::Ne(256),
        };
        if limits.extended {
            let whole = CommandBuilder::new(ZERO_CLA, instruction, self.p1, self.p2, self.data, le);
            if whole.required_len() <= limits.longest_command {
                return Ok(vec![whole.serialize_to_vec().into()]);
            }
        }
        // Every token accepts short APDUs in a chain, so they are used on an extended reader too.
        let le = if self.expected == ExpectedLength::Nothing { 0 } else { 256 };
        Ok(short(instruction, self.p1, self.p2, self.data, le)
            .map(|piece| piece.serialize_to_vec().into())
            .collect())
    }
}

/// Whether the length fields have three and two bytes (ISO/IEC 7816-4, 5.1).
fn is_extended(apdu: &[u8]) -> bool {
    apdu.len() > 5 && apdu[4] == 0
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

/// Sends one APDU, and once more with the right Le if the token answers 6Cxx (wrong Le).
fn transmit(transport: &mut dyn Transport, apdu: &[u8]) -> Result<Response, TokenError> {
    let answer = split(transport.transmit(apdu)?)?;
    let Status::WrongLeField(le) = answer.status else { return Ok(answer) };
    // Only in a short APDU with an Le field is Le the last byte.
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

fn split(mut response: Vec<u8>) -> Result<Response, TokenError> {
    let Some((_, status)) = response.split_last_chunk::<2>() else {
        return Err(protocol("an answer without a status word"));
    };
    let status = Status::from(*status);
    response.truncate(response.len() - 2);
    Ok(Response { data: response.into(), status })
}

fn protocol(what: &str) -> TokenError {
    TransportError::Protocol(what.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{EXTENDED, SHORT, Scripted, Step};
    use super::*;
    use proptest::prelude::*;

    fn command(data: &[u8], expected: ExpectedLength) -> Command<'_> {
        Command { instruction: 0xCB, p1: 0x3F, p2: 0xFF, data, expected }
    }

    #[test]
    fn commands_are_encoded_for_the_reader() {
        use ExpectedLength::{Nothing, Object, Short};
        for (limits, data, answer, expected) in [
            (EXTENDED, &[][..], Nothing, "00cb3fff"),
            (EXTENDED, &[], Short, "00cb3fff00"),
            (EXTENDED, &[], Object, "00cb3fff000000"),
            (EXTENDED, &[1, 2], Nothing, "00cb3fff020102"),
            (EXTENDED, &[1, 2], Short, "00cb3fff02010200"),
            (EXTENDED, &[1, 2], Object, "00cb3fff00000201020000"),
            (SHORT, &[], Object, "00cb3fff00"),
            (SHORT, &[1, 2], Object, "00cb3fff02010200"),
        ] {
            let apdus = command(data, answer).encode(limits).unwrap();
            let apdus: Vec<_> = apdus.iter().map(|apdu| hex::encode(&**apdu)).collect();
            assert_eq!(apdus, [expected], "{limits:?} {data:?} {answer:?}");
        }
    }

    #[test]
    fn oversized_command_data_is_refused() {
        let too_long = vec![0; 65_536];
        let error = command(&too_long, ExpectedLength::Nothing).encode(EXTENDED).err();
        assert!(matches!(error, Some(TokenError::Unsupported(_))));
    }

    /// Each row: the APDUs exchanged for one GET DATA, and the result.
    #[test]
    fn responses_are_assembled() {
        let fits = |steps: &[Step]| {
            let mut token = Scripted::new(SHORT, steps.iter().cloned());
            let answer =
                exchange(&mut token, &mut SHORT.clone(), &command(&[9], ExpectedLength::Object));
            assert!(token.is_done(), "{steps:?}");
            answer.map(|a| (hex::encode(&*a.data), a.status.to_u16())).map_err(|e| e.to_string())
        };
        const GET: &str = "00cb3fff010900";
        let ok = |data: &str, status| Ok((data.to_owned(), status));
        let broken = |what: &str| Err(TransportError::Protocol(what.to_owned()).to_string());
        for (steps, expected) in [
            (&[(GET, Ok("aabb9000"))][..], ok("aabb", 0x9000)),
            (&[(GET, Ok("6f00"))], ok("", 0x6F00)),
            (&[(GET, Ok("6983"))], ok("", 0x6983)),
            // Wrong Le.
            (&[(GET, Ok("6c02")), ("00cb3fff010902", Ok("aabb9000"))], ok("aabb", 0x9000)),
            (&[(GET, Ok("6c02")), ("00cb3fff010902", Ok("6c02"))], ok("", 0x6C02)),
            // GET RESPONSE.
            (&[(GET, Ok("aa6101")), ("00c0000001", Ok("bb9000"))], ok("aabb", 0x9000)),
            (&[(GET, Ok("6100")), ("00c0000000", Ok("bb6982"))], ok("bb", 0x6982)),
            (
                &[(GET, Ok("6105")), ("00c0000005", Ok("6c01")), ("00c0000001", Ok("bb9000"))],
                ok("bb", 0x9000),
            ),
            // Wrong lengths.
            (&[(GET, Ok(""))], broken("an answer without a status word")),
            (&[(GET, Ok("90"))], broken("an answer without a status word")),
            (
                &[(GET, Ok("6101")), ("00c0000001", Ok(""))],
                broken("an answer without a status word"),
            ),
            // Timeout and unplug, at any APDU.
            (&[(GET, Err(TransportError::Timeout))], Err(TransportError::Timeout.to_string())),
            (
                &[(GET, Ok("6101")), ("00c0000001", Err(TransportError::Gone))],
                Err(TransportError::Gone.to_string()),
            ),
        ] {
            assert_eq!(fits(steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn token_that_refuses_extended_apdus_gets_short_ones_from_then_on() {
        let (extended, short) = ("00cb3fff00000109 0000", "00cb3fff010900");
        let steps = [(extended, Ok("6700")), (short, Ok("aa9000")), (short, Ok("6700"))];
        let mut token = Scripted::new(EXTENDED, steps);
        let mut limits = EXTENDED;
        for status in [0x9000, 0x6700] {
            let command = command(&[9], ExpectedLength::Object);
            let answer = exchange(&mut token, &mut limits, &command).unwrap();
            assert_eq!(answer.status.to_u16(), status);
        }
        assert!(token.is_done());
    }

    /// A token that always announces more: 0 or 256 bytes each time.
    struct Endless(usize);

    impl Transport for Endless {
        fn transmit(&mut self, _: &[u8]) -> Result<Vec<u8>, TransportError> {
            Ok([&vec![7; self.0][..], &[0x61, 0]].concat())
        }

        fn limits(&self) -> Limits {
            SHORT
        }
    }

    #[test]
    fn endless_responses_are_cut_off() {
        for (piece, expected) in
            [(0, "an answer that never ends"), (256, "an answer of more than 16 KiB")]
        {
            let command = command(&[], ExpectedLength::Object);
            let error = exchange(&mut Endless(piece), &mut SHORT.clone(), &command).err();
            assert_eq!(error, Some(protocol(expected)), "{piece}");
        }
    }

    #[test]
    fn refused_chain_is_not_continued() {
        let data = vec![7; 300];
        let mut token = Scripted::new(SHORT, [("10cb3fff..", Ok("6884"))]);
        let command = command(&data, ExpectedLength::Nothing);
        let answer = exchange(&mut token, &mut SHORT.clone(), &command).unwrap();
        assert_eq!(answer.status.to_u16(), 0x6884);
    }

    proptest! {
        /// Every APDU fits the reader, and together they carry the data.
        #[test]
        fn chained_commands_carry_all_data(
            data in prop::collection::vec(any::<u8>(), 0..4000),
            extended: bool,
            longest_command in 261..3062_usize,
        ) {
            let limits = Limits { extended, longest_command };
            let pieces = command(&data, ExpectedLength::Object).encode(limits).unwrap();
            let mut sum = Vec::new();
            for (n, piece) in pieces.iter().enumerate() {
                prop_assert!(piece.len() <= longest_command);
                let parsed = iso7816::Command::<4096>::try_from(piece).unwrap();
                let is_last = n + 1 == pieces.len();
                prop_assert_eq!(parsed.class().chain().last_or_only(), is_last);
                sum.extend_from_slice(parsed.data());
            }
            prop_assert_eq!(sum, data);
        }
    }
}
