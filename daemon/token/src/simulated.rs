//! A test double: a small PIV card with selectable quirks, which can be unplugged at any command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use iso7816::Instruction;

use super::management_key::{KeyType, ManagementKey};
use super::{Connector, Limits, Transport, TransportError, tlv};

pub const SIGNATURE: &str = "3006020101020102";
pub const PRINTED: [u8; 3] = [0x5F, 0xC1, 0x09];
type Reply = Result<Vec<u8>, u16>;

/// Differences between firmwares.
#[derive(Debug, Clone, Copy)]
pub struct Quirks {
    pub extended: bool,
    pub metadata: bool,
    pub key_history: bool,
    pub admin_data: bool,
    pub select_clears: bool,
    pub clears_pin: bool,
    pub printed_under_pin: bool,
    pub tells_tries_on_change: bool,
    pub change_verifies: bool,
    pub takes_policy: bool,
    pub stores: bool,
}

/// The quirks of piv-authenticator (Nitrokey).
pub const NITROKEY: Quirks = Quirks {
    extended: true,
    metadata: false,
    key_history: true,
    admin_data: false,
    select_clears: false,
    clears_pin: true,
    printed_under_pin: true,
    tells_tries_on_change: false,
    change_verifies: true,
    takes_policy: true,
    stores: true,
};

/// The quirks of a YubiKey.
pub const YUBIKEY: Quirks = Quirks {
    metadata: true,
    key_history: false,
    admin_data: true,
    select_clears: true,
    tells_tries_on_change: true,
    ..NITROKEY
};

pub struct Card {
    pub quirks: Quirks,
    pub pin: [u8; 8],
    pub pin_tries: u8,
    pub puk: [u8; 8],
    pub puk_tries: u8,
    pub management: ManagementKey,
    pub objects: HashMap<[u8; 3], Vec<u8>>,
    /// The algorithm of the key in each slot.
    pub keys: HashMap<u8, u8>,
    pub verified: bool,
    pub authorized: bool,
    pub log: Vec<u8>,
    /// How often the card was reset.
    pub resets: usize,
    just_verified: bool,
    witness: Vec<u8>,
    chained: Vec<u8>,
    rest: Vec<u8>,
}

impl Card {
    /// Creates a card in its factory state.
    pub fn blank(quirks: Quirks, kind: KeyType) -> Shared {
        let objects = if quirks.key_history {
            let printed = hex::decode("010e4e6974726f6b657920332050495602000409fe00").unwrap();
            HashMap::from([(PRINTED, printed)])
        } else {
            HashMap::new()
        };
        Shared(Arc::new(Mutex::new(Card {
            quirks,
            pin: *b"123456\xFF\xFF",
            pin_tries: 3,
            puk: *b"12345678",
            puk_tries: 3,
            management: ManagementKey::factory(kind),
            objects,
            keys: HashMap::new(),
            verified: false,
            authorized: false,
            log: Vec::new(),
            resets: 0,
            just_verified: false,
            witness: Vec::new(),
            chained: Vec::new(),
            rest: Vec::new(),
        })))
    }

    fn transmit(&mut self, apdu: &[u8]) -> Vec<u8> {
        let command = iso7816::Command::<8192>::try_from(apdu).expect("a well-formed APDU");
        if command.instruction() == Instruction::GetResponse {
            let rest = std::mem::take(&mut self.rest);
            return self.reply(Ok(rest), 256);
        }
        self.chained.extend_from_slice(command.data());
        if command.class().chain().not_the_last() {
            return vec![0x90, 0];
        }
        let data = std::mem::take(&mut self.chained);
        let just_verified = std::mem::take(&mut self.just_verified);
        let instruction = u8::from(command.instruction());
        self.log.push(instruction);
        let reply = match (instruction, command.p1, command.p2) {
            (0xA4, 4, 0) => self.select(&data),
            (0x20, 0, 0x80) => self.verify(&data),
            (0x20, 0xFF, 0x80) if self.quirks.clears_pin => {
                self.verified = false;
                Ok(vec![])
            }
            (0x24, 0, 0x80) => self.change_pin(&data),
            (0x24, 0, 0x81) => self.change_puk(&data),
            (0x2C, 0, 0x80) => self.unblock(&data),
            (0x47, 0, slot) => self.generate(slot, &data),
            (0x87, algorithm, 0x9B) => self.authenticate(algorithm, &data),
            (0x87, algorithm, slot) => self.sign(algorithm, slot, &data, just_verified),
            (0xCB, 0x3F, 0xFF) => self.get(&data),
            (0xDB, 0x3F, 0xFF) => self.put(&data),
            (0xFF, 0xFF, 0xFF) => self.set_management_key(&data),
            (0xF7, 0, reference) if self.quirks.metadata => self.metadata(reference),
            (0xF7, ..) => Ok(vec![]),
            (0xF8, ..) if self.quirks.metadata => Ok(vec![0, 0, 1, 1]),
            (0xF8, ..) => Ok(vec![0x00, 0x52, 0xF7, 0x43]),
            (0xFD, ..) => Ok(vec![6, 6, 6]),
            _ => Err(0x6D00),
        };
        self.reply(reply, command.expected())
    }

