//! A device on the USB of a machine that has none: devices as the kernel's own driver meets them, carried by USB/IP.
//!
//! [`Device`] is what a host controller sees of a device; [`usbip`] carries it to a kernel, [`ccid`] is a reader with a
//! card in it, and [`descriptors`] has the bytes with which devices introduce themselves.

pub mod ccid;
pub mod descriptors;
pub mod usbip;

/// The eight bytes that begin a control transfer (USB 2.0, 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// `bmRequestType`: bit 7 is set where the device is to send.
    pub kind: u8,
    /// `bRequest`.
    pub request: u8,
    /// `wValue`.
    pub value: u16,
    /// `wIndex`.
    pub index: u16,
    /// `wLength`.
    pub length: u16,
}

impl Setup {
    /// Reads them as they are on the wire.
    pub fn parse(bytes: [u8; 8]) -> Self {
        let [kind, request, v0, v1, i0, i1, l0, l1] = bytes;
        Self {
            kind,
            request,
            value: u16::from_le_bytes([v0, v1]),
            index: u16::from_le_bytes([i0, i1]),
            length: u16::from_le_bytes([l0, l1]),
        }
    }
}

/// What a device does about a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It sends these bytes; none where it was the host that sent.
    Data(Vec<u8>),
    /// It refuses.
    Stall,
    /// It has nothing to send yet and is asked again after the next transfer. A device may stay silent for ever.
    Nak,
    /// It is pulled out in this moment.
    Unplugged,
}

/// A device without its cable.
pub trait Device {
    /// The device descriptor (USB 2.0, 9.6.1).
    fn descriptor(&self) -> [u8; 18];
    /// A control transfer; `data` is what the host sends with it.
    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer;
    /// The host sends to an endpoint (without its direction bit).
    fn receive(&mut self, endpoint: u8, data: &[u8]) -> Answer;
    /// The host is ready to take this many bytes from an endpoint.
    fn send(&mut self, endpoint: u8, wanted: usize) -> Answer;
}
