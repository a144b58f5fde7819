//! A token on USB: CCID over libusb. Only the CCID interface is claimed, and only for one job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusb::{
    Context, Device, DeviceHandle, Direction, InterfaceDescriptor, TransferType, UsbContext,
};

use super::ccid::Reader;
use super::ccid_transport::{CcidTransport, Pipe};
use super::claim::{self, Claim};
use super::{Connector, Transport, TransportError};

/// Class request ABORT (CCID 5.3.1): to the interface, host to device.
const ABORT_REQUEST: (u8, u8) = (0x21, 0x01);

/// Opens the CCID interface of one USB device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbConnector {
    /// The bus (sysfs `busnum`).
    pub bus: u8,
    /// The device on it (sysfs `devnum`).
    pub device: u8,
    /// The interface (sysfs `bInterfaceNumber`).
    pub interface: u8,
    /// The interface's directory in sysfs.
    pub sysfs: PathBuf,
}

impl Connector for UsbConnector {
    fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let context = Context::new().map_err(failure)?;
        let devices = context.devices().map_err(failure)?;
        let device = devices
            .iter()
            .find(|d| d.bus_number() == self.bus && d.address() == self.device)
            .ok_or(TransportError::Gone)?;
        let (claimed, reader) = Claimed::claim(&device, self.interface)?;
        Ok(Box::new(CcidTransport::open(claimed, reader)?))
    }

    fn wait_until_free(&self, attempts: u32) -> bool {
        if !claim::is_claimed(&self.sysfs) {
            // Let go in between, or refused for a reason of its own: not at once again, and ever more seldom.
            std::thread::sleep(claim::back_off(attempts));
        }
        match claim::wait_until_free(&claim::node(self.bus, self.device), &self.sysfs) {
            Ok(ended) => ended == Claim::Released,
            Err(error) => {
                tracing::warn!(%error, ?self, "it cannot be told when this token is let go");
                false
            }
        }
    }
}

/// The claimed interface.
struct Claimed {
    handle: DeviceHandle<Context>,
    interface: u8,
    input: u8,
    output: u8,
    packet: usize,
}

impl Claimed {
    fn claim(device: &Device<Context>, interface: u8) -> Result<(Self, Reader), TransportError> {
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
        Ok((Claimed { handle, interface, input, output, packet }, reader))
    }
}

impl Pipe for Claimed {
    fn packet(&self) -> usize {
        self.packet
    }

    fn write(&mut self, bytes: &[u8], timeout: Duration) -> Result<usize, TransportError> {
        self.handle.write_bulk(self.output, bytes, timeout).map_err(failure)
    }

    fn read(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, TransportError> {
        self.handle.read_bulk(self.input, buffer, timeout).map_err(failure)
    }

    fn request_abort(&mut self, sequence: u8, timeout: Duration) -> Result<(), TransportError> {
        let (kind, request) = ABORT_REQUEST;
        // The slot, 0, in the low byte.
        let value = u16::from_be_bytes([sequence, 0]);
        let index = u16::from(self.interface);
        self.handle.write_control(kind, request, value, index, &[], timeout).map_err(failure)?;
        Ok(())
    }

    fn clear_halts(&mut self) -> Result<(), TransportError> {
        self.handle.clear_halt(self.output).map_err(failure)?;
        self.handle.clear_halt(self.input).map_err(failure)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // The token may be gone, and the kernel releases the interface with the handle.
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
        let nowhere =
            UsbConnector { bus: 255, device: 255, interface: 0, sysfs: "/nowhere".into() };
        assert_eq!(nowhere.open().err(), Some(TransportError::Gone));
    }
}
