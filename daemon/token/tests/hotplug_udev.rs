//! Tests the udev source with the real libudev and a mocked sysfs and udevd (umockdev).
//!
//! The test runs itself again under `umockdev-wrapper`, which redirects /sys and the udev monitor's socket of that process
//! to a directory. The test writes sysfs files and udevd's messages there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use keywright_token::Route;
use keywright_token::hotplug::{Device, DeviceId, PlugEvent, UdevSource};

const TEST: &str = "one_plug_gives_one_event";
/// How long to wait for an expected event.
const TIMEOUT: Duration = Duration::from_secs(60);
/// MurmurHash2 of the names, which udevd puts into the header of a message for the socket filter.
const USB: u32 = 0x0577_C5E5;
const USB_DEVICE: u32 = 0x27F8_F50C;
const USB_INTERFACE: u32 = 0xB102_4765;
/// A CCID interface, a keyboard's.
const CCID: &str = "0b";
const HID: &str = "03";

#[test]
fn one_plug_gives_one_event() {
    if let Some(directory) = std::env::var_os("UMOCKDEV_DIR") {
        return scenario(&TestBed { root: directory.into() });
    }
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("umockdev-wrapper")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env("UMOCKDEV_DIR", directory.path())
        .status()
        .expect("umockdev-wrapper cannot be run; install the package umockdev");
    assert!(status.success(), "the scenario under umockdev-wrapper failed; see above");
}

fn scenario(bed: &TestBed) {
    // Present at the start: a Key with two CCID interfaces and a keyboard, a mouse, and a Key whose rules have not run.
    bed.make("1-1", 5, &[(CCID, 0), (HID, 1), (CCID, 2)]);
    bed.make("1-9", 6, &[(HID, 0)]);
    bed.make("1-4", 7, &[(CCID, 0)]);
    bed.rules_have_not_run("1-4", 7);

    let (events, heard) = mpsc::channel();
    let events = Mutex::new(events);
    let sink = Arc::new(move |event| events.lock().unwrap().send(event).unwrap());
    let source = UdevSource::start(sink, Route::Auto, |error| panic!("deaf: {error}")).unwrap();
    let next = || heard.recv_timeout(TIMEOUT).expect("an event in time");

    let first = plugged(next());
    assert_eq!(first.port, "usb-1-1");
    assert_eq!(first.model, "Key at 1-1");
    assert_eq!(first.usb_serial.as_deref(), Some("S5"));
    assert!(matches!(next(), PlugEvent::Settled));

    // Repetitions give no event; the rules of the other Key have now run.
    for action in ["bind", "change", "add", "add"] {
        bed.say(action, "1-1:1.0", "usb_interface");
        bed.say(action, "1-1:1.2", "usb_interface");
        bed.say(action, "1-1", "usb_device");
    }
    bed.say("add", "1-9:1.0", "usb_interface");
    bed.say("add", "1-4:1.0", "usb_interface");
    let second = plugged(next());
    assert_eq!(second.port, "usb-1-4");

    // Behind a hub, without product name and serial number.
    bed.make("1-2.3", 8, &[(CCID, 0)]);
    fs::remove_file(bed.sysfs("1-2.3").join("product")).unwrap();
    fs::remove_file(bed.sysfs("1-2.3").join("serial")).unwrap();
    bed.say("add", "1-2.3:1.0", "usb_interface");
    let third = plugged(next());
    assert_eq!((third.port.as_str(), third.model.as_str()), ("usb-1-2.3", "USB token"));
    assert_eq!(third.usb_serial, None);

    // Unplugged: the kernel announces each interface and the device.
    bed.remove("1-1", &[0, 1, 2]);
    assert_eq!(unplugged(next()), first.id);

    // Plugged in again: the same port, another id.
    bed.make("1-1", 9, &[(CCID, 0)]);
    bed.say("add", "1-1:1.0", "usb_interface");
    bed.say("bind", "1-1", "usb_device");
    let again = plugged(next());
    assert_eq!(again.port, first.port);
    assert_ne!(again.id, first.id);

    // Its removal is missed, and another Key is plugged into its port.
    fs::remove_dir_all(bed.sysfs("1-1")).unwrap();
    bed.make("1-1", 10, &[(CCID, 0)]);
    bed.say("add", "1-1:1.0", "usb_interface");
    assert_eq!(unplugged(next()), again.id);
    assert_eq!(plugged(next()).usb_serial.as_deref(), Some("S10"));

    // The thread ends with the source and drops its end of the channel.
    drop(source);
    assert_eq!(heard.try_recv().err(), Some(mpsc::TryRecvError::Disconnected));
}

