//! A token on USB: CCID over libusb. Only the CCID interface is claimed, and only for one job.

use std::path::Path;
use std::time::{Duration, Instant};

use rusb::{
    Context, Device, DeviceHandle, Direction, InterfaceDescriptor, TransferType, UsbContext,
};
use zeroize::Zeroizing;

use super::ccid::{self, Exchange, HEADER, Next, Reader};
use super::{Connector, Limits, Transport, TransportError};

/// How long one message may take. A token that needs longer asks for more time before that.
const ONE_MESSAGE: Duration = Duration::from_secs(10);
/// How long one command may take, however often the token asks for more time.
const ONE_COMMAND: Duration = Duration::from_secs(60);
/// How long a token that is let go, or that failed, is waited for.
const CLEANING_UP: Duration = Duration::from_secs(1);
/// Class request ABORT (CCID 5.3.1): to the interface, host to device.
const ABORT_REQUEST: (u8, u8) = (0x21, 0x01);

/// Opens the CCID interface of one USB device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsbConnector {
    /// The bus (sysfs `busnum`).
    pub bus: u8,
    /// The device on it (sysfs `devnum`).
    pub device: u8,
    /// The interface (sysfs `bInterfaceNumber`).
    pub interface: u8,
}

impl Connector for UsbConnector {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let context = Context::new().map_err(failure)?;
        let devices = context.devices().map_err(failure)?;
        let device = devices
            .iter()
            .find(|d| d.bus_number() == self.bus && d.address() == self.device)
            .ok_or(TransportError::Gone)?;
        let mut transport = UsbTransport::claim(&device, self.interface)?;
        transport.exchange(ccid::power_on)?;
        Ok(Box::new(transport))
    }
}

struct UsbTransport {
    handle: DeviceHandle<Context>,
    interface: u8,
    input: u8,
    output: u8,
    packet: usize,
    reader: Reader,
    sequence: u8,
}

impl UsbTransport {
    fn claim(device: &Device<Context>, interface: u8) -> Result<Self, TransportError> {
        let configuration = device.active_config_descriptor().map_err(failure)?;
        let descriptor = configuration
            .interfaces()
            .filter(|i| i.number() == interface)
            .find_map(|i| i.descriptors().next())
            .ok_or(TransportError::Gone)?;
        let reader = Reader::parse(descriptor.extra())?;
        let (input, packet) = bulk_endpoint(&descriptor, Direction::In)?;
        let (output, _) = bulk_endpoint(&descriptor, Direction::Out)?;
        let handle = device.open().map_err(failure)?;
        handle.claim_interface(interface).map_err(failure)?;
        Ok(UsbTransport { handle, interface, input, output, packet, reader, sequence: 0 })
    }

    /// Sends one message and waits for its whole answer; cleans up after a failure.
    fn exchange(
        &mut self,
        message: impl FnOnce(u8, u8) -> Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, TransportError> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(self.sequence, self.reader.power);
        let answer = self.send_and_wait(&message);
        match answer {
            Ok(_) | Err(TransportError::Gone) => {}
            Err(_) => self.abort(),
        }
        answer
    }

    fn send_and_wait(&mut self, message: &[u8]) -> Result<Vec<u8>, TransportError> {
        let deadline = Instant::now() + ONE_COMMAND;
        let mut exchange = Exchange::new(self.sequence);
        self.write(message)?;
        while Instant::now() < deadline {
            let received = self.read(ONE_MESSAGE)?;
            match exchange.receive(&received)? {
                Next::Read => {}
                Next::Send(message) => {
                    self.sequence = exchange.sequence();
                    self.write(&message)?;
                }
                Next::Done(answer) => return Ok(answer),
            }
        }
        Err(TransportError::Timeout)
    }

    fn write(&self, message: &[u8]) -> Result<(), TransportError> {
        match self.handle.write_bulk(self.output, message, ONE_MESSAGE).map_err(failure)? {
            written if written == message.len() => Ok(()),
            _ => Err(TransportError::Timeout),
        }
    }