    fn reply(&mut self, reply: Reply, expected: usize) -> Vec<u8> {
        let (mut data, status) = match reply {
            Ok(data) => (data, 0x9000),
            Err(status) => (vec![], status),
        };
        if data.len() > expected {
            self.rest = data.split_off(expected);
            let more = u8::try_from(self.rest.len()).unwrap_or(0);
            return [&data[..], &[0x61, more]].concat();
        }
        [&data[..], &u16::to_be_bytes(status)].concat()
    }

    fn select(&mut self, aid: &[u8]) -> Reply {
        assert_eq!(hex::encode(aid), "a000000308000010000100");
        if self.quirks.select_clears {
            (self.verified, self.authorized) = (false, false);
        }
        Ok(vec![0x61, 0])
    }

    fn verify(&mut self, data: &[u8]) -> Reply {
        if data.is_empty() {
            return if self.verified {
                Ok(vec![])
            } else {
                Err(0x63C0 + u16::from(self.pin_tries))
            };
        }
        if !data[..6].iter().all(u8::is_ascii_digit) {
            return Err(0x6A80);
        }
        self.verified = self.try_pin(data);
        self.just_verified = self.verified;
        if self.verified { Ok(vec![]) } else { Err(0x63C0 + u16::from(self.pin_tries)) }
    }

    fn try_pin(&mut self, pin: &[u8]) -> bool {
        let right = self.pin_tries > 0 && self.pin == pin;
        self.pin_tries = if right { 3 } else { self.pin_tries.saturating_sub(1) };
        right
    }

    fn try_puk(&mut self, puk: &[u8]) -> bool {
        let right = self.puk_tries > 0 && self.puk == puk;
        self.puk_tries = if right { 3 } else { self.puk_tries.saturating_sub(1) };
        right
    }

    fn change_pin(&mut self, data: &[u8]) -> Reply {
        if !self.try_pin(&data[..8]) {
            let tries = 0x63C0 + u16::from(self.pin_tries);
            return Err(if self.quirks.tells_tries_on_change { tries } else { 0x6300 });
        }
        self.pin.copy_from_slice(&data[8..]);
        self.verified &= self.quirks.change_verifies;
        Ok(vec![])
    }

    fn change_puk(&mut self, data: &[u8]) -> Reply {
        if !self.try_puk(&data[..8]) {
            let tries = 0x63C0 + u16::from(self.puk_tries);
            return Err(if self.quirks.tells_tries_on_change { tries } else { 0x6300 });
        }
        self.puk.copy_from_slice(&data[8..]);
        Ok(vec![])
    }

    fn unblock(&mut self, data: &[u8]) -> Reply {
        if !self.try_puk(&data[..8]) {
            return Err(0x63C0 + u16::from(self.puk_tries));
        }
        self.pin.copy_from_slice(&data[8..]);
        self.pin_tries = 3;
        Ok(vec![])
    }

    fn generate(&mut self, slot: u8, data: &[u8]) -> Reply {
        self.need_management()?;
        let template = tlv::only(0xAC, data).ok_or(0x6A80_u16)?;
        let algorithm = tlv::find(0x80, template).ok_or(0x6A80_u16)?;
        if tlv::find(0xAA, template).is_some() && !self.quirks.takes_policy {
            return Err(0x6A80);
        }
        self.keys.insert(slot, algorithm[0]);
        let point = tlv::encode(0x86, &[4; 65]);
        Ok([&[0x7F][..], &tlv::encode(0x49, &point)].concat())
    }

    fn need_management(&self) -> Result<(), u16> {
        if self.authorized { Ok(()) } else { Err(0x6982) }
    }

    fn authenticate(&mut self, algorithm: u8, data: &[u8]) -> Reply {
        if algorithm != self.management.kind().algorithm() {
            return Err(0x6A86);
        }
        let template = tlv::only(0x7C, data).ok_or(0x6A80_u16)?;
        let answer = match (tlv::find(0x80, template), tlv::find(0x81, template)) {
            (Some([]), None) => {
                self.witness = vec![0x5A; self.management.kind().block()];
                (0x80, self.management.encrypt(&self.witness))
            }
            (Some(witness), Some(challenge)) => {
                if witness != std::mem::take(&mut self.witness) {
                    return Err(0x6A80);
                }
                self.authorized = true;
                (0x82, self.management.encrypt(challenge))
            }
            _ => return Err(0x6A80),
        };
        Ok(tlv::encode(0x7C, &tlv::encode(answer.0, &answer.1.unwrap())).to_vec())
    }

