//! Tests with USB devices that are not Keys, harmless and faulty ones. The daemon logs at most one line about each, keeps
//! running, and other Keys work meanwhile.

use keywright_bus_tests::{Answers, Objects};
use keywright_virtual_key::usb::{
    Answer,
    descriptors::{BULK_IN, BULK_OUT, bulk, ccid, ccid_interface, interface, interrupt},
};

use crate::{
    device::{Inserted, Script, Scripted, reply},
    machine::{Machine, Plugged},
    system, vhci,
};

const LONGEST: u32 = 3072;
const CCID_CLASS: [u8; 3] = [0x0B, 0, 0];
/// T=1, no historical bytes.
const ATR: [u8; 4] = [0x3B, 0x80, 0x01, 0x81];

/// A machine with a Master that must keep working while faulty devices are plugged in.
struct Witness {
    machine: Machine,
    master: Plugged,
    cursor: String,
    process: String,
    /// Number of other Keys plugged in so far: each has a new name, so that its offer is a new one.
    others: usize,
}

impl Witness {
    async fn new() -> Self {
        let (machine, master) = Machine::with_master().await;
        let (cursor, process) = (system::journal_cursor(), system::unit("MainPID"));
        Self { machine, master, cursor, process, others: 0 }
    }

    /// Plugs the device in; asserts that it is shown as unusable, with one line in the log that has this text, and that
    /// another Key is offered meanwhile.
    async fn assert_unusable(&mut self, device: Scripted, why: &str) {
        let cursor = system::journal_cursor();
        let inserted = Inserted::plug(device);
        self.others += 1;
        let other = self.machine.plug(&format!("beside {}", self.others)).await;
        self.machine.offer(&self.master, &other).await;
        let key = self.machine.until_shown_in(inserted.port).await;
        self.machine.until_state(&key, "unusable").await;
        self.machine.unplug(other).await;
        drop(inserted);
        self.machine.until_gone(&key).await;
        system::wait_for_journal(&cursor, "cannot be used");
        system::wait_for_journal(&cursor, "is offered");
        let all = system::journal_since(&cursor);
        let said: Vec<_> = all.lines().filter(|line| !line.contains("is offered")).collect();
        assert_eq!(said.len(), 1, "exactly one line is logged:\n{all}");
        assert!(said[0].contains(why), "{why:?} is not in {said:?}");
    }

    /// Plugs the device in; asserts that the daemon neither shows nor logs it.
    async fn assert_ignored(&mut self, name: &str, device: Scripted) {
        let cursor = system::journal_cursor();
        let before = present(&self.machine.watch.objects().await);
        let inserted = Inserted::plug(device);
        // The hub handles one port after the other: once this Key is shown, the device was handled too.
        let other = self.machine.plug(&format!("beside {name}")).await;
        system::run("udevadm settle");
        self.machine.offer(&self.master, &other).await;
        let now = present(&self.machine.watch.objects().await);
        assert_eq!(now, before + 1, "only the other Key is shown");
        drop(inserted);
        self.machine.unplug(other).await;
        let said = system::wait_for_journal(&cursor, "is offered");
        assert_eq!(said.len(), 1, "nothing is logged about the device: {said:?}");
    }

    /// Asserts that the daemon was not restarted and that the Master can make a Sub Key.
    async fn assert_works(mut self) {
        assert_eq!(
            system::unit("MainPID"),
            self.process,
            "{}",
            system::journal_since(&self.cursor)
        );
        let blank = self.machine.plug("blank").await;
        self.machine.make(&self.master, &blank, &Answers::sub("Sub", &[])).await;
    }
}

fn signal_daemon(name: &str) {
    system::run(&format!("systemctl kill --signal={name} {}", system::UNIT));
}

fn present(objects: &Objects) -> usize {
    objects.present().count()
}

/// A reader that answers power-on and similar messages, and follows the script for commands.
fn after_power_on(mut script: impl FnMut(&[u8]) -> Answer + Send + 'static) -> Script {
    Box::new(move |message| match message[0] {
        0x62 => Answer::Data(reply(message, 0x80, [0; 3], &ATR)),
        0x63 | 0x72 => Answer::Data(reply(message, 0x81, [0; 3], &[])),
        _ => script(message),
    })
}

