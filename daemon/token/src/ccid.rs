//! Encodes and decodes CCID messages (USB Device Class: Smart Card CCID, revision 1.1). Nothing here does I/O.
//!
//! Numbers in parentheses are sections of that specification.

use zeroize::Zeroizing;

use super::{Limits, TransportError};

/// The header of every message, in bytes.
pub const HEADER: usize = 10;
const DESCRIPTOR_TYPE: u8 = 0x21;
const DESCRIPTOR_LENGTH: usize = 54;
/// The smallest `dwMaxCCIDMessageLength` that is accepted: a header and the largest short command APDU (5.1).
const MIN_MESSAGE: usize = HEADER + 261;
/// The longest message that is sent: a header and the largest extended command APDU.
const MAX_MESSAGE: usize = HEADER + 65_544;
/// A `dwMaxCCIDMessageLength` above this is taken for a broken descriptor.
const MAX_CLAIMED_MESSAGE: usize = 1 << 20;
/// The longest answer to reset (ISO/IEC 7816-3, 8.2).
const MAX_ATR: usize = 33;
/// A response APDU has at most 65,536 bytes and a status word.
const MAX_RESPONSE: usize = 65_538;

const POWER_ON: u8 = 0x62;
const POWER_OFF: u8 = 0x63;
const TRANSFER: u8 = 0x6F;
const ABORT: u8 = 0x72;
const DATA_BLOCK: u8 = 0x80;
const SLOT_STATUS: u8 = 0x81;
/// `wLevelParameter` that requests the next part of a chained response (6.1.4).
const NEXT_PIECE: u16 = 0x0010;

/// The properties of a reader from its class descriptor (5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The longest message, in bytes, header included.
    pub longest_message: usize,
    /// The reader exchanges extended-length APDUs.
    pub extended: bool,
    /// The `bPowerSelect` that powers the token on (6.1.1).
    pub power: u8,
}

impl Reader {
    /// Finds and reads the class descriptor among an interface's extra descriptors.
    ///
    /// # Errors
    /// [`TransportError::Unusable`] if there is none, or if the reader does not exchange APDUs.
    pub fn parse(mut descriptors: &[u8]) -> Result<Self, TransportError> {
        while let [length, kind, ..] = *descriptors {
            let length = usize::from(length);
            if length < 2 || length > descriptors.len() {
                break;
            }
            let (descriptor, rest) = descriptors.split_at(length);
            if kind == DESCRIPTOR_TYPE && length >= DESCRIPTOR_LENGTH {
                return Self::from_descriptor(descriptor);
            }
            descriptors = rest;
        }
        Err(TransportError::Unusable("its reader has no CCID descriptor".into()))
    }

    fn from_descriptor(descriptor: &[u8]) -> Result<Self, TransportError> {
        let word = |at: usize| {
            descriptor[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let features = word(40);
        let extended = match features & 0x7_0000 {
            0x4_0000 => true,
            0x2_0000 => false,
            0x1_0000 => return Err(unusable("its reader exchanges TPDUs, not APDUs")),
            _ => return Err(unusable("its reader exchanges characters, not APDUs")),
        };
        let automatic_voltage = features & 0x08 != 0;
        let power = match descriptor[5] {
            _ if automatic_voltage => 0,
            voltages if voltages & 1 != 0 => 1,
            voltages if voltages & 2 != 0 => 2,
            voltages if voltages & 4 != 0 => 3,
            _ => 0,
        };
        let longest = usize::try_from(word(44)).unwrap_or(usize::MAX);
        if !(MIN_MESSAGE..=MAX_CLAIMED_MESSAGE).contains(&longest) {
            return Err(unusable("its reader's longest message has a length that none can have"));
        }
        Ok(Reader { longest_message: longest.min(MAX_MESSAGE), extended, power })
    }

    /// The APDU sizes that the reader accepts.
    pub fn limits(&self) -> Limits {
        Limits { extended: self.extended, longest_command: self.longest_message - HEADER }
    }
}

fn unusable(why: &str) -> TransportError {
    TransportError::Unusable(why.into())
}

/// `PC_to_RDR_IccPowerOn` (6.1.1).
pub fn power_on(sequence: u8, power: u8) -> Zeroizing<Vec<u8>> {
    message(POWER_ON, sequence, [power, 0, 0], &[])
}

/// Checks the length of the answer to reset (ISO/IEC 7816-3, 8.2) that a card sends when it is powered on.
///
/// # Errors
/// [`TransportError::Unusable`] if it is too long.
pub fn check_atr(bytes: &[u8]) -> Result<(), TransportError> {
    match bytes.len() {
        0..=MAX_ATR => Ok(()),
        _ => Err(unusable("its answer to reset is longer than any can be")),
    }
}

/// `PC_to_RDR_IccPowerOff` (6.1.2).
pub fn power_off(sequence: u8) -> Zeroizing<Vec<u8>> {
    message(POWER_OFF, sequence, [0; 3], &[])
}

/// `PC_to_RDR_XfrBlock` with a whole command APDU (6.1.4).
pub fn transfer(sequence: u8, apdu: &[u8]) -> Zeroizing<Vec<u8>> {
    message(TRANSFER, sequence, [0; 3], apdu)
}

/// `PC_to_RDR_Abort` (6.1.13).
pub fn abort(sequence: u8) -> Zeroizing<Vec<u8>> {
    message(ABORT, sequence, [0; 3], &[])
}

fn message(kind: u8, sequence: u8, specific: [u8; 3], data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(HEADER + data.len()));
    message.push(kind);
    // A command APDU has at most 65,544 bytes, so the cast is exact.
    message.extend_from_slice(&(data.len() as u32).to_le_bytes());
    // Slot 0, because a USB token has no other.
    message.extend_from_slice(&[0, sequence]);
    message.extend_from_slice(&specific);
    message.extend_from_slice(data);
    message
}

/// Returns the length of the whole message that begins with this header.
///
/// # Errors
/// [`TransportError::Protocol`] if the header is incomplete or announces more than `longest` bytes.
pub fn message_length(bytes: &[u8], longest: usize) -> Result<usize, TransportError> {
    let [_, a, b, c, d, _, _, _, _, _, ..] = *bytes else {
        return Err(protocol("a CCID message without a whole header"));
    };
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    match length.checked_add(HEADER) {
        Some(length) if length <= longest => Ok(length),
        _ => Err(protocol("a CCID message longer than its descriptor allows")),
    }
}

/// What to do after a message was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Read again: the token asked for more time, or the message answers an older command.
    Read,
    /// Send this, then read again.
    Send(Zeroizing<Vec<u8>>),
    /// The response is complete.
    Done(Vec<u8>),
}

