//! Collects facts for `doctor`: the tokens on USB, from sysfs, and the processes that have them open, from proc.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const INTERFACE_DESCRIPTOR: u8 = 4;
const CCID_DESCRIPTOR: u8 = 0x21;
const CCID_CLASS: u8 = 0x0B;
/// `Usage Page (FIDO Alliance)`: the first bytes of a FIDO token's HID report descriptor.
const FIDO_USAGE_PAGE: [u8; 3] = [0x06, 0xD0, 0xF1];

/// A security token or a smart card reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Product name and port.
    pub name: String,
    /// Port, as the daemon names it.
    pub port: String,
    /// Its level of exchange; None without a CCID interface.
    pub level: Option<ExchangeLevel>,
    /// User id of its device node's owner; None without a node.
    pub owner: Option<u32>,
    /// Whether a program has claimed its CCID interface.
    pub claimed: bool,
    /// The processes that have it open; without root only the caller's own.
    pub holders: Vec<Holder>,
}

/// Level of exchange of a reader (CCID 1.1, 5.1, `dwFeatures`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeLevel {
    /// Whole APDUs, which a Key needs.
    Apdu,
    /// TPDUs: the host runs the card protocol.
    Tpdu,
    /// Single characters.
    Character,
}

/// A process that has a token open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Program name.
    pub name: String,
}

/// Lists the tokens that are plugged in, sorted by name. `root` is `/` except in tests.
pub fn tokens(root: &Path) -> Vec<Token> {
    let devices = fs::read_dir(root.join("sys/bus/usb/devices")).into_iter().flatten().flatten();
    let mut tokens: Vec<Token> = devices.filter_map(|entry| token(root, &entry.path())).collect();
    tokens.sort_by(|one, other| one.name.cmp(&other.name));
    tokens
}

fn token(root: &Path, device: &Path) -> Option<Token> {
    let port = device.file_name()?.to_str()?.to_owned();
    if port.contains(':') {
        return None; // an interface
    }
    let level = level(&fs::read(device.join("descriptors")).ok()?);
    if level.is_none() && !is_fido(device) {
        return None;
    }
    let attribute = |name| {
        let text = fs::read_to_string(device.join(name)).ok()?;
        Some(text.trim().chars().filter(|c| !c.is_control()).collect::<String>())
    };
    let number = |name| attribute(name)?.parse::<u16>().ok();
    let node = match (number("busnum"), number("devnum")) {
        (Some(bus), Some(device)) => PathBuf::from(format!("/dev/bus/usb/{bus:03}/{device:03}")),
        _ => return None,
    };
    let product = attribute("product").unwrap_or_else(|| "USB token".into());
    let below_root = root.join(node.strip_prefix("/").ok()?);
    Some(Token {
        name: format!("{product} at usb-{port}"),
        port: format!("usb-{port}"),
        level,
        owner: fs::metadata(below_root).ok().map(|metadata| metadata.uid()),
        claimed: interfaces(device).any(|interface| {
            let class = fs::read_to_string(interface.join("bInterfaceClass")).unwrap_or_default();
            class.trim() == "0b" && interface.join("driver").symlink_metadata().is_ok()
        }),
        holders: holders(root, &node),
    })
}

fn interfaces(device: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(device).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("bInterfaceClass").is_file())
}

/// Reads the first CCID interface's level of exchange from the device's descriptors.
fn level(mut descriptors: &[u8]) -> Option<ExchangeLevel> {
    let mut is_ccid = false;
    while let [length, kind, ..] = *descriptors {
        let length = usize::from(length);
        if length < 2 || length > descriptors.len() {
            return None;
        }
        let (descriptor, rest) = descriptors.split_at(length);
        match kind {
            INTERFACE_DESCRIPTOR => is_ccid = descriptor.get(5) == Some(&CCID_CLASS),
            CCID_DESCRIPTOR if is_ccid => {
                // The third byte of dwFeatures.
                return Some(match descriptor.get(42).map(|byte| byte & 7) {
                    Some(2 | 4) => ExchangeLevel::Apdu,
                    Some(1) => ExchangeLevel::Tpdu,
                    _ => ExchangeLevel::Character,
                });
            }
            _ => {}
        }
        descriptors = rest;
    }
    None
}