    /// Reads one message. The header first: a message that fills its last packet may come without an empty one behind
    /// it, and a longer read would then wait for nothing.
    fn read(&self, timeout: Duration) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        let mut message = Zeroizing::new(Vec::new());
        let mut length = HEADER;
        while message.len() < length {
            let begin = message.len();
            let packets = (length - begin).div_ceil(self.packet);
            message.resize(begin + packets * self.packet, 0);
            let read = self
                .handle
                .read_bulk(self.input, &mut message[begin..], timeout)
                .map_err(failure)?;
            message.truncate(begin + read);
            if message.is_empty() {
                // The empty packet behind the message before.
                continue;
            }
            length = ccid::message_length(&message, self.reader.longest_message)?;
        }
        Ok(message)
    }

    /// Brings reader and host together again (CCID 5.3.1): the class request, its bulk twin, then whatever the reader
    /// still says. Nothing more can be done where that fails.
    fn abort(&mut self) {
        let (kind, request) = ABORT_REQUEST;
        let value = u16::from_be_bytes([self.sequence, 0]);
        let index = u16::from(self.interface);
        let asked = self.handle.write_control(kind, request, value, index, &[], CLEANING_UP);
        let _ = self.handle.clear_halt(self.output);
        let _ = self.handle.clear_halt(self.input);
        let abort = ccid::abort(self.sequence);
        if asked.is_err() || self.handle.write_bulk(self.output, &abort, CLEANING_UP).is_err() {
            return;
        }
        let deadline = Instant::now() + CLEANING_UP;
        let mut exchange = Exchange::new(self.sequence);
        while Instant::now() < deadline {
            let Ok(received) = self.read(CLEANING_UP) else { return };
            if let Ok(Next::Done(_)) = exchange.receive(&received) {
                return;
            }
        }
    }
}

impl Transport for UsbTransport {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.exchange(|sequence, _| ccid::transfer(sequence, command))
    }

    fn limits(&self) -> Limits {
        self.reader.limits()
    }
}

impl Drop for UsbTransport {
    fn drop(&mut self) {
        // Best effort: the token may be gone, and the kernel releases the interface with the handle.
        let message = ccid::power_off(self.sequence.wrapping_add(1));
        if self.handle.write_bulk(self.output, &message, CLEANING_UP).is_ok() {
            let _ = self.read(CLEANING_UP);
        }
        let _ = self.handle.release_interface(self.interface);
    }
}

fn bulk_endpoint(
    interface: &InterfaceDescriptor,
    direction: Direction,
) -> Result<(u8, usize), TransportError> {
    interface
        .endpoint_descriptors()
        .find(|e| e.transfer_type() == TransferType::Bulk && e.direction() == direction)
        .map(|e| (e.address(), usize::from(e.max_packet_size()).max(1)))
        .ok_or_else(|| TransportError::Unusable("its reader has no bulk endpoints".into()))
}

fn failure(error: rusb::Error) -> TransportError {
    match error {
        rusb::Error::NoDevice | rusb::Error::NotFound => TransportError::Gone,
        rusb::Error::Busy => TransportError::Busy { holder: holder(Path::new("/")) },
        rusb::Error::Timeout => TransportError::Timeout,
        rusb::Error::Access => {
            TransportError::Unusable("this program may not open its USB device".into())
        }
        error => TransportError::Protocol(format!("USB: {error}")),
    }
}

/// Who has claimed a token: "pcscd" where its process or its unit is there, else nobody that can be named cheaply.
fn holder(root: &Path) -> String {
    let pid = std::fs::read_to_string(root.join("run/pcscd/pcscd.pid")).unwrap_or_default();
    let alive = pid.trim().parse::<u32>().is_ok_and(|p| root.join(format!("proc/{p}")).exists());
    // A unit has its control group exactly while it is active.
    let active = root.join("sys/fs/cgroup/system.slice/pcscd.service").exists();
    if alive || active { "pcscd".into() } else { "another program".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_holder_is_named_where_it_lives() {
        for (files, expected) in [
            (&[][..], "another program"),
            (&["run/pcscd/pcscd.pid"], "another program"),
            (&["run/pcscd/pcscd.pid", "proc/42/stat"], "pcscd"),
            (&["proc/42/stat"], "another program"),
            (&["sys/fs/cgroup/system.slice/pcscd.service/cgroup.procs"], "pcscd"),
        ] {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "42\n").unwrap();
            }
            assert_eq!(holder(root.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_gone() {
        let nowhere = UsbConnector { bus: 255, device: 255, interface: 0 };
        assert_eq!(nowhere.open().err(), Some(TransportError::Gone));
    }
}