fn silent() -> Script {
    Box::new(|_| Answer::Nak)
}

fn reader(name: &str, script: Script) -> Scripted {
    Scripted::new(name, &[ccid_interface(0, LONGEST)], script)
}

/// A reader without a card.
pub(super) fn empty_reader() -> Scripted {
    let no_card: Script =
        Box::new(|message| Answer::Data(reply(message, 0x81, [0x42, 0xFE, 0], &[])));
    reader("empty reader", no_card)
}

pub async fn reader_without_a_card_is_unusable() {
    let mut witness = Witness::new().await;
    witness.assert_unusable(empty_reader(), "no card is in its reader").await;
    witness.assert_works().await;
}

pub async fn mass_storage_and_keyboards_are_ignored() {
    let mut witness = Witness::new().await;
    // Mass storage, SCSI, bulk only; it never answers a command.
    let stick = interface(0, [8, 6, 0x50], &[], &[bulk(BULK_OUT), bulk(BULK_IN)]);
    witness.assert_ignored("a stick", Scripted::new("stick", &[stick], silent())).await;
    let keyboard = Scripted::new("keyboard", &[keyboard(0)], silent());
    witness.assert_ignored("a keyboard", keyboard).await;
    witness.assert_works().await;
}

/// A keyboard's interface; its HID descriptor announces a report descriptor of 0 bytes.
fn keyboard(number: u8) -> Vec<u8> {
    interface(number, [3, 1, 1], &[9, 0x21, 0x11, 1, 0, 1, 0x22, 0, 0], &[interrupt(0x82)])
}

pub async fn composite_keyboard_with_a_reader_is_one_unusable_key() {
    let mut witness = Witness::new().await;
    let script =
        after_power_on(|message| Answer::Data(reply(message, 0x80, [0; 3], &[0x6A, 0x82])));
    let interfaces = [keyboard(0), ccid_interface(1, LONGEST)];
    let composite = Scripted::new("composite", &interfaces, script);
    witness.assert_unusable(composite, "no PIV application").await;
    witness.assert_works().await;
}

pub async fn truncated_descriptors_are_unusable() {
    let mut witness = Witness::new().await;
    let pipes = [bulk(BULK_OUT), bulk(BULK_IN)];
    // The class descriptor is short, or missing.
    let mut short = ccid(LONGEST)[..10].to_vec();
    short[0] = 10;
    let honest = interface(0, CCID_CLASS, &short, &pipes);
    witness
        .assert_unusable(Scripted::new("short", &[honest], silent()), "no CCID descriptor")
        .await;
    let none = interface(0, CCID_CLASS, &[], &pipes);
    witness.assert_unusable(Scripted::new("none", &[none], silent()), "no CCID descriptor").await;
    // The kernel accepts truncated descriptors; libusb does not.
    let mut cut = Scripted::new("cut", &[ccid_interface(0, LONGEST)], silent());
    cut.descriptors.configuration.truncate(30);
    witness.assert_unusable(cut, "USB").await;
    let mut nothing = Scripted::new("nothing", &[ccid_interface(0, LONGEST)], silent());
    nothing.descriptors.configuration.truncate(9);
    witness.assert_ignored("nothing", nothing).await;
    witness.assert_works().await;
}

pub async fn missing_endpoints_are_unusable() {
    let mut witness = Witness::new().await;
    for (name, pipes) in [("one-way", &[bulk(BULK_OUT)][..]), ("no pipes", &[])] {
        let interface = interface(0, CCID_CLASS, &ccid(LONGEST), pipes);
        let device = Scripted::new(name, &[interface], silent());
        witness.assert_unusable(device, "no bulk endpoints").await;
    }
    witness.assert_works().await;
}

