//! Talks to a token over USB (CCID on libusb). Only the CCID interface is claimed, and only during a job.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusb::{
    ConfigDescriptor, Context, Device, DeviceHandle, Direction, InterfaceDescriptor, TransferType,
    UsbContext,
};

use super::ccid::Reader;
use super::ccid_transport::{CcidTransport, Pipe};
use super::pcsc_reader::UsbAddress;
use super::{Limits, TransportError};

/// The class request ABORT (CCID 5.3.1): request type (to the interface, host to device) and request.
const ABORT_REQUEST: (u8, u8) = (0x21, 0x01);

/// A CCID interface of a USB device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbInterface {
    /// The device's address.
    pub address: UsbAddress,
    /// The interface's number (sysfs `bInterfaceNumber`).
    pub number: u8,
    /// The interface's directory in sysfs.
    pub sysfs: PathBuf,
}

/// Access to the USB devices. Clones share one libusb context, because creating one takes longer than a whole plug.
#[derive(Debug, Clone, Default)]
pub struct Usb(Arc<Mutex<Option<Context>>>);

impl Usb {
    /// Claims the interface and powers the token on.
    ///
    /// # Errors
    /// [`TransportError::Busy`] if another program has claimed it.
    pub fn open(
        &self,
        interface: &UsbInterface,
    ) -> Result<CcidTransport<impl Pipe + use<>>, TransportError> {
        let device = self.find(interface.address)?;
        let (claimed, reader) = Claimed::claim(&device, interface.number)?;
        CcidTransport::open(claimed, reader)
    }

    /// Reads the APDU sizes that the token accepts from its descriptor. It claims nothing.
    ///
    /// # Errors
    /// [`TransportError::Unusable`] if its reader does not exchange APDUs.
    pub fn limits(&self, interface: &UsbInterface) -> Result<Limits, TransportError> {
        let device = self.find(interface.address)?;
        let configuration = device.active_config_descriptor().map_err(failure)?;
        Ok(Reader::parse(descriptor(&configuration, interface.number)?.extra())?.limits())
    }

    fn find(&self, address: UsbAddress) -> Result<Device<Context>, TransportError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = &*shared {
            // libusb processes pending plugs before it lists devices.
            if let Some(device) = listed(context, address)? {
                return Ok(device);
            }
        } // libusb may miss plugs when many devices are plugged in at once. A new context scans the bus.
        let context = shared.insert(Context::new().map_err(failure)?);
        listed(context, address)?.ok_or(TransportError::Gone)
    }
}

fn listed(
    context: &Context,
    address: UsbAddress,
) -> Result<Option<Device<Context>>, TransportError> {
    let devices = context.devices().map_err(failure)?;
    let is_it = |d: &Device<_>| d.bus_number() == address.bus && d.address() == address.device;
    Ok(devices.iter().find(is_it))
}

fn descriptor(
    configuration: &ConfigDescriptor,
    interface: u8,
) -> Result<InterfaceDescriptor<'_>, TransportError> {
    configuration
        .interfaces()
        .filter(|i| i.number() == interface)
        .find_map(|i| i.descriptors().next())
        .ok_or(TransportError::Gone)
}

/// A claimed interface.
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
        let descriptor = descriptor(&configuration, interface)?;
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
        // The low byte is the slot, 0.
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
        // Best effort: the token may be unplugged, and closing the handle releases the interface too.
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
        rusb::Error::Busy => TransportError::Busy { holder: "another program".into() },
        rusb::Error::Timeout => TransportError::Timeout,
        rusb::Error::Access => {
            TransportError::Unusable("this program may not open its USB device".into())
        }
        error => TransportError::Protocol(format!("USB: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_device_is_gone() {
        let address = UsbAddress { bus: 255, device: 255 };
        let nowhere = UsbInterface { address, number: 0, sysfs: PathBuf::new() };
        let usb = Usb::default();
        assert_eq!(usb.open(&nowhere).err(), Some(TransportError::Gone));
        assert_eq!(usb.limits(&nowhere).err(), Some(TransportError::Gone));
    }
}
