//! A CCID reader with a built-in card, as USB tokens are (USB Device Class: Smart Card CCID, revision 1.1).

use std::collections::VecDeque;

use super::{
    Answer, Device, Setup,
    descriptors::{Descriptors, PACKET},
};

const HEADER: usize = 10;
/// Status: the command is not supported (6.2.6, `bError` 0), or there is no card (`bmICCStatus` 2 with `ICC_MUTE`).
const UNSUPPORTED: [u8; 3] = [0x40, 0, 0];
const NO_CARD: [u8; 3] = [0x42, 0xFE, 0];
/// Status: the card is active, no error.
const FINE: [u8; 3] = [0, 0, 0];
/// T=1 parameters; their values have no meaning for a reader that exchanges APDUs (6.2.3).
const T1: [u8; 7] = [0x11, 0x10, 0, 0x15, 0, 0xFE, 0];

/// The card in the reader.
pub trait Card {
    /// Returns the answer to reset.
    fn answer_to_reset(&self) -> Vec<u8>;
    /// Executes a command APDU. None: the device is unplugged before it answers.
    fn transmit(&mut self, command: &[u8]) -> Option<Vec<u8>>;
}

/// A reader, with a card or without.
pub struct Reader<C> {
    descriptors: Descriptors,
    longest_message: usize,
    card: Option<C>,
    /// The part of a message received so far.
    incoming: Vec<u8>,
    /// Pieces of a chained command received so far (6.1.4, `wLevelParameter`).
    command: Vec<u8>,
    /// The rest of an answer that is longer than a message.
    answer: Vec<u8>,
    /// Packets for the host. An empty packet follows a message that fills its last packet.
    packets: VecDeque<Vec<u8>>,
}

impl<C: Card> Reader<C> {
    /// Makes a reader with these descriptors, whose messages have at most `longest_message` bytes.
    pub fn new(descriptors: Descriptors, longest_message: u32, card: Option<C>) -> Self {
        Self {
            descriptors,
            longest_message: longest_message as usize,
            card,
            incoming: Vec::new(),
            command: Vec::new(),
            answer: Vec::new(),
            packets: VecDeque::new(),
        }
    }

    /// Handles a complete message.
    fn message(&mut self, message: &[u8]) -> Answer {
        let [kind, _, _, _, _, slot, sequence, specific @ ..] = message else {
            return Answer::Stall;
        };
        let (level, data) = match specific {
            [_, low, high, data @ ..] => (u16::from_le_bytes([*low, *high]), data),
            _ => return Answer::Stall,
        };
        let begins = [*slot, *sequence];
        let Some(card) = &mut self.card else {
            self.queue(0x81, begins, NO_CARD, &[]);
            return Answer::Data(Vec::new());
        };
        match kind {
            0x62 => {
                let atr = card.answer_to_reset();
                self.queue(0x80, begins, FINE, &atr);
            }
            // Power and reset do nothing, as in the product: only an unplug clears the security state.
            0x63 | 0x65 | 0x72 => self.queue(0x81, begins, FINE, &[]),
            0x61 | 0x6C | 0x6D => self.queue(0x82, begins, [0, 0, 1], &T1),
            0x6F if level == 0x10 => self.queue_answer_part(begins, true),
            0x6F => {
                self.command.extend_from_slice(data);
                if matches!(level, 1 | 3) {
                    // More of the command follows.
                    self.queue(0x80, begins, [0, 0, 0x10], &[]);
                } else {
                    let command = std::mem::take(&mut self.command);
                    match card.transmit(&command) {
                        Some(answer) => self.answer = answer,
                        None => return Answer::Unplugged,
                    }
                    self.queue_answer_part(begins, false);
                }
            }
            _ => self.queue(0x81, begins, UNSUPPORTED, &[]),
        }
        Answer::Data(Vec::new())
    }

    /// Queues as much of the answer as a message holds; `bChainParameter` says whether parts precede and follow it
    /// (6.2.1).
    fn queue_answer_part(&mut self, begins: [u8; 2], continued: bool) {
        let room = self.longest_message - HEADER;
        let rest = self.answer.split_off(room.min(self.answer.len()));
        let piece = std::mem::replace(&mut self.answer, rest);
        let chain = match (continued, self.answer.is_empty()) {
            (false, true) => 0,
            (false, false) => 1,
            (true, true) => 2,
            (true, false) => 3,
        };
        self.queue(0x80, begins, [0, 0, chain], &piece);
    }

    fn queue(&mut self, kind: u8, begins: [u8; 2], ends: [u8; 3], data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
        let message = [&[kind][..], &length, &begins, &ends, data].concat();
        self.packets.extend(message.chunks(PACKET).map(Into::into));
        if message.len().is_multiple_of(PACKET) {
            self.packets.push_back(Vec::new());
        }
    }
}

