//! Emulated USB devices that the kernel's real drivers use over USB/IP.
//!
//! [`Device`] is the interface of a device towards a host controller. [`usbip`] exports it to a kernel, [`ccid`] is a
//! reader with a card, and [`descriptors`] builds USB descriptors.

pub mod ccid;
pub mod descriptors;
pub mod usbip;

/// The setup packet of a control transfer (USB 2.0, 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// `bmRequestType`: bit 7 is set if the device sends the data.
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
    /// Parses the eight bytes of a setup packet.
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

/// A device's answer to a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Completes the transfer with these bytes; empty if the host sent the data.
    Data(Vec<u8>),
    /// Refuses the transfer.
    Stall,
    /// Has nothing to send yet; it is asked again after the next transfer. A device may answer this for ever.
    Nak,
    /// The device is unplugged at this moment.
    Unplugged,
}

/// A USB device, as a host controller sees it.
pub trait Device {
    /// The device descriptor (USB 2.0, 9.6.1).
    fn descriptor(&self) -> [u8; 18];
    /// Handles a control transfer; `data` is the host's data.
    fn control(&mut self, setup: Setup, data: &[u8]) -> Answer;
    /// Receives data from the host on an endpoint (without its direction bit).
    fn receive(&mut self, endpoint: u8, data: &[u8]) -> Answer;
    /// Sends at most `wanted` bytes to the host from an endpoint.
    fn send(&mut self, endpoint: u8, wanted: usize) -> Answer;
}
