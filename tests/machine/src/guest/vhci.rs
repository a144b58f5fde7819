//! Plugs devices of USB/IP servers into the ports of the kernel's virtual USB host controller (`vhci-hcd`).

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use keywright_virtual_key::usb::usbip::{BUS_ID, DEVICE_ID};

const CONTROLLER: &str = "/sys/devices/platform/vhci_hcd.0";
/// `VDEV_ST_NULL`: the port is empty.
const FREE: &str = "004";
const FULL_SPEED: u32 = 2;
const LIMIT: Duration = Duration::from_secs(60);

/// Plugs the device of the USB/IP server on this TCP port into a port of the hub, counted from 0.
pub fn plug(tcp_port: u16, port: usize) {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp_port)).unwrap();
    server.set_nodelay(true).unwrap();
    // OP_REQ_IMPORT, version 1.1.1; the reply ends with the device's record.
    let mut bus_id = [0; 32];
    bus_id[..BUS_ID.len()].copy_from_slice(BUS_ID);
    server.write_all(&[&[1, 0x11, 0x80, 3, 0, 0, 0, 0][..], &bus_id].concat()).unwrap();
    let mut answer = [0; 8 + 312];
    server.read_exact(&mut answer).unwrap();
    assert_eq!(answer[7], 0, "the server exports its device");
    // The kernel takes the socket over.
    let attach = format!("{port} {} {DEVICE_ID} {FULL_SPEED}", server.as_raw_fd());
    fs::write(format!("{CONTROLLER}/attach"), attach)
        .unwrap_or_else(|error| panic!("nothing can be plugged into port {port}: {error}"));
}

/// Unplugs the device in a port.
pub fn pull(port: usize) {
    let _ = fs::write(format!("{CONTROLLER}/detach"), port.to_string());
}

/// Waits until the kernel has noticed that a port is empty.
pub fn wait_until_free(port: usize) {
    let deadline = Instant::now() + LIMIT;
    while !free_ports().contains(&port) {
        assert!(Instant::now() < deadline, "port {port} does not become free");
        // The kernel does not announce this, so it is polled.
        thread::sleep(Duration::from_millis(2));
    }
}

/// The empty ports of the full-speed hub.
pub fn free_ports() -> Vec<usize> {
    ports().into_iter().filter(|(_, free)| *free).map(|(port, _)| port).collect()
}

/// The ports of the full-speed hub, and whether they are empty.
pub fn ports() -> Vec<(usize, bool)> {
    let status = fs::read_to_string(format!("{CONTROLLER}/status")).unwrap();
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let (hub, port, state) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        (hub == "hs").then_some((port, state == FREE))
    };
    status.lines().filter_map(port).collect()
}

/// The device's name in sysfs, such as `3-1`.
pub fn device_name(port: usize) -> String {
    let mut buses: Vec<u32> = fs::read_dir(CONTROLLER)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("usb")?.parse().ok())
        .collect();
    // The first root hub is for full and high speed, the second for super speed.
    buses.sort_unstable();
    format!("{}-{}", buses[0], port + 1)
}

/// Turns USB autosuspend off. libccid suspends idle readers, and the virtual hub resumes one port at a time: if two Keys
/// are opened at once, the kernel loses one and enumerates it again.
pub fn disable_autosuspend() {
    fs::write("/sys/module/usbcore/parameters/autosuspend", "-1").unwrap();
}

/// Path of the device node in this port.
pub fn node(port: usize) -> String {
    let device = format!("/sys/bus/usb/devices/{}", device_name(port));
    let number = |name| {
        let text = fs::read_to_string(format!("{device}/{name}")).unwrap();
        text.trim().parse::<u16>().unwrap()
    };
    format!("/dev/bus/usb/{:03}/{:03}", number("busnum"), number("devnum"))
}

/// Waits until the kernel has enumerated the device in this port, or refused it.
pub fn wait_until_there(port: usize) {
    let device = format!("/sys/bus/usb/devices/{}", device_name(port));
    let deadline = Instant::now() + LIMIT;
    while fs::metadata(&device).is_err() {
        if free_ports().contains(&port) {
            // The kernel has refused it, or it has gone again.
            return;
        }
        assert!(Instant::now() < deadline, "no device comes up in port {port}");
        thread::sleep(Duration::from_millis(2));
    }
}