/// The exchange of one command: takes messages until the response is complete.
#[derive(Debug)]
pub struct Exchange {
    sequence: u8,
    answer: Vec<u8>,
}

impl Exchange {
    /// Starts the exchange of the command with this sequence number.
    pub fn new(sequence: u8) -> Self {
        Exchange { sequence, answer: Vec::new() }
    }

    /// The sequence number of the last message that was sent.
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Handles one whole message from the reader (6.2).
    ///
    /// # Errors
    /// [`TransportError::Unusable`] if no card is in the reader; [`TransportError::Protocol`].
    pub fn receive(&mut self, message: &[u8]) -> Result<Next, TransportError> {
        let [kind, _, _, _, _, slot, sequence, status, error, chain, ref data @ ..] = *message
        else {
            return Err(protocol("a CCID message without a whole header"));
        };
        if slot != 0 {
            return Err(protocol("a CCID message of another slot"));
        }
        if sequence != self.sequence {
            return Ok(Next::Read);
        }
        match status >> 6 {
            0 => {}
            2 => return Ok(Next::Read),
            _ if status & 3 == 2 => return Err(unusable("no card is in its reader")),
            _ => return Err(protocol(&format!("CCID error {error:02X}"))),
        }
        if message_length(message, message.len())? != message.len() {
            return Err(protocol("a CCID message of another length than it says"));
        }
        match (kind, chain) {
            (SLOT_STATUS, _) => Ok(Next::Done(Vec::new())),
            (DATA_BLOCK, 0..=3) => {
                if self.answer.len() + data.len() > MAX_RESPONSE {
                    return Err(protocol("an answer that never ends"));
                }
                self.answer.extend_from_slice(data);
                if chain == 0 || chain == 2 {
                    return Ok(Next::Done(std::mem::take(&mut self.answer)));
                }
                self.sequence = self.sequence.wrapping_add(1);
                let [low, high] = NEXT_PIECE.to_le_bytes();
                Ok(Next::Send(self::message(TRANSFER, self.sequence, [0, low, high], &[])))
            }
            _ => Err(protocol(&format!("a CCID message of type {kind:02X}, chain {chain:02X}"))),
        }
    }
}

/// Whether this message ends an abort (6.1.13): the slot status with its sequence number. Any other message is older.
pub fn ends_abort(message: &[u8], aborted: u8) -> bool {
    matches!(*message, [SLOT_STATUS, _, _, _, _, 0, sequence, ..] if sequence == aborted)
}