/// Whether one of the interfaces is that of a FIDO token.
fn is_fido(device: &Path) -> bool {
    let below = |interface: PathBuf| fs::read_dir(interface).into_iter().flatten().flatten();
    interfaces(device).flat_map(below).any(|hid| {
        let report = fs::read(hid.path().join("report_descriptor")).unwrap_or_default();
        report.starts_with(&FIDO_USAGE_PAGE)
    })
}

/// Lists the processes that have a device node open. Only root sees this of other users' processes.
fn holders(root: &Path, node: &Path) -> Vec<Holder> {
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut holders: Vec<Holder> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|path| path == node)).then(|| {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                Holder { pid, name: name.trim().to_owned() }
            })
        })
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::installed::tests::put;

    /// Makes descriptors of a device, an interface of this class, and a reader with these `dwFeatures`.
    fn descriptors(class: u8, features: u32) -> Vec<u8> {
        let mut device = vec![0; 18];
        device[..2].copy_from_slice(&[18, 1]);
        let interface = [9, 4, 0, 0, 2, class, 0, 0, 0];
        let mut reader = vec![0; 54];
        reader[..2].copy_from_slice(&[54, 0x21]);
        reader[40..44].copy_from_slice(&features.to_le_bytes());
        [device, interface.to_vec(), reader].concat()
    }

    #[test]
    fn exchange_level_is_read_from_the_ccid_descriptor() {
        for (class, features, expected) in [
            (0x0B, 0x0004_0000, Some(ExchangeLevel::Apdu)),
            (0x0B, 0x0002_0008, Some(ExchangeLevel::Apdu)),
            (0x0B, 0x0001_0000, Some(ExchangeLevel::Tpdu)),
            (0x0B, 0, Some(ExchangeLevel::Character)),
            // The HID descriptor has the same type number.
            (0x03, 0x0004_0000, None),
        ] {
            assert_eq!(level(&descriptors(class, features)), expected, "{class:x} {features:x}");
        }
        let whole = descriptors(0x0B, 0x0004_0000);
        for length in 0..whole.len() {
            assert_eq!(level(&whole[..length]), None, "cut at {length}");
        }
        assert_eq!(level(&[0, 0, 0]), None);
    }

    #[test]
    fn tokens_and_their_holders_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let sys = "sys/bus/usb/devices";
        for (port, number, class) in [("1-1", "5", 0x0B), ("1-2", "6", 0x03), ("1-3", "7", 0x03)] {
            put(root, &format!("{sys}/{port}/descriptors"), descriptors(class, 0x4_0000));
            put(root, &format!("{sys}/{port}/busnum"), "1\n");
            put(root, &format!("{sys}/{port}/devnum"), format!("{number}\n"));
            put(root, &format!("{sys}/{port}/product"), "Thing\n");
            let class = format!("{class:02x}\n");
            put(root, &format!("{sys}/{port}/{port}:1.0/bInterfaceClass"), class);
        }
        // The second is a FIDO token, the third a keyboard.
        let fido = format!("{sys}/1-2/1-2:1.0/0003:20A0:42B2.0001/report_descriptor");
        put(root, &fido, [0x06, 0xD0, 0xF1, 0x09, 0x01]);
        symlink("../usbfs", root.join(format!("{sys}/1-1/1-1:1.0/driver"))).unwrap();
        put(root, "dev/bus/usb/001/005", "");
        put(root, "proc/77/comm", "scdaemon\n");
        fs::create_dir_all(root.join("proc/77/fd")).unwrap();
        symlink("/dev/bus/usb/001/005", root.join("proc/77/fd/3")).unwrap();
        put(root, "proc/78/comm", "other\n");

        let found = tokens(root);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].name, "Thing at usb-1-1");
        assert_eq!((found[0].level, found[0].claimed), (Some(ExchangeLevel::Apdu), true));
        assert_eq!(found[0].holders, [Holder { pid: 77, name: "scdaemon".into() }]);
        assert_eq!((found[1].level, found[1].owner), (None, None));
    }
}
