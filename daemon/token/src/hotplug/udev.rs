//! Plugs and unplugs as udevd announces them: one thread owns the monitor, because udev's types cannot leave it.

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
/// Links to all devices and interfaces on USB.
const DEVICES: &str = "/sys/bus/usb/devices";
const CLASS: &str = "bInterfaceClass";
/// [`CLASS`] of a CCID interface.
const CCID_CLASS: &str = "0b";

/// The udev source. Dropping it ends its thread; devices that are present are not reported as gone.
pub struct UdevSource {
    calls: Option<(mpsc::Sender<Rescan>, UnixStream)>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the thread to look at what is there; it answers when all of that has been reported.
type Rescan = mpsc::SyncSender<()>;

impl UdevSource {
    /// Starts the thread "hotplug", which calls `sink` for everything that is plugged in, then with
    /// [`PlugEvent::Settled`], then for what changes. Where it can hear of no more changes it calls `on_failure` and ends.
    ///
    /// # Errors
    /// [`StartError::Monitor`].
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

    /// Compares what was reported with what is there, and returns when the differences have been reported. After a
    /// suspend and before the end, when nothing may be missed. Blocks for some milliseconds.
    pub fn rescan(&self) {
        let Some((calls, wake)) = &self.calls else { return };
        let (done, looked) = mpsc::sync_channel(1);
        // A thread that has ended has said why, or panicked.
        if calls.send(done).is_ok() && (&mut &*wake).write_all(&[0]).is_ok() {
            let _ = looked.recv();
        }
    }
}

impl Drop for UdevSource {
    fn drop(&mut self) {
        // The thread sees the other end close.
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Source "udev", never "kernel": a Key must not be opened before the rules have run.
fn open_monitor() -> io::Result<MonitorSocket> {
    MonitorBuilder::new()?.match_subsystem_devtype(SUBSYSTEM, INTERFACE)?.listen()
}

/// What the thread owns.
struct Source {
    monitor: MonitorSocket,
    devices: PresentDevices,
    usb: Usb,
    sink: Sink,
    /// How tokens are to be opened.
    route: Route,
}

impl Source {
    fn serve(&mut self, mut woken: &UnixStream, called: &mpsc::Receiver<Rescan>) -> io::Result<()> {
        // The monitor listens already: what is plugged in from here on is devices twice rather than never.
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
                        // Whoever asked may have given up.
                        let _ = done.send(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reports all that udevd has said.
    fn read_events(&mut self) {
        loop {
            let Some(event) = self.monitor.iter().next() else {
                // libudev says why in errno. ENOBUFS: events came faster than they were read, and some are lost.
                if io::Error::last_os_error().raw_os_error() != Some(Errno::NOBUFS.raw_os_error()) {
                    return;
                }
                tracing::warn!("udev events were lost; looking at what is there");
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

    /// Reports how what is there differs from what was reported.
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

/// The CCID interfaces of all devices whose rules have run; any other is announced when they have. libudev's own list
/// would open everything on the bus, at each start, and take longer than all the rest of it.
fn present() -> io::Result<Vec<udev::Device>> {
    let entries = match fs::read_dir(DEVICES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut interfaces = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A device has none, and neither has what was pulled out meanwhile.
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

/// A device without a node has none to wait for.
fn rules_have_run(device: &udev::Device) -> bool {
    device.devnum().is_none() || device.is_initialized()
}

/// The device that an interface belongs to.
fn usb_device(interface: &udev::Device) -> Option<udev::Device> {
    interface.parent_with_subsystem_devtype(SUBSYSTEM, DEVICE).ok()?
}

struct Facts {
    model: String,
    serial: Option<String>,
}

/// What sysfs says of a CCID interface; `None` for any other, and for one that is gone already.
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

/// A sysfs attribute; what a device says of itself is cut to printable characters.
fn attribute(device: &udev::Device, name: &str) -> Option<String> {
    let value = device.attribute_value(name)?.to_string_lossy();
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