pub async fn absurd_message_lengths_are_unusable() {
    let mut witness = Witness::new().await;
    for longest in [0, u32::MAX] {
        let device = Scripted::new("lengths", &[ccid_interface(0, longest)], silent());
        witness.assert_unusable(device, "longest message").await;
    }
    witness.assert_works().await;
}

pub async fn answers_with_a_wrong_slot_or_sequence_are_refused() {
    let mut witness = Witness::new().await;
    let other_slot = after_power_on(|message| {
        let mut reply = reply(message, 0x80, [0; 3], &[0x90, 0]);
        reply[5] = 1;
        Answer::Data(reply)
    });
    witness.assert_unusable(reader("another slot", other_slot), "another slot").await;
    let other_number = after_power_on(|message| {
        let mut reply = reply(message, 0x80, [0; 3], &[0x90, 0]);
        reply[6] = reply[6].wrapping_add(7);
        Answer::Data(reply)
    });
    witness.assert_unusable(reader("another number", other_number), "did not answer in time").await;
    witness.assert_works().await;
}

pub async fn oversized_answer_to_reset_is_unusable() {
    let mut witness = Witness::new().await;
    let long: Script = Box::new(|message| Answer::Data(reply(message, 0x80, [0; 3], &[0x3B; 200])));
    witness.assert_unusable(reader("long ATR", long), "answer to reset").await;
    witness.assert_works().await;
}

pub async fn device_that_stalls_every_request_is_unusable() {
    let mut witness = Witness::new().await;
    witness.assert_unusable(reader("stalls", Box::new(|_| Answer::Stall)), "USB").await;
    witness.assert_works().await;
}

pub async fn silent_device_is_unusable() {
    let mut witness = Witness::new().await;
    let mut device = reader("silent", silent());
    device.class_request = Some(Answer::Nak);
    witness.assert_unusable(device, "did not answer in time").await;
    witness.assert_works().await;
}

/// The device is pulled out while the daemon is stopped: it learns of the plug when the device is gone.
pub async fn device_unplugged_before_it_is_opened_is_reported_once() {
    let witness = Witness::new().await;
    let cursor = system::journal_cursor();
    for _ in 0..5 {
        signal_daemon("STOP");
        let inserted = Inserted::plug(reader("gone", silent()));
        vhci::wait_until_there(inserted.port);
        system::run("udevadm settle");
        let node = vhci::node(inserted.port);
        drop(inserted);
        system::run(&format!("while [ -e {node} ]; do sleep 0.1; done"));
        signal_daemon("CONT");
    }
    // And a device that is unplugged at the first message.
    let leaves = Inserted::plug(reader("leaves", Box::new(|_| Answer::Unplugged)));
    vhci::wait_until_there(leaves.port);
    vhci::wait_until_free(leaves.port);
    let objects = witness.machine.watch.objects().await;
    assert_eq!(present(&objects), 1, "{objects:?}");
    witness.assert_works().await;
    // The others were gone before the daemon opened them.
    const SAID: &str = "before it was identified";
    let said = system::wait_for_journal(&cursor, SAID);
    assert_eq!(said.iter().filter(|line| line.contains(SAID)).count(), 1, "{said:?}");
}

/// The device node is deleted after the plug was announced and before the device is opened.
pub async fn device_without_a_node_is_unusable() {
    let mut witness = Witness::new().await;
    let cursor = system::journal_cursor();
    signal_daemon("STOP");
    let inserted = Inserted::plug(reader("no node", silent()));
    vhci::wait_until_there(inserted.port);
    system::run(&format!("udevadm settle; rm {}", vhci::node(inserted.port)));
    signal_daemon("CONT");
    let key = witness.machine.until_shown_in(inserted.port).await;
    witness.machine.until_state(&key, "unusable").await;
    let other = witness.machine.plug("other").await;
    witness.machine.offer(&witness.master, &other).await;
    drop(inserted);
    witness.machine.until_gone(&key).await;
    witness.machine.unplug(other).await;
    let mut said = system::wait_for_journal(&cursor, "is offered");
    said.retain(|line| !line.contains("Sent signal"));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("its device node is not there"), "{said:?}");
    witness.assert_works().await;
}
