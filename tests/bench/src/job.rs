//! Sub Keys for few and for very many Locks: from the last PIN to `finished`.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use keywright_bus_tests::{
    Answers, Plugged, Station,
    api::Options,
    pins::{self, FACTORY_PIN, PIN},
};
use zbus::OwnedObjectPath;

use crate::{
    offers::Offers,
    process,
    table::{Goal, Row, Samples},
    token_log,
};

/// What a slow token takes for a signature, in milliseconds.
const SIGNATURE: &str = "50";
/// How many Locks the Sub Keys are for.
const SIZES: [usize; 3] = [1, 1_000, 100_000];

/// Makes Sub Keys on a station with 100,000 Locks, `repeats` times for each number of Locks. Returns
/// a Sub Key for all of them too.
pub async fn measure(
    station: &mut Station,
    master: &Plugged,
    repeats: usize,
) -> (Vec<Row>, Plugged) {
    let ids = all_locks(station).await;
    assert_eq!(ids.len(), SIZES[2], "the registry was filled");
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    let mut last = None;
    for size in SIZES {
        let mut times = Vec::new();
        let before = token_log::successes(&log(station, "master"), "AUTHENTICATE 9C");
        for number in 0..repeats {
            let selected = &ids[..size];
            let name = format!("sub {size} {number}");
            let (key, time) = make_sub(station, master, &name, selected).await;
            times.push(time);
            if let Some(before) = last.replace(key) {
                station.unplug(before).await;
            }
        }
        let signed = token_log::successes(&log(station, "master"), "AUTHENTICATE 9C") - before;
        let samples: Samples = times.into_iter().collect();
        medians.push(samples.median());
        rows.push(Row::times(
            format!("last PIN to finished, {} Locks, signatures at {SIGNATURE} ms", thousands(size)),
            Goal::NONE,
            &samples,
        ));
        rows.push(Row::count(
            format!("issuer signatures, {} Locks", thousands(size)),
            Goal::at_most(2.0),
            signed.div_ceil(repeats as u64),
        ));
    }
    rows.push(Row::ratio("100,000 Locks to 1", Goal::at_most(3.0), medians[2], medians[0]));
    let memory = process::memory(station.daemon.pid());
    let goal = Goal::at_most(100.0);
    rows.push(Row::memory("peak RSS (VmHWM) after these jobs", goal, memory.peak));
    (rows, last.expect("a Sub Key was made"))
}

/// Plugs in the Master again, as a token with slow signatures.
pub async fn plug_master(station: &mut Station) -> Plugged {
    plug_slow(station, "master").await
}

async fn plug_slow(station: &mut Station, name: &str) -> Plugged {
    let log = log(station, name);
    let options = ["--sign-delay-ms", SIGNATURE, "--log", log.to_str().unwrap()];
    station.plug_with(name, &options).await
}

fn log(station: &Station, name: &str) -> PathBuf {
    station.dir.path().join(format!("{name}.log"))
}

async fn make_sub(
    station: &mut Station,
    master: &Plugged,
    name: &str,
    locks: &[String],
) -> (Plugged, Duration) {
    let blank = plug_slow(station, name).await;
    let job = station.offer(master, &blank).await;
    let ids: Vec<_> = locks.iter().map(String::as_str).collect();
    let answers = Answers::sub(name, &ids);
    station.client.answer_until(&mut station.watch, &job, &answers, "pins").await;
    let mut offers = Offers::listen(&station.bus.connect().await).await;
    let time = provide_pins(station, &mut offers, &job).await;
    station.client.serialization(&job).await.finish().await.unwrap();
    station.until_state(&blank.path, "sub").await;
    (blank, time)
}

/// Gives all three PINs; the time runs from the call with the last one.
async fn provide_pins(
    station: &Station,
    offers: &mut Offers,
    job: &OwnedObjectPath,
) -> Duration {
    let serialization = station.client.serialization(job).await;
    let objects = station.watch.objects().await;
    let needed = objects.serialization(job).unwrap().words("PinsNeeded");
    let mut start = None;
    for who in ["issuer", "candidate", "candidate-new"] {
        if who == "candidate-new" || needed.iter().any(|needed| needed == who) {
            let pin = pins::pipe(if who == "candidate" { FACTORY_PIN } else { PIN });
            start = Some(std::time::Instant::now());
            serialization.provide_pin(who, pin, Options::new()).await.unwrap();
        }
    }
    offers.until_step(job, "finished").await - start.expect("a PIN was given")
}

/// The ids of all Locks, by pages.
async fn all_locks(station: &Station) -> Vec<String> {
    let manager = station.client.manager().await;
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let (rows, next) = manager.list_locks(Options::new(), &after, 1_000).await.unwrap();
        ids.extend(rows.into_iter().map(|row| row.0));
        if next.is_empty() {
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each once");
            return ids;
        }
        after = next;
    }
}

fn thousands(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},000", number / 1_000) }
}