fn protocol(what: &str) -> TransportError {
    TransportError::Protocol(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(features: u32, longest: u32, voltages: u8) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR_LENGTH];
        bytes[..2].copy_from_slice(&[54, 0x21]);
        bytes[5] = voltages;
        bytes[40..44].copy_from_slice(&features.to_le_bytes());
        bytes[44..48].copy_from_slice(&longest.to_le_bytes());
        bytes
    }

    #[test]
    fn class_descriptors_are_parsed() {
        for (features, longest, voltages, expected) in [
            (0x4_0040, 3072, 7, Ok((3072, true, 1))),
            (0x4_0008, 1352, 7, Ok((1352, true, 0))),
            (0x2_0000, 271, 2, Ok((271, false, 2))),
            (0x2_0000, 271, 4, Ok((271, false, 3))),
            (0x4_0000, 0x1_0100, 0, Ok((65_554, true, 0))),
            (0x4_0000, 0, 7, Err("its reader's longest message has a length that none can have")),
            (
                0x4_0000,
                u32::MAX,
                7,
                Err("its reader's longest message has a length that none can have"),
            ),
            (0x1_0000, 271, 7, Err("its reader exchanges TPDUs, not APDUs")),
            (0, 271, 7, Err("its reader exchanges characters, not APDUs")),
        ] {
            let reader = Reader::parse(&descriptor(features, longest, voltages));
            let expected = expected
                .map(|(longest_message, extended, power)| Reader {
                    longest_message,
                    extended,
                    power,
                })
                .map_err(unusable);
            assert_eq!(reader, expected, "{features:X} {longest}");
        }
    }

    #[test]
    fn class_descriptor_is_found_among_others() {
        let ccid = descriptor(0x4_0000, 3072, 1);
        let after_another = [&[4, 0x24, 1, 2][..], &ccid].concat();
        assert!(Reader::parse(&after_another).is_ok());
        for wrong in [&[][..], &[0, 0x21], &[54, 0x21, 1], &ccid[..53], &[2, 0x21]] {
            assert!(matches!(Reader::parse(wrong), Err(TransportError::Unusable(_))), "{wrong:?}");
        }
    }

    #[test]
    fn messages_are_encoded() {
        for (message, expected) in [
            (power_on(1, 0), "62000000000001000000"),
            (power_on(1, 2), "62000000000001020000"),
            (power_off(2), "63000000000002000000"),
            (transfer(3, &[0, 0xA4, 4, 0]), "6f04000000000300000000a40400"),
            (abort(4), "72000000000004000000"),
        ] {
            assert_eq!(hex::encode(&*message), expected);
        }
    }

    /// Each row: the messages that come in for command 7, and what the last of them leads to.
    #[test]
    fn responses_are_assembled() {
        let done = |hex_data: &str| Ok(Next::Done(hex::decode(hex_data).unwrap()));
        let next = |message: &str| Ok(Next::Send(hex::decode(message).unwrap().into()));
        let wrong = |what: &str| Err(protocol(what));
        for (messages, expected) in [
            (&["800200000000070000009000"][..], done("9000")),
            (&["81000000000007000000"], done("")),
            // More time, then the answer.
            (&["80000000000007800000"], Ok(Next::Read)),
            (&["80000000000007800000", "800200000000070000009000"], done("9000")),
            // An answer to an older command.
            (&["800200000000060000009000"], Ok(Next::Read)),
            // Chained: the next piece is asked for, under the next number.
            (&["80010000000007000001aa"], next("6f000000000008001000")),
            (&["80010000000007000001aa", "80010000000008000003bb"], next("6f000000000009001000")),
            (
                &["80010000000007000001aa", "80010000000008000003bb", "800200000000090000029000"],
                done("aabb9000"),
            ),
            (&["800200000001070000009000"], wrong("a CCID message of another slot")),
            (&["80000000000007400000fe"], wrong("CCID error 00")),
            (&["8000000000000740fe00"], wrong("CCID error FE")),
            (&["8000000000000742fe00"], Err(unusable("no card is in its reader"))),
            (
                &["8003000000000700000090"],
                wrong("a CCID message longer than its descriptor allows"),
            ),
            (&["8001000000000700000090aa"], wrong("a CCID message of another length than it says")),
            (&["83000000000007000000"], wrong("a CCID message of type 83, chain 00")),
            (&["80000000000007000010"], wrong("a CCID message of type 80, chain 10")),
            (&["8000"], wrong("a CCID message without a whole header")),
        ] {
            let mut exchange = Exchange::new(7);
            let mut last = Ok(Next::Read);
            for message in messages {
                last = exchange.receive(&hex::decode(message).unwrap());
            }
            assert_eq!(last, expected, "{messages:?}");
        }
    }

    #[test]
    fn endless_chained_response_is_cut_off() {
        let mut exchange = Exchange::new(0);
        let end = (0..100).find_map(|_| {
            let mut message = message(DATA_BLOCK, exchange.sequence(), [0, 0, 1], &[7; 4096]);
            exchange.receive(&std::mem::take(&mut *message)).err()
        });
        assert_eq!(end, Some(protocol("an answer that never ends")));
    }

    #[test]
    fn message_lengths_are_checked() {
        assert_eq!(message_length(&transfer(0, &[1, 2, 3]), 13), Ok(13));
        assert!(message_length(&transfer(0, &[1, 2, 3]), 12).is_err());
        assert!(message_length(&[0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0], 3072).is_err());
        assert!(message_length(&[0x80, 0, 0, 0], 3072).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), sequence: u8) {
            let _ = Reader::parse(&bytes);
            let _ = Exchange::new(sequence).receive(&bytes);
        }
    }
}
