//! Reports plugs and unplugs that udevd announces.
//!
//! One thread owns the monitor, because the types of the udev crate are not `Send`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use udev::{EventType, MonitorBuilder, MonitorSocket};

use super::devices::{CcidInterface, DeviceChange, PresentDevices};
use super::{Device, PlugEvent, Sink, StartError};
use crate::pcsc_reader::UsbAddress;
use crate::route::{Route, UsbConnector};
use crate::usb::{self, Usb};

const SUBSYSTEM: &str = "usb";
const INTERFACE: &str = "usb_interface";
const DEVICE: &str = "usb_device";
/// The directory with links to all USB devices and interfaces.
const DEVICES: &str = "/sys/bus/usb/devices";
const CLASS: &str = "bInterfaceClass";
/// The value of [`CLASS`] for a CCID interface (smart card reader).
const CCID_CLASS: &str = "0b";

/// Reports plugs and unplugs from udevd. Dropping it ends its thread; present devices are not reported as unplugged.
pub struct UdevSource {
    calls: Option<(mpsc::Sender<Rescan>, UnixStream)>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the thread for a scan; the thread replies when all differences have been reported.
type Rescan = mpsc::SyncSender<()>;

impl UdevSource {
    /// Starts the thread "hotplug". It calls `sink` for each token that is present, then with [`PlugEvent::Settled`],
    /// then for each plug and unplug. If the monitor fails later, it calls `on_failure` and ends.
    pub fn start(
        sink: Sink,
        route: Route,
        on_failure: impl FnOnce(io::Error) + Send + 'static,
    ) -> Result<Self, StartError> {
        let (wake, woken) = UnixStream::pair().map_err(StartError::Monitor)?;
        woken.set_nonblocking(true).map_err(StartError::Monitor)?;
        let (calls, called) = mpsc::channel();
        let (report, started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("hotplug".into())
            .spawn(move || match open_monitor() {
                Ok(monitor) => {
                    // `start` waits for this.
                    let _ = report.send(Ok(()));
                    let (devices, usb) = (PresentDevices::default(), Usb::default());
                    let mut source = Source { monitor, devices, usb, sink, route };
                    if let Err(error) = source.serve(&woken, &called) {
                        on_failure(error);
                    }
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            })
            .map_err(StartError::Monitor)?;
        let source = UdevSource { calls: Some((calls, wake)), thread: Some(thread) };
        match started.recv() {
            Ok(Ok(())) => Ok(source),
            Ok(Err(error)) => Err(StartError::Monitor(error)),
            Err(_) => Err(StartError::Monitor(io::ErrorKind::Other.into())),
        }
    }

    /// Scans the bus and reports differences to what was reported before; returns when that is done.
    ///
    /// Needed after a suspend and before the daemon exits, when no plug may be missed. Blocks for some milliseconds.
    pub fn rescan(&self) {
        let Some((calls, wake)) = &self.calls else { return };
        let (done, looked) = mpsc::sync_channel(1);
        // If the thread ended, it called `on_failure` or panicked.
        if calls.send(done).is_ok() && (&mut &*wake).write_all(&[0]).is_ok() {
            let _ = looked.recv();
        }
    }
}

impl Drop for UdevSource {
    fn drop(&mut self) {
        // The thread ends when the other end of the socket is closed.
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens a monitor for events of udevd, not of the kernel, because a token must not be opened before the udev rules ran.
fn open_monitor() -> io::Result<MonitorSocket> {
    MonitorBuilder::new()?.match_subsystem_devtype(SUBSYSTEM, INTERFACE)?.listen()
}

/// The state of the thread.
struct Source {
    monitor: MonitorSocket,
    devices: PresentDevices,
    usb: Usb,
    sink: Sink,
    /// The configured route to tokens.
    route: Route,
}

impl Source {
    fn serve(&mut self, mut woken: &UnixStream, called: &mpsc::Receiver<Rescan>) -> io::Result<()> {
        // The monitor is open already, so a token that is plugged in now may be seen twice but is not missed.
        self.scan();
        (self.sink)(PlugEvent::Settled);
        loop {
            let mut wait =
                [PollFd::new(&self.monitor, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
            match poll(&mut wait, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            self.read_events();
            match woken.read(&mut [0; 64]) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    for done in called.try_iter() {
                        self.scan();
                        // The caller may have ended.
                        let _ = done.send(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Handles all pending events of the monitor.
    fn read_events(&mut self) {
        loop {
            let Some(event) = self.monitor.iter().next() else {
                // libudev sets errno. ENOBUFS means that the socket's buffer overflowed and events were lost.
                if io::Error::last_os_error().raw_os_error() != Some(Errno::NOBUFS.raw_os_error()) {
                    return;
                }
                tracing::warn!("udev events were lost; scanning the bus");
                self.scan();
                continue;
            };
            match event.event_type() {
                EventType::Add => self.added(&event.device()),
                EventType::Remove => {
                    let path = text(event.device().syspath());
                    if let Some(change) = self.devices.removed(&path) {
                        self.report(change, None);
                    }
                }
                _ => {}
            }
        }
    }

    /// Compares the present devices with those reported before, and reports the differences.
    fn scan(&mut self) {
        let interfaces = match present() {
            Ok(interfaces) => interfaces,
            Err(error) => {
                return tracing::warn!(%error, "the present USB devices could not be listed");
            }
        };
        let described: Vec<_> = interfaces.iter().filter_map(describe).collect();
        for change in self.devices.remove_missing(described.iter().map(|(interface, _)| interface))
        {
            self.report(change, None);
        }
        interfaces.iter().for_each(|interface| self.added(interface));
    }

    fn added(&mut self, device: &udev::Device) {
        let Some((interface, facts)) = describe(device) else { return };
        for change in self.devices.added(&interface) {
            self.report(change, Some((&interface, &facts)));
        }
    }

    fn report(&self, change: DeviceChange, added: Option<(&CcidInterface, &Facts)>) {
        match (change, added) {
            (DeviceChange::Plugged(id), Some((interface, facts))) => {
                let (bus, device) = interface.address;
                let usb_interface = usb::UsbInterface {
                    address: UsbAddress { bus, device },
                    number: interface.number,
                    sysfs: interface.path.clone().into(),
                };
                let hint = facts.serial.clone().unwrap_or_else(|| facts.model.clone());
                (self.sink)(PlugEvent::Plugged(Device {
                    id,
                    port: interface.port.clone(),
                    model: facts.model.clone(),
                    usb_serial: facts.serial.clone(),
                    connector: Arc::new(UsbConnector::new(
                        self.usb.clone(),
                        usb_interface,
                        hint,
                        self.route,
                    )),
                }));
            }
            (DeviceChange::Unplugged(id), _) => (self.sink)(PlugEvent::Unplugged(id)),
            (DeviceChange::Plugged(_), None) => {}
        }
    }
}

/// Lists the CCID interfaces of all devices whose udev rules ran; others are announced when their rules have run.
///
/// libudev's own enumeration would open every device on the bus, which takes longer than the rest of the start.
fn present() -> io::Result<Vec<udev::Device>> {
    let entries = match fs::read_dir(DEVICES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut interfaces = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Devices have no interface class, and an interface may be removed meanwhile.
        let class = fs::read_to_string(path.join(CLASS));
        if !class.is_ok_and(|class| class.trim() == CCID_CLASS) {
            continue;
        }
        let Ok(interface) = udev::Device::from_syspath(&path) else { continue };
        if usb_device(&interface).is_some_and(|device| rules_have_run(&device)) {
            interfaces.push(interface);
        }
    }
    Ok(interfaces)
}

/// Whether udev's rules ran for this device. A device without a node has none that matter.
fn rules_have_run(device: &udev::Device) -> bool {
    device.devnum().is_none() || device.is_initialized()
}

/// Returns the device of an interface.
fn usb_device(interface: &udev::Device) -> Option<udev::Device> {
    interface.parent_with_subsystem_devtype(SUBSYSTEM, DEVICE).ok()?
}

struct Facts {
    model: String,
    serial: Option<String>,
}

/// Reads a CCID interface from sysfs; `None` for other interfaces and for one that was removed.
fn describe(interface: &udev::Device) -> Option<(CcidInterface, Facts)> {
    if attribute(interface, CLASS)? != CCID_CLASS {
        return None;
    }
    let device = usb_device(interface)?;
    let number = |name| attribute(&device, name)?.parse().ok();
    Some((
        CcidInterface {
            path: text(interface.syspath()),
            port: format!("usb-{}", device.sysname().to_string_lossy()),
            address: (number("busnum")?, number("devnum")?),
            number: u8::from_str_radix(&attribute(interface, "bInterfaceNumber")?, 16).ok()?,
        },
        Facts {
            model: attribute(&device, "product").unwrap_or_else(|| "USB token".into()),
            serial: attribute(&device, "serial"),
        },
    ))
}

/// Reads a sysfs attribute without control characters, which a device may put into its strings.
fn attribute(device: &udev::Device, name: &str) -> Option<String> {
    let value = device.attribute_value(name)?.to_string_lossy();
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
