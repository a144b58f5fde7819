//! Turns announcements of interfaces into one plug and one unplug for each device.
//!
//! The kernel and udevd may repeat an announcement, and a device may have several CCID interfaces.

use std::collections::{HashMap, HashSet};

use super::DeviceId;

/// A CCID interface that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CcidInterface {
    /// The interface's path in sysfs, which identifies it until it is removed.
    pub path: String,
    /// The physical port of its device: `usb-1-2.3`.
    pub port: String,
    /// The USB bus and the device's number on it; a new number for each plug.
    pub address: (u8, u8),
    /// The interface's number.
    pub number: u8,
}

/// A plug or unplug that follows from an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChange {
    /// A device was plugged in; the announced interface is the one to open.
    Plugged(DeviceId),
    /// A device was unplugged.
    Unplugged(DeviceId),
}

/// The devices that are plugged in.
#[derive(Debug, Default)]
pub struct PresentDevices {
    present: HashMap<String, Present>,
    plugs: u64,
}

#[derive(Debug)]
struct Present {
    id: DeviceId,
    address: (u8, u8),
    interface: String,
}

impl PresentDevices {
    /// Handles the announcement of an interface.
    ///
    /// There is no change if its device is known already (a repetition, or a second interface). If another device is
    /// known at its port, the removal of that one was missed, and it is reported first.
    pub fn added(&mut self, interface: &CcidInterface) -> Vec<DeviceChange> {
        let mut changes = Vec::new();
        if let Some(present) = self.present.get(&interface.port) {
            if present.address == interface.address {
                return changes;
            }
            changes.push(DeviceChange::Unplugged(present.id.clone()));
        }
        self.plugs += 1;
        let id = DeviceId(format!("{}#{}", interface.port, self.plugs));
        changes.push(DeviceChange::Plugged(id.clone()));
        let present = Present { id, address: interface.address, interface: interface.path.clone() };
        self.present.insert(interface.port.clone(), present);
        changes
    }

    /// Handles the removal of an interface. Its device is unplugged if it was reported with this interface.
    pub fn removed(&mut self, path: &str) -> Option<DeviceChange> {
        let port = self.present.iter().find(|(_, p)| p.interface == path).map(|(port, _)| port)?;
        let port = port.clone();
        self.present.remove(&port).map(|present| DeviceChange::Unplugged(present.id))
    }

