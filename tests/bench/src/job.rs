//! Measures making Sub Keys for 1, 1,000 and 100,000 Locks, from the last PIN to `finished`.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use keywright_bus_tests::{
    Answers, Objects, Plugged, Station,
    api::Options,
    pins::{self, FACTORY_PIN, PIN},
};
use zbus::OwnedObjectPath;

use crate::{
    lists::read_all,
    offers::Offers,
    process,
    table::{Goal, Row, Samples},
    token_log,
};

/// Time that a slow token takes for a signature, in milliseconds.
pub const SIGNATURE: &str = "50";
/// Numbers of Locks of the Sub Keys.
const SIZES: [usize; 3] = [1, 1_000, 100_000];

/// Makes Sub Keys on a station with 100,000 Locks, `repeats` times for each number of Locks. Also returns a Sub Key with
/// rights on all Locks.
pub async fn measure(
    station: &mut Station,
    master: &Plugged,
    repeats: usize,
) -> (Vec<Row>, Plugged) {
    let ids = all_locks(station).await;
    assert_eq!(ids.len(), SIZES[2], "the registry was filled");
    let mut memory = vec![("opened, and all Locks listed", peak(station))];
    let (mut rows, mut medians, mut last) = (Vec::new(), Vec::new(), None);
    for size in SIZES {
        let mut times = Vec::new();
        let before = signatures(station);
        for number in 0..repeats {
            let selected = &ids[..size];
            let name = format!("sub {size} {number}");
            let ids: Vec<_> = selected.iter().map(String::as_str).collect();
            let answers = Answers::sub(&name, &ids);
            let (key, time, peaks) = make(station, master, &name, &answers).await;
            times.push(time);
            if size == SIZES[2] {
                memory.extend(peaks);
            }
            if let Some(before) = last.replace(key) {
                station.unplug(before).await;
            }
        }
        let signed = signatures(station) - before;
        let samples: Samples = times.into_iter().collect();
        medians.push(samples.median());
        let size = thousands(size);
        let what = format!("last PIN to finished, Locks: {size}, signatures at {SIGNATURE} ms");
        rows.push(Row::times(what, Goal::NONE, &samples));
        let signed = signed.div_ceil(repeats as u64);
        let what = format!("issuer signatures, Locks: {size}");
        rows.push(Row::count(what, Goal::at_most(2.0), signed));
    }
    rows.push(Row::ratio("100,000 Locks to 1", Goal::at_most(3.0), medians[2], medians[0]));
    rows.extend(memory_rows(&memory));
    (rows, last.expect("a Sub Key was made"))
}

/// Rows for the overall peak, and for each part's peak at its first time.
fn memory_rows(peaks: &[(&'static str, u64)]) -> Vec<Row> {
    let all = peaks.iter().map(|(_, peak)| *peak).max().unwrap_or_default();
    let mut rows = vec![Row::memory("peak RSS (VmHWM), 100,000 Locks", Goal::at_most(100.0), all)];
    for (number, (part, peak)) in peaks.iter().enumerate() {
        if !peaks[..number].iter().any(|(before, _)| before == part) {
            rows.push(Row::memory(format!("of it: {part}"), Goal::NONE, *peak));
        }
    }
    rows
}

/// Returns the memory peak since the last call, in KiB.
pub fn peak(station: &Station) -> u64 {
    let pid = station.daemon.pid();
    let peak = process::memory(pid).peak;
    process::reset_peak(pid);
    peak
}

fn signatures(station: &Station) -> u64 {
    token_log::successes(&log(station, "master"), "AUTHENTICATE 9C")
}

/// Plugs in the Master as a token with slow signatures.
pub async fn plug_master(station: &mut Station) -> Plugged {
    plug_slow(station, "master").await
}

async fn plug_slow(station: &mut Station, name: &str) -> Plugged {
    let log = log(station, name);
    let options = ["--sign-delay-ms", SIGNATURE, "--log", log.to_str().unwrap()];
    station.plug_with(name, &options).await
}

/// Path of the log of a token that was plugged in with [`plug_master`] or [`make`].
pub fn log(station: &Station, name: &str) -> PathBuf {
    station.dir.path().join(format!("{name}.log"))
}

/// Makes a Key. Returns it, the time from the last PIN to `finished`, and the memory peak of each part.
pub async fn make(
    station: &mut Station,
    master: &Plugged,
    name: &str,
    answers: &Answers,
) -> (Plugged, Duration, Vec<(&'static str, u64)>) {
    let blank = plug_slow(station, name).await;
    let job = station.offer(master, &blank).await;
    let mut peaks = vec![("plug and offer", peak(station))];
    station.client.answer_until(&mut station.watch, &job, answers, "review").await;
    peaks.push(("selecting them by their ids", peak(station)));
    station.client.answer_until(&mut station.watch, &job, answers, "pins").await;
    peaks.push(("Review and Save", peak(station)));
    let mut offers = Offers::listen(&station.bus.connect().await).await;
    let time = provide_pins(station, &mut offers, &job).await;
    peaks.push(("PINs and write", peak(station)));
    station.client.serialization(&job).await.finish().await.unwrap();
    let made = |objects: &Objects| {
        objects.key(&blank.path).filter(|key| key.text("State") != "blank").map(drop)
    };
    station.watch.until("the Key made", made).await;
    peaks.push(("Finish", peak(station)));
    (blank, time, peaks)
}

/// Enters the PINs; the time runs from the call with the last one to `finished`.
async fn provide_pins(station: &Station, offers: &mut Offers, job: &OwnedObjectPath) -> Duration {
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

/// Lists the ids of all Locks.
async fn all_locks(station: &Station) -> Vec<String> {
    let manager = station.client.manager().await;
    let rows = read_all(async |after| manager.list_locks(Options::new(), &after, 1_000).await);
    let ids: Vec<_> = rows.await.into_iter().map(|row| row.0).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each once");
    ids
}

fn thousands(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},000", number / 1_000) }
}