    fn sign(&mut self, algorithm: u8, slot: u8, data: &[u8], just_verified: bool) -> Reply {
        if !self.verified || (slot == 0x9C && !just_verified) {
            return Err(0x6982);
        }
        let template = tlv::only(0x7C, data).ok_or(0x6A80_u16)?;
        let length = tlv::find(0x81, template).ok_or(0x6A80_u16)?.len();
        let right = |key| match key {
            0x11 => length == 32,
            0x07 => length == 256,
            _ => false,
        };
        match self.keys.get(&slot) {
            None => Err(0x6985),
            Some(&key) if key == algorithm && right(key) => {
                let signature = hex::decode(SIGNATURE).unwrap();
                Ok(tlv::encode(0x7C, &tlv::encode(0x82, &signature)).to_vec())
            }
            Some(_) => Err(0x6A80),
        }
    }

    fn get(&mut self, data: &[u8]) -> Reply {
        let tag: [u8; 3] = tlv::only(0x5C, data).unwrap().try_into().unwrap();
        if tag == PRINTED && self.quirks.printed_under_pin && !self.verified {
            return Err(0x6982);
        }
        if tag == [0x5F, 0xC1, 0x0C] && self.quirks.key_history {
            let retired = |tag: &[u8; 3]| (0x0D..=0x20).contains(&tag[2]) && tag[1] == 0xC1;
            let count = self.objects.keys().filter(|tag| retired(tag)).count();
            let count = u8::try_from(count).unwrap();
            return Ok(vec![0x53, 8, 0xC1, 1, count, 0xC2, 1, 0, 0xFE, 0]);
        }
        match self.objects.get(&tag) {
            Some(contents) => Ok(tlv::encode(0x53, contents).to_vec()),
            None => Err(0x6A82),
        }
    }

    fn put(&mut self, data: &[u8]) -> Reply {
        self.need_management()?;
        let tag: [u8; 3] = tlv::find(0x5C, data).unwrap().try_into().unwrap();
        if tag[1] == 0xFF && !self.quirks.admin_data {
            return Err(0x6A80);
        }
        if self.quirks.stores {
            self.objects.insert(tag, tlv::find(0x53, data).unwrap().to_vec());
        }
        Ok(vec![])
    }

    fn set_management_key(&mut self, data: &[u8]) -> Reply {
        self.need_management()?;
        let [algorithm, 0x9B, length, ref key @ ..] = *data else { return Err(0x6A80) };
        assert_eq!(usize::from(length), key.len());
        let kind = KeyType::ALL.into_iter().find(|kind| kind.algorithm() == algorithm).unwrap();
        self.management = ManagementKey::new(kind, key).unwrap();
        Ok(vec![])
    }

    fn metadata(&mut self, reference: u8) -> Reply {
        let (default, tries) = match reference {
            0x80 => (self.pin == *b"123456\xFF\xFF", self.pin_tries),
            0x81 => (self.puk == *b"12345678", self.puk_tries),
            slot => {
                let key = self.keys.get(&slot).ok_or(0x6A88_u16)?;
                return Ok(vec![1, 1, *key]);
            }
        };
        Ok(vec![5, 1, u8::from(default), 6, 2, 3, tries])
    }
}

/// A card that tests share with its transports.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<Card>>);

impl Shared {
    pub fn with<R>(&self, change: impl FnOnce(&mut Card) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    pub fn plug(&self) -> Box<dyn Transport> {
        self.plug_until(usize::MAX, false)
    }

    /// Plugs the card in until the n-th APDU, which takes effect or not. Plugging in clears all authentication.
    pub fn plug_until(&self, last: usize, takes_effect: bool) -> Box<dyn Transport> {
        self.reset();
        Box::new(Plugged { card: self.clone(), left: last, takes_effect })
    }

    /// Resets the card, as powering it off and on does.
    pub fn reset(&self) {
        self.with(|card| {
            (card.verified, card.authorized) = (false, false);
            card.resets += 1;
        });
    }

    /// Sends one command without plugging the card in again.
    pub fn transmit_once(&self, command: &[u8]) -> Vec<u8> {
        self.with(|card| card.transmit(command))
    }

    /// Returns the number of commands that the card received since the last call.
    pub fn commands(&self) -> usize {
        self.with(|card| std::mem::take(&mut card.log).len())
    }
}

impl Connector for Shared {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(self.plug())
    }
}

struct Plugged {
    card: Shared,
    left: usize,
    takes_effect: bool,
}

impl Transport for Plugged {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        if self.left == 0 {
            if std::mem::take(&mut self.takes_effect) {
                self.card.with(|card| card.transmit(command));
            }
            return Err(TransportError::Gone);
        }
        self.left -= 1;
        Ok(self.card.with(|card| card.transmit(command)))
    }

    fn limits(&self) -> Limits {
        let extended = self.card.with(|card| card.quirks.extended);
        Limits { extended, longest_command: if extended { 3062 } else { 261 } }
    }
}