    /// Removes the devices whose interface is not among those that are present now.
    pub fn remove_missing<'a>(
        &mut self,
        there: impl Iterator<Item = &'a CcidInterface>,
    ) -> Vec<DeviceChange> {
        let there: HashSet<_> = there.map(|i| (i.path.as_str(), i.address)).collect();
        let gone = self.present.extract_if(|_, present| {
            !there.contains(&(present.interface.as_str(), present.address))
        });
        let mut gone: Vec<_> = gone.map(|(_, present)| present.id).collect();
        gone.sort();
        gone.into_iter().map(DeviceChange::Unplugged).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interface(port: u8, device: u8, number: u8) -> CcidInterface {
        CcidInterface {
            path: format!("/sys/devices/usb1/1-{port}/1-{port}:1.{number}"),
            port: format!("usb-1-{port}"),
            address: (1, device),
            number,
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Message {
        Added(u8, u8, u8),
        Removed(u8, u8),
        /// A scan that finds this device at this port, or no device.
        Scanned(Option<(u8, u8)>),
    }
    use Message::{Added, Removed, Scanned};

    fn run(messages: &[Message]) -> Vec<DeviceChange> {
        let mut seen = PresentDevices::default();
        messages
            .iter()
            .flat_map(|messages| match *messages {
                Added(port, device, number) => seen.added(&interface(port, device, number)),
                Removed(port, number) => {
                    seen.removed(&interface(port, 0, number).path).into_iter().collect()
                }
                Scanned(there) => {
                    let there = there.map(|(port, device)| interface(port, device, 0));
                    let mut changes = seen.remove_missing(there.iter());
                    changes.extend(there.iter().flat_map(|i| seen.added(i)));
                    changes
                }
            })
            .collect()
    }

    #[test]
    fn one_plug_gives_one_event() {
        for (messages, expected) in [
            (&[Added(1, 5, 0)][..], &["+usb-1-1#1"][..]),
            // Repeated by the kernel, by udevadm trigger, or by the enumeration.
            (&[Added(1, 5, 0), Added(1, 5, 0)], &["+usb-1-1#1"]),
            // One device with two CCID interfaces.
            (&[Added(1, 5, 0), Added(1, 5, 1)], &["+usb-1-1#1"]),
            (
                &[Added(1, 5, 0), Added(1, 5, 1), Removed(1, 1), Removed(1, 0)],
                &["+usb-1-1#1", "-usb-1-1#1"],
            ),
            // Plugged in again.
            (
                &[Added(1, 5, 0), Removed(1, 0), Added(1, 6, 0)],
                &["+usb-1-1#1", "-usb-1-1#1", "+usb-1-1#2"],
            ),
            // A removal was missed.
            (&[Added(1, 5, 0), Added(1, 6, 0)], &["+usb-1-1#1", "-usb-1-1#1", "+usb-1-1#2"]),
            // Removals of an unknown interface, and of the same one twice.
            (&[Removed(1, 0)], &[]),
            (&[Added(1, 5, 0), Removed(1, 0), Removed(1, 0)], &["+usb-1-1#1", "-usb-1-1#1"]),
            // Two ports.
            (
                &[Added(1, 5, 0), Added(2, 6, 0), Removed(1, 0)],
                &["+usb-1-1#1", "+usb-1-2#2", "-usb-1-1#1"],
            ),
            // A scan after lost events: an unplug, a plug, another device at the port, no change, an empty bus.
            (
                &[Added(1, 5, 0), Added(2, 6, 0), Scanned(Some((2, 6)))],
                &["+usb-1-1#1", "+usb-1-2#2", "-usb-1-1#1"],
            ),
            (&[Scanned(Some((1, 5))), Added(1, 5, 0)], &["+usb-1-1#1"]),
            (&[Added(1, 5, 0), Scanned(Some((1, 6)))], &["+usb-1-1#1", "-usb-1-1#1", "+usb-1-1#2"]),
            (&[Added(1, 5, 0), Scanned(Some((1, 5)))], &["+usb-1-1#1"]),
            (&[Added(1, 5, 0), Scanned(None), Scanned(None)], &["+usb-1-1#1", "-usb-1-1#1"]),
        ] {
            let changes: Vec<_> = run(messages)
                .into_iter()
                .map(|change| match change {
                    DeviceChange::Plugged(id) => format!("+{}", id.0),
                    DeviceChange::Unplugged(id) => format!("-{}", id.0),
                })
                .collect();
            assert_eq!(changes, expected, "{messages:?}");
        }
    }

    proptest! {
        #[test]
        fn plugs_and_unplugs_alternate(
            messages in prop::collection::vec(
                prop_oneof![
                    (0..3_u8, 0..4_u8, 0..2_u8).prop_map(|(p, d, n)| Added(p, d, n)),
                    (0..3_u8, 0..2_u8).prop_map(|(p, n)| Removed(p, n)),
                    prop::option::of((0..3_u8, 0..4_u8)).prop_map(Scanned),
                ],
                0..60,
            )
        ) {
            let mut present: HashMap<String, DeviceId> = HashMap::new();
            let mut ever = std::collections::HashSet::new();
            for change in run(&messages) {
                match change {
                    DeviceChange::Plugged(id) => {
                        let port = id.0.split('#').next().unwrap().to_owned();
                        prop_assert!(ever.insert(id.clone()), "an id is never used again");
                        prop_assert_eq!(present.insert(port, id), None);
                    }
                    DeviceChange::Unplugged(id) => {
                        let port = id.0.split('#').next().unwrap();
                        prop_assert_eq!(present.remove(port), Some(id));
                    }
                }
            }
        }
    }
}