fn plugged(event: PlugEvent) -> Device {
    match event {
        PlugEvent::Plugged(device) => device,
        other => panic!("{other:?} instead of a plug"),
    }
}

fn unplugged(event: PlugEvent) -> DeviceId {
    match event {
        PlugEvent::Unplugged(id) => id,
        other => panic!("{other:?} instead of an unplug"),
    }
}

/// The directory to which umockdev redirects /sys and the udev monitor.
struct TestBed {
    root: PathBuf,
}

impl TestBed {
    fn sysfs(&self, device: &str) -> PathBuf {
        self.root.join("sys/devices/usb1").join(device)
    }

    /// Creates a USB device with interfaces of these classes and numbers, as the kernel does.
    fn make(&self, name: &str, devnum: u8, interfaces: &[(&str, u8)]) {
        let device = self.sysfs(name);
        let number = devnum.to_string();
        let (product, serial) = (format!("Key at {name}"), format!("S{devnum}"));
        self.make_node(
            &device,
            "DEVTYPE=usb_device\n",
            &[("busnum", "1"), ("devnum", &number), ("product", &product), ("serial", &serial)],
        );
        for (class, interface) in interfaces {
            let path = device.join(format!("{name}:1.{interface}"));
            let interface = format!("{interface:02x}");
            let attributes = [("bInterfaceClass", *class), ("bInterfaceNumber", &interface)];
            self.make_node(&path, "DEVTYPE=usb_interface\n", &attributes);
        }
    }

    /// Marks a device as one whose udev rules have not run: it has a node but no entry in udevd's database, which umockdev
    /// does not provide.
    fn rules_have_not_run(&self, name: &str, devnum: u8) {
        let node = format!("MAJOR=189\nMINOR={devnum}\nDEVNAME=bus/usb/001/{devnum:03}\n");
        let uevent = format!("DEVTYPE=usb_device\n{node}");
        fs::write(self.sysfs(name).join("uevent"), uevent).unwrap();
    }

    fn make_node(&self, path: &Path, uevent: &str, attributes: &[(&str, &str)]) {
        let bus = self.root.join("sys/bus/usb");
        fs::create_dir_all(path).unwrap();
        fs::create_dir_all(bus.join("devices")).unwrap();
        fs::write(path.join("uevent"), uevent).unwrap();
        for (name, value) in attributes {
            fs::write(path.join(name), format!("{value}\n")).unwrap();
        }
        let up = "../".repeat(path.strip_prefix(&self.root).unwrap().components().count() - 1);
        symlink(format!("{up}bus/usb"), path.join("subsystem")).unwrap();
        let link = bus.join("devices").join(path.file_name().unwrap());
        let _ = fs::remove_file(&link);
        let target = path.strip_prefix(self.root.join("sys")).unwrap();
        symlink(Path::new("../../..").join(target), link).unwrap();
    }

    fn remove(&self, name: &str, interfaces: &[u8]) {
        fs::remove_dir_all(self.sysfs(name)).unwrap();
        for interface in interfaces {
            let interface = format!("{name}:1.{interface}");
            self.say("unbind", &interface, "usb_interface");
            self.say("remove", &interface, "usb_interface");
        }
        self.say("remove", name, "usb_device");
    }

    /// Sends an event to every monitor as udevd does (systemd, sd-device/device-monitor.c): a header with hashes for the
    /// socket filter, then the properties.
    fn say(&self, action: &str, name: &str, devtype: &str) {
        let device = name.split(':').next().unwrap();
        let path = if device == name { name.to_owned() } else { format!("{device}/{name}") };
        let properties = format!(
            "ACTION={action}\0DEVPATH=/devices/usb1/{path}\0SUBSYSTEM=usb\0DEVTYPE={devtype}\0SEQNUM=1\0"
        );
        let devtype_hash: u32 = if devtype == "usb_device" { USB_DEVICE } else { USB_INTERFACE };
        let mut message = b"libudev\0".to_vec();
        message.extend_from_slice(&0xFEED_CAFE_u32.to_be_bytes());
        for field in [40, 40, u32::try_from(properties.len()).unwrap()] {
            message.extend_from_slice(&field.to_ne_bytes());
        }
        for hash in [USB, devtype_hash, 0, 0] {
            message.extend_from_slice(&hash.to_be_bytes());
        }
        message.extend_from_slice(properties.as_bytes());
        let socket = UnixDatagram::unbound().unwrap();
        let monitors = fs::read_dir(&self.root).unwrap().map(|entry| entry.unwrap().path());
        let is_monitor = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("event"))
        };
        let sent = monitors.filter(is_monitor).map(|path| socket.send_to(&message, path).unwrap());
        assert_ne!(sent.count(), 0, "there is no udev monitor");
    }
}
