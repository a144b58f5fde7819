//! A Sub Key made here, and one made by hand with OpenSC and openssl, on the same guest and the same kind of token.

use std::{
    fs,
    time::{Duration, Instant},
};

use keywright_bus_tests::{
    Answers, Objects,
    pins::{FACTORY_PIN, PIN},
};

use crate::{
    machine::{MASTER, Machine},
    system,
};

const DIR: &str = "/run/by-hand";
const FACTORY_KEY: &str = "01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08";
const REPEATS: usize = 5;

/// Prints both times and their ratio.
pub async fn compare() {
    let ours = ours().await;
    let (commands, by_hand) = by_hand().await;
    let ratio = by_hand.as_secs_f64() / ours.as_secs_f64();
    println!("\n| a Sub Key | ms |");
    println!("| --- | --- |");
    println!("| here, from the first answer to `finished` | {} |", ours.as_millis());
    println!("| by hand, {commands} commands, no typing | {} |", by_hand.as_millis());
    println!("| ratio | {ratio:.1} |");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn ours() -> Duration {
    let (mut machine, master) = Machine::with_master().await;
    let mut times = Vec::new();
    for n in 0..REPEATS {
        let name = format!("ours {n}");
        let blank = machine.plug(&name).await;
        let job = machine.offer(&master, &blank).await;
        let start = Instant::now();
        let answers = Answers::sub(&name, &[]);
        machine.client.answer_all(&mut machine.watch, &job, &answers).await.assert_finished();
        times.push(start.elapsed());
        machine.client.serialization(&job).await.finish().await.unwrap();
        machine.unplug(blank).await;
    }
    median(times)
}

/// The tokens are plugged in, pcscd has them, and everything that a person would look up is at hand.
async fn by_hand() -> (String, Duration) {
    let (mut machine, master) = Machine::with_master().await;
    system::run(&format!("rm -rf {DIR}; mkdir {DIR}; echo {FACTORY_KEY} >{DIR}/factory"));
    let family = |objects: &Objects| {
        let memberships: Vec<(String, String)> = objects.key(&master.path)?.get("Memberships");
        Some(memberships.first()?.0.clone())
    };
    let family = machine.watch.until("a membership", family).await;
    let (roots, crls) = machine.client.manager().await.get_family_bundle(&family).await.unwrap();
    for (name, text) in [("roots.pem", &roots), ("crls.pem", &crls), ("ca.pem", &roots)] {
        fs::write(format!("{DIR}/{name}"), text).unwrap();
    }
    machine.unplug(master).await;
    system::run("systemctl stop keywrightd; systemctl mask --quiet --runtime keywrightd");
    system::run("systemctl start pcscd");
    let (mut count, mut times) = (String::new(), Vec::new());
    for n in 0..REPEATS {
        let master = machine.insert(MASTER, &[]);
        until_cards(1);
        let serial = |slot: usize| {
            let module = super::tests::MODULE;
            system::run(&format!(
                "pkcs11-tool --module {module} --list-slots | sed -n 's/.*serial num *: *//p' | sed -n {}p",
                slot + 1
            ))
        };
        fs::write(format!("{DIR}/issuer.serial"), serial(0).trim()).unwrap();
        let blank = machine.insert(&format!("by hand {n}"), &[]);
        until_cards(2);
        let start = Instant::now();
        count = system::run(&format!(
            "/payload/by-hand 0 1 {DIR} {PIN} {PIN} || {{ tail -n 30 {DIR}/log >&2; exit 1; }}"
        ));
        times.push(start.elapsed());
        drop((master, blank));
        until_cards(0);
    }
    assert_eq!(FACTORY_PIN, "123456", "the script types it");
    system::run("systemctl stop --quiet pcscd.service pcscd.socket");
    system::run("systemctl unmask --quiet --runtime keywrightd");
    (count.trim().to_owned(), median(times))
}

fn until_cards(count: usize) {
    system::run(&format!(
        "until [ $(opensc-tool --list-readers | grep -c Yes) -eq {count} ]; do sleep 0.1; done"
    ));
}
