//! Builds USB descriptors and answers the standard requests for them (USB 2.0, chapter 9).

use super::{Answer, Setup};

/// `bMaxPacketSize` of all endpoints, including the control endpoint: full speed.
pub const PACKET: usize = 64;
/// Bulk endpoint from the host to the reader.
pub const BULK_OUT: u8 = 0x01;
/// Bulk endpoint from the reader to the host.
pub const BULK_IN: u8 = 0x81;

const CONFIGURATION: u8 = 2;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const BULK: u8 = 2;

/// A device's vendor, product and serial number.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// Product name.
    pub name: String,
    /// Serial number; empty: none.
    pub serial: String,
}

/// A device's descriptors, with one configuration.
#[derive(Debug, Clone)]
pub struct Descriptors {
    /// Vendor, product and serial number.
    pub identity: Identity,
    /// The configuration with its interfaces and endpoints.
    pub configuration: Vec<u8>,
    /// The configuration number that the host has set.
    configured: u8,
}

impl Descriptors {
    /// Makes the descriptors of a device. Each interface has its class and endpoint descriptors appended.
    pub fn new(identity: Identity, interfaces: &[Vec<u8>]) -> Self {
        let all = interfaces.concat();
        let [low, high] = (u16::try_from(9 + all.len()).unwrap_or(u16::MAX)).to_le_bytes();
        let count = u8::try_from(interfaces.len()).unwrap_or(u8::MAX);
        // Bus-powered, 100 mA.
        let head = [9, CONFIGURATION, low, high, count, 1, 0, 0x80, 50];
        Self { identity, configuration: [&head[..], &all].concat(), configured: 0 }
    }

    /// Builds the device descriptor.
    pub fn device(&self) -> [u8; 18] {
        let [v0, v1] = self.identity.vendor.to_le_bytes();
        let [p0, p1] = self.identity.product.to_le_bytes();
        let serial = if self.identity.serial.is_empty() { 0 } else { 3 };
        // USB 2.0, its classes in its interfaces, device release 1.0, strings 1 to 3.
        [18, 1, 0, 2, 0, 0, 0, PACKET as u8, v0, v1, p0, p1, 0, 1, 1, 2, serial, 1]
    }

    /// Answers the standard requests of chapter 9; stalls others.
    pub fn control(&mut self, setup: Setup) -> Answer {
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(setup.length.into());
            Answer::Data(bytes)
        };
        match (setup.kind, setup.request) {
            // GET_STATUS
            (0x80..=0x82, 0) => cut(vec![0, 0]),
            // CLEAR_FEATURE, SET_FEATURE, SET_ADDRESS, SET_INTERFACE
            (0x00..=0x02, 1 | 3) | (0x00, 5) | (0x01, 11) => Answer::Data(Vec::new()),
            // GET_DESCRIPTOR
            (0x80, 6) => self.get(setup.value).map_or(Answer::Stall, cut),
            // GET_CONFIGURATION, SET_CONFIGURATION
            (0x80, 8) => cut(vec![self.configured]),
            (0x00, 9) => {
                self.configured = setup.value.to_le_bytes()[0];
                Answer::Data(Vec::new())
            }
            // GET_INTERFACE
            (0x81, 10) => cut(vec![0]),
            _ => Answer::Stall,
        }
    }

    fn get(&self, value: u16) -> Option<Vec<u8>> {
        let [index, kind] = value.to_le_bytes();
        match (kind, index) {
            (1, 0) => Some(self.device().into()),
            (2, 0) => Some(self.configuration.clone()),
            // English (United States).
            (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
            (3, 1) => Some(string("Keywright tests")),
            (3, 2) => Some(string(&self.identity.name)),
            (3, 3) if !self.identity.serial.is_empty() => Some(string(&self.identity.serial)),
            _ => None,
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.encode_utf16().take(126).flat_map(u16::to_le_bytes).collect();
    let length = u8::try_from(bytes.len() + 2).unwrap_or(u8::MAX);
    bytes.splice(0..0, [length, 3]);
    bytes
}

/// Builds an interface descriptor followed by its class and endpoint descriptors.
pub fn interface(
    number: u8,
    class: [u8; 3],
    class_descriptor: &[u8],
    endpoints: &[[u8; 7]],
) -> Vec<u8> {
    let [class, subclass, protocol] = class;
    let count = u8::try_from(endpoints.len()).unwrap_or(u8::MAX);
    let head = [9, INTERFACE, number, 0, count, class, subclass, protocol, 0];
    [&head[..], class_descriptor, &endpoints.concat()].concat()
}

/// Builds a bulk endpoint descriptor; bit 7 of the address is the direction.
pub fn bulk(address: u8) -> [u8; 7] {
    [7, ENDPOINT, address, BULK, PACKET as u8, 0, 0]
}

/// Builds an interrupt endpoint descriptor with an interval of 10 ms.
pub fn interrupt(address: u8) -> [u8; 7] {
    [7, ENDPOINT, address, 3, 8, 0, 10]
}

/// Builds the CCID class descriptor (CCID 1.1, 5.1) of a reader whose longest message has this many bytes.
///
/// The reader has one slot with a fixed card, uses T=1 and extended APDUs, and sets all parameters itself.
pub fn ccid(longest_message: u32) -> [u8; 54] {
    let mut bytes = [0; 54];
    // bcdCCID 1.10, slot 0, 5 V, 3 V and 1.8 V, T=1.
    bytes[..10].copy_from_slice(&[54, 0x21, 0x10, 0x01, 0, 7, 2, 0, 0, 0]);
    // 4 MHz, 4 MHz, one; 10752 bit/s, the same, one; 254 bytes of IFSD.
    for (at, value) in [(10, 4000), (14, 4000), (19, 10752), (23, 10752), (28, 254_u32)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    // Extended APDUs; automatic voltage, clock, baud rate, parameters, IFSD.
    bytes[40..44].copy_from_slice(&0x0004_087E_u32.to_le_bytes());
    bytes[44..48].copy_from_slice(&longest_message.to_le_bytes());
    // Class of GET RESPONSE and ENVELOPE as in the command; no display, no PIN pad, one slot at a time.
    bytes[48..].copy_from_slice(&[0xFF, 0xFF, 0, 0, 0, 1]);
    bytes
}

/// Builds the interface of a CCID reader whose longest message has this many bytes.
pub fn ccid_interface(number: u8, longest_message: u32) -> Vec<u8> {
    let endpoints = [bulk(BULK_OUT), bulk(BULK_IN)];
    interface(number, [0x0B, 0, 0], &ccid(longest_message), &endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_its_declared_length() {
        let identity =
            Identity { vendor: 1, product: 2, name: "Käy".into(), serial: String::new() };
        let device = Descriptors::new(identity, &[ccid_interface(0, 3072)]);
        let bytes = &device.configuration;
        assert_eq!(usize::from(u16::from_le_bytes([bytes[2], bytes[3]])), bytes.len());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            kinds.push(bytes[at + 1]);
            at += usize::from(bytes[at]);
        }
        assert_eq!((at, &*kinds), (bytes.len(), &[2, 4, 0x21, 5, 5][..]));
        assert_eq!(string("Kä"), [6, 3, b'K', 0, 0xE4, 0]);
        assert_eq!(device.device()[16], 0, "no serial, no string for it");
    }
}
