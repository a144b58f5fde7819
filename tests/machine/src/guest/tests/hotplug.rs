//! Tests of plugs and unplugs as the kernel and udevd report them.

use keywright_bus_tests::{Answers, Objects, Watch};
use zbus::OwnedObjectPath;

use crate::{
    machine::{MASTER, Machine, Plugged, connect},
    system::{self, UNIT},
    vhci,
};

pub async fn blank_key_plugged_in_beside_a_master_is_one_offer() {
    let (mut machine, master) = Machine::with_master().await;
    let mut listener = Watch::start(connect().await).await;
    let blank = machine.plug("blank").await;
    let job = machine.offer(&master, &blank).await;
    let added = added_with_a_last_one(&mut machine, &mut listener, &master).await;
    assert_eq!(added, [blank.path, job], "one signal for the Key and one for the offer");
}

/// Returns the objects that were added. Plugs in another Key as a marker: signals before its own are complete.
async fn added_with_a_last_one(
    machine: &mut Machine,
    listener: &mut Watch,
    master: &Plugged,
) -> Vec<OwnedObjectPath> {
    let last = machine.plug("last").await;
    let job = machine.offer(master, &last).await;
    let mut added = listener.added_until(&job).await;
    let of_the_last = added.split_off(added.len() - 2);
    assert_eq!(of_the_last, [last.path, job]);
    added
}

pub async fn master_plugged_in_beside_a_blank_key_is_one_offer() {
    let mut machine = Machine::with_absent_master().await;
    let mut listener = Watch::start(connect().await).await;
    let blank = machine.plug("blank").await;
    machine.until_state(&blank.path, "blank").await;
    let master = machine.plug(MASTER).await;
    let job = machine.offer(&master, &blank).await;
    let added = added_with_a_last_one(&mut machine, &mut listener, &master).await;
    // The Master's object existed already, absent.
    assert_eq!(added, [blank.path, job], "one signal for the Key and one for the offer");
}

pub async fn pair_plugged_in_before_the_daemon_starts_is_one_offer() {
    let mut machine = Machine::with_absent_master().await;
    system::run(&format!("systemctl stop {UNIT} && systemctl mask --quiet --runtime {UNIT}"));
    let keys = [machine.insert(MASTER, &[]), machine.insert("blank", &[])];
    system::run("udevadm settle");
    let mut listener = Watch::start(connect().await).await;
    system::run(&format!("systemctl unmask --quiet --runtime {UNIT}"));
    machine.start_daemon();
    let [master, blank] = keys;
    machine.until_present("master").await;
    machine.until_present("blank").await;
    let master = machine.until_shown(MASTER, master).await;
    let blank = machine.until_shown("blank", blank).await;
    let job = machine.offer(&master, &blank).await;
    let added = added_with_a_last_one(&mut machine, &mut listener, &master).await;
    // Objects that the daemon has when it gets its name are not announced. These may include the Keys and the offer.
    for path in [&master.path, &blank.path, &job] {
        assert!(added.iter().filter(|one| *one == path).count() <= 1, "{added:?}");
    }
    assert!(added.len() <= 3, "{added:?}");
    let offers = machine.watch.objects().await;
    assert_eq!(offers.serializations.len(), 2, "this offer and that of the marker Key");
}

pub async fn plug_starts_the_daemon() {
    let mut machine = Machine::stopped().await;
    let key = machine.insert("blank", &[]);
    // Nobody calls the daemon, so only systemd can have started it.
    machine.until_owned().await;
    assert_eq!(system::unit("ActiveState"), "active");
    let key = machine.until_shown("blank", key).await;
    machine.until_state(&key.path, "blank").await;
}

pub async fn daemon_restart_during_a_wizard_makes_a_new_offer() {
    let (mut machine, master) = Machine::with_master().await;
    let blank = machine.plug("blank").await;
    let job = machine.offer(&master, &blank).await;
    let answers = Answers::sub("Sub", &[]);
    machine.client.answer_until(&mut machine.watch, &job, &answers, "review").await;
    system::run(&format!("systemctl restart {UNIT}"));
    let master = machine.until_shown(MASTER, master.key).await;
    let blank = machine.until_shown("blank", blank.key).await;
    let again = machine.offer(&master, &blank).await;
    assert_ne!(again, job, "a number is never used again");
    machine.make(&master, &blank, &answers).await;
}

pub async fn keys_with_the_same_usb_serial_are_told_apart() {
    let (mut machine, master) = Machine::with_master().await;
    let a = machine.plug_with("a", &["--usb-serial", "0001"]).await;
    let b = machine.plug_with("b", &["--usb-serial", "0001"]).await;
    assert_ne!(a.path, b.path);
    let (first, second) = (machine.offer(&master, &a).await, machine.offer(&master, &b).await);
    assert_ne!(first, second);
    let a_path = machine.unplug(a).await;
    machine.make(&master, &b, &Answers::sub("B", &[])).await;
    let a = machine.plug_with("a", &["--usb-serial", "0001"]).await;
    assert_eq!(a.path, a_path, "it is itself again in its port");
    machine.make(&master, &a, &Answers::sub("A", &[])).await;
}

pub async fn seven_sub_keys_are_made_on_one_hub_with_the_master() {
    let (mut machine, master) = Machine::with_master().await;
    let mut blanks = Vec::new();
    for n in 1..8 {
        blanks.push(machine.plug(&format!("sub {n}")).await);
    }
    for blank in &blanks {
        let name = blank.name.clone();
        machine.make(&master, blank, &Answers::sub(&name, &[])).await;
    }
    let ids = |objects: &Objects| {
        objects.present().map(|key| key.text("Id")).collect::<std::collections::HashSet<_>>()
    };
    assert_eq!(ids(&machine.watch.objects().await).len(), 8);
}

/// A suspend does this too: the device's configuration is removed and set again.
pub async fn key_is_recognised_after_usb_deauthorization() {
    let device = |name: &str| format!("/sys/bus/usb/devices/{name}/authorized");
    assert_recognised(
        |name| format!("echo 0 >{}", device(name)),
        |name| format!("echo 1 >{}", device(name)),
    )
    .await;
}

/// Runs the shell lines `remove` and `restore`, which get the device's name, three times each: the Master is gone in
/// between, and is the same object afterwards.
async fn assert_recognised(remove: impl Fn(&str) -> String, restore: impl Fn(&str) -> String) {
    let (mut machine, master) = Machine::with_master().await;
    let device = vhci::device_name(master.key.port);
    for _ in 0..3 {
        system::run(&remove(&device));
        machine.until_gone(&master.path).await;
        system::run(&restore(&device));
        assert_eq!(machine.until_shown_in(master.key.port).await, master.path);
        machine.until_state(&master.path, "master").await;
    }
}

/// A suspend that cuts the ports' power does this too: the driver releases the device and binds it again.
pub async fn key_is_recognised_after_a_driver_unbind() {
    assert_recognised(
        |name| format!("echo {name} >/sys/bus/usb/drivers/usb/unbind"),
        |name| format!("echo {name} >/sys/bus/usb/drivers/usb/bind"),
    )
    .await;
}
