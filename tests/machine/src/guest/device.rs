//! Scripted USB devices in the test's own process, mostly faulty ones.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, TcpListener},
    thread,
};

use keywright_virtual_key::usb::{
    Answer, Device, Setup,
    ccid::take_packets,
    descriptors::{Descriptors, Identity, PACKET},
    usbip,
};

use crate::vhci;

/// A device that is plugged in; pulled out when dropped.
pub struct Inserted {
    /// Its port of the hub.
    pub port: usize,
}

impl Inserted {
    /// Plugs a device into the first free port.
    pub fn plug(mut device: impl Device + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp_port = listener.local_addr().unwrap().port();
        thread::spawn(move || usbip::serve(&listener, &mut device));
        let port = *vhci::free_ports().first().expect("a port is free");
        vhci::plug(tcp_port, port);
        Self { port }
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        vhci::pull(self.port);
        if !thread::panicking() {
            vhci::wait_until_free(self.port);
        }
    }
}

/// A device's reaction to a message on a bulk endpoint: the bytes to send back, or a fault.
pub type Script = Box<dyn FnMut(&[u8]) -> Answer + Send>;

/// A device with given descriptors that follows a script.
pub struct Scripted {
    /// Its descriptors.
    pub descriptors: Descriptors,
    /// Its reaction to bulk messages.
    pub script: Script,
    /// Its answer to class requests; None: stall.
    pub class_request: Option<Answer>,
    /// HID report descriptor (HID 1.11, 6.2.2); empty: stall.
    pub report_descriptor: Vec<u8>,
    packets: VecDeque<Vec<u8>>,
}

impl Scripted {
    /// Makes a device with these interfaces and this script.
    pub fn new(name: &str, interfaces: &[Vec<u8>], script: Script) -> Self {
        let identity =
            Identity { vendor: 0xF055, product: 0x0001, name: name.into(), serial: "1".into() };
        let descriptors = Descriptors::new(identity, interfaces);
        let (report_descriptor, packets) = (Vec::new(), VecDeque::new());
        Self { descriptors, script, class_request: None, report_descriptor, packets }
    }
}

impl Device for Scripted {
    fn descriptor(&self) -> [u8; 18] {
        self.descriptors.device()
    }

    fn control(&mut self, setup: Setup, _: &[u8]) -> Answer {
        match &self.class_request {
            Some(answer) if setup.kind & 0x60 == 0x20 => answer.clone(),
            // GET_DESCRIPTOR of an interface: its report descriptor.
            _ if (setup.kind, setup.request, setup.value) == (0x81, 6, 0x2200)
                && !self.report_descriptor.is_empty() =>
            {
                let mut bytes = self.report_descriptor.clone();
                bytes.truncate(setup.length.into());
                Answer::Data(bytes)
            }
            _ => self.descriptors.control(setup),
        }
    }

    fn receive(&mut self, _: u8, data: &[u8]) -> Answer {
        match (self.script)(data) {
            Answer::Data(message) => {
                self.packets.extend(message.chunks(PACKET).map(Into::into));
                if !message.is_empty() && message.len().is_multiple_of(PACKET) {
                    self.packets.push_back(Vec::new());
                }
                Answer::Data(Vec::new())
            }
            // It accepts the message and sends nothing back.
            Answer::Nak => Answer::Data(Vec::new()),
            answer => answer,
        }
    }

    fn send(&mut self, _: u8, wanted: usize) -> Answer {
        take_packets(&mut self.packets, wanted)
    }
}

/// Builds a reader's CCID message in answer to `question`.
pub fn reply(question: &[u8], kind: u8, status: [u8; 3], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_le_bytes();
    [&[kind][..], &length, &question[5..7], &status, data].concat()
}