impl<C: Card> Device for Reader<C> {
    fn descriptor(&self) -> [u8; 18] {
        self.descriptors.device()
    }

    fn control(&mut self, setup: Setup, _: &[u8]) -> Answer {
        match (setup.kind, setup.request) {
            // ABORT (5.3.1): there is never a command to abort.
            (0x21, 1) => Answer::Data(Vec::new()),
            _ => self.descriptors.control(setup),
        }
    }

    fn receive(&mut self, _: u8, data: &[u8]) -> Answer {
        self.incoming.extend_from_slice(data);
        let length = match self.incoming[..] {
            [_, a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]) as usize,
            _ => return Answer::Data(Vec::new()),
        };
        if length > self.longest_message - HEADER {
            self.incoming.clear();
            return Answer::Stall;
        }
        if self.incoming.len() < HEADER + length {
            return Answer::Data(Vec::new());
        }
        let message = std::mem::take(&mut self.incoming);
        self.message(&message[..HEADER + length])
    }

    fn send(&mut self, _: u8, wanted: usize) -> Answer {
        take_packets(&mut self.packets, wanted)
    }
}

/// Fills a transfer to the host with packets until it is full or a short packet ends it.
pub fn take_packets(packets: &mut VecDeque<Vec<u8>>, wanted: usize) -> Answer {
    if packets.is_empty() {
        return Answer::Nak;
    }
    let mut data = Vec::new();
    while let Some(packet) = packets.pop_front_if(|packet| data.len() + packet.len() <= wanted) {
        data.extend_from_slice(&packet);
        if packet.len() < PACKET || data.len() == wanted {
            return Answer::Data(data);
        }
    }
    // A packet that does not fit would be babble (USB 2.0, 8.7.4).
    if data.is_empty() { Answer::Stall } else { Answer::Data(data) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::descriptors::{BULK_OUT, Identity, ccid_interface};

    struct Echo;

    impl Card for Echo {
        fn answer_to_reset(&self) -> Vec<u8> {
            vec![0x3B, 0x80]
        }
        fn transmit(&mut self, command: &[u8]) -> Option<Vec<u8>> {
            (command != b"bye").then(|| command.into())
        }
    }

    fn reader() -> Reader<Echo> {
        let identity =
            Identity { vendor: 1, product: 2, name: "reader".into(), serial: String::new() };
        Reader::new(Descriptors::new(identity, &[ccid_interface(0, 138)]), 138, Some(Echo))
    }

    fn ask(reader: &mut Reader<Echo>, kind: u8, level: u8, data: &[u8]) -> Vec<u8> {
        let length = u8::try_from(data.len()).unwrap();
        let message = [&[kind, length, 0, 0, 0, 0, 7, 0, level, 0], data].concat();
        assert_eq!(reader.receive(BULK_OUT, &message), Answer::Data(Vec::new()));
        match reader.send(1, 512) {
            Answer::Data(data) => data,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answer_has_the_slot_and_sequence_of_the_command() {
        let mut reader = reader();
        assert_eq!(ask(&mut reader, 0x62, 0, &[]), [0x80, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0x3B, 0x80]);
        assert_eq!(ask(&mut reader, 0x6F, 0, b"hi"), *b"\x80\x02\0\0\0\0\x07\0\0\0hi");
        assert_eq!(ask(&mut reader, 0x99, 0, &[])[7], 0x40);
    }

    #[test]
    fn long_commands_and_answers_are_chained() {
        let mut reader = reader();
        let command = [b'x'; 128];
        assert_eq!(ask(&mut reader, 0x6F, 1, &command)[9], 0x10);
        let first = ask(&mut reader, 0x6F, 2, &[b'y'; 10]);
        assert_eq!((first.len(), first[9]), (138, 1));
        let last = ask(&mut reader, 0x6F, 0x10, &[]);
        assert_eq!((&last[10..], last[9]), (&[b'y'; 10][..], 2));
    }

    #[test]
    fn full_last_packet_is_followed_by_an_empty_one() {
        let mut reader = reader();
        let message = [&[0x6F, 54, 0, 0, 0, 0, 1, 0, 0, 0], &[0; 54][..]].concat();
        reader.receive(BULK_OUT, &message);
        assert!(matches!(reader.send(1, 64), Answer::Data(data) if data.len() == 64));
        assert_eq!(reader.send(1, 64), Answer::Data(Vec::new()));
        assert_eq!(reader.send(1, 64), Answer::Nak);
    }

    #[test]
    fn card_may_be_unplugged_during_a_command() {
        let message = [&[0x6F, 3, 0, 0, 0, 0, 1, 0, 0, 0], &b"bye"[..]].concat();
        assert_eq!(reader().receive(BULK_OUT, &message), Answer::Unplugged);
    }
}
