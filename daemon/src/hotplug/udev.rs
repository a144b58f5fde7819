//! Plugs and unplugs as udevd announces them: one thread owns the monitor, because udev's types cannot leave it.

use std::collections::HashSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::{future, io};

use futures_core::Stream;
use tokio::sync::oneshot;
use tokio_udev::{AsyncMonitorSocket, Enumerator, EventType, MonitorBuilder};

use super::seen::{Change, Interface, Seen};
use super::{Device, Event, Sink, StartError};
use crate::token::UsbConnector;

const SUBSYSTEM: &str = "usb";
const INTERFACE: &str = "usb_interface";
const DEVICE: &str = "usb_device";
/// `bInterfaceClass` of a CCID interface.
const CCID_CLASS: &str = "0b";

/// The udev source. Dropping it ends its thread; devices that are present are not reported as gone.
pub struct UdevSource {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl UdevSource {
    /// Starts the thread "hotplug", which calls `sink` for everything that is plugged in, then with
    /// [`Event::Settled`], then for what changes.
    ///
    /// # Errors
    /// [`StartError::Monitor`].
    pub fn start(sink: Sink) -> Result<Self, StartError> {
        let (stop, stopped) = oneshot::channel();
        let (report, started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("hotplug".into())
            .spawn(move || {
                let prepared = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
                    .and_then(|runtime| {
                        let entered = runtime.enter();
                        let monitor = open_monitor()?;
                        drop(entered);
                        Ok((runtime, monitor))
                    });
                match prepared {
                    Ok((runtime, monitor)) => {
                        // `start` waits for this.
                        let _ = report.send(Ok(()));
                        runtime.block_on(run(monitor, &sink, stopped));
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            })
            .map_err(StartError::Monitor)?;
        let source = UdevSource { stop: Some(stop), thread: Some(thread) };
        match started.recv() {
            Ok(Ok(())) => Ok(source),
            Ok(Err(error)) => Err(StartError::Monitor(error)),
            Err(_) => Err(StartError::Monitor(io::ErrorKind::Other.into())),
        }
    }
}

impl Drop for UdevSource {
    fn drop(&mut self) {
        // The thread ends when the sender does.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Source "udev", never "kernel": a Key must not be opened before the rules have run.
fn open_monitor() -> io::Result<AsyncMonitorSocket> {
    let monitor = MonitorBuilder::new()?.match_subsystem_devtype(SUBSYSTEM, INTERFACE)?;
    AsyncMonitorSocket::new(monitor.listen()?)
}

async fn run(mut monitor: AsyncMonitorSocket, sink: &Sink, mut stopped: oneshot::Receiver<()>) {
    let mut seen = Seen::default();
    // The monitor listens already: what is plugged in from here on is seen twice rather than never.
    match present() {
        Ok(interfaces) => interfaces.iter().for_each(|i| added(&mut seen, i, sink)),
        Err(error) => tracing::warn!(%error, "the present USB devices could not be listed"),
    }
    sink(Event::Settled);
    loop {
        let next = future::poll_fn(|context| Pin::new(&mut monitor).poll_next(context));
        let event = tokio::select! {
            _ = &mut stopped => return,
            event = next => event,
        };
        match event {
            Some(Ok(event)) => match event.event_type() {
                EventType::Add => added(&mut seen, &event.device(), sink),
                EventType::Remove => {
                    let path = event.device().syspath().to_string_lossy().into_owned();
                    if let Some(change) = seen.removed(&path) {
                        report(change, None, sink);
                    }
                }
                _ => {}
            },
            Some(Err(error)) => tracing::warn!(%error, "a udev event was lost"),
            None => return,
        }
    }
}

/// The interfaces of all devices whose rules have run; any other is announced when they have.
fn present() -> io::Result<Vec<udev::Device>> {
    let mut enumerator = Enumerator::new()?;
    enumerator.match_subsystem(SUBSYSTEM)?;
    // Holds back devices with a node, so not interfaces: those go by their device.
    enumerator.match_is_initialized()?;
    let (devices, interfaces): (Vec<_>, Vec<_>) =
        enumerator.scan_devices()?.partition(|d| d.devtype().is_some_and(|kind| kind == DEVICE));
    let ready: HashSet<&Path> = devices.iter().map(udev::Device::syspath).collect();
    let is_ready =
        |i: &udev::Device| usb_device(i).is_some_and(|device| ready.contains(device.syspath()));
    Ok(interfaces.into_iter().filter(is_ready).collect())
}

/// The device that an interface belongs to.
fn usb_device(interface: &udev::Device) -> Option<udev::Device> {
    interface.parent_with_subsystem_devtype(SUBSYSTEM, DEVICE).ok()?
}

fn added(seen: &mut Seen, device: &udev::Device, sink: &Sink) {
    let Some((interface, facts)) = describe(device) else { return };
    for change in seen.added(&interface) {
        report(change, Some((&interface, &facts)), sink);
    }
}

fn report(change: Change, added: Option<(&Interface, &Facts)>, sink: &Sink) {
    match (change, added) {
        (Change::Plugged(id), Some((interface, facts))) => {
            let (bus, device) = interface.address;
            sink(Event::Plugged(Device {
                id,
                port: interface.port.clone(),
                model: facts.model.clone(),
                usb_serial: facts.serial.clone(),
                connector: Arc::new(UsbConnector { bus, device, interface: interface.number }),
            }));
        }
        (Change::Unplugged(id), _) => sink(Event::Unplugged(id)),
        (Change::Plugged(_), None) => {}
    }
}

struct Facts {
    model: String,
    serial: Option<String>,
}

/// What sysfs says of a CCID interface; `None` for any other, and for one that is gone already.
fn describe(interface: &udev::Device) -> Option<(Interface, Facts)> {
    if attribute(interface, "bInterfaceClass")? != CCID_CLASS {
        return None;
    }
    let device = usb_device(interface)?;
    let number = |name| attribute(&device, name)?.parse().ok();
    Some((
        Interface {
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
