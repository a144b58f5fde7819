//! Compares making a Sub or Backup Key with Keywright and by hand with OpenSC and openssl, on the same guest and the same
//! kind of token.

use std::{
    fs,
    time::{Duration, Instant},
};

use keywright_bus_tests::{
    Answers,
    pins::{FACTORY_PIN, PIN},
};

use crate::{
    machine::{MASTER, Machine},
    system,
};

const DIR: &str = "/run/by-hand";
const FACTORY_KEY: &str = "01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08:01:02:03:04:05:06:07:08";
const REPEATS: usize = 5;

/// Prints both times and their ratio for both kinds.
pub async fn compare() {
    println!("\n| what | here, ms | by hand, ms | commands by hand | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    for (kind, answers) in [("Sub", Answers::sub("ours", &[])), ("Backup", Answers::backup("ours"))]
    {
        let ours = ours(answers).await;
        let (commands, by_hand) = by_hand(kind).await;
        let ratio = by_hand.as_secs_f64() / ours.as_secs_f64();
        let (ours, by_hand) = (ours.as_millis(), by_hand.as_millis());
        println!("| a {kind} Key | {ours} | {by_hand} | {commands} | {ratio:.1} |");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Median time with Keywright, from the first answer to `finished`.
async fn ours(mut answers: Answers) -> Duration {
    let (mut machine, master) = Machine::with_master().await;
    let mut times = Vec::new();
    for n in 0..REPEATS {
        answers.name = format!("{} {n}", answers.kind);
        let blank = machine.plug(&answers.name).await;
        let job = machine.offer(&master, &blank).await;
        let start = Instant::now();
        machine.client.answer_all(&mut machine.watch, &job, &answers).await.assert_finished();
        times.push(start.elapsed());
        machine.client.serialization(&job).await.finish().await.unwrap();
        machine.unplug(blank).await;
    }
    median(times)
}

/// Number of commands and median time by hand. The tokens are plugged in and pcscd holds them; looking things up and
/// typing are not counted.
async fn by_hand(kind: &str) -> (String, Duration) {
    let (mut machine, master) = Machine::with_master().await;
    system::run(&format!("rm -rf {DIR}; mkdir {DIR}; echo {FACTORY_KEY} >{DIR}/factory"));
    let family = machine.family(&master.path).await;
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
        let serial = system::run(&format!(
            "pkcs11-tool --module {} --list-slots | sed -n 's/.*serial num *: *//p'",
            super::tests::MODULE
        ));
        fs::write(format!("{DIR}/issuer.serial"), serial.trim()).unwrap();
        let blank = machine.insert(&format!("{kind} by hand {n}"), &[]);
        until_cards(2);
        let start = Instant::now();
        count = system::run(&format!(
            "/payload/by-hand {} 0 1 {DIR} {PIN} {PIN} || {{ tail -n 30 {DIR}/log >&2; exit 1; }}",
            kind.to_lowercase()
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
