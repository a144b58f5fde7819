//! Many Locks on one broker: each a process of its own, with a mosquitto, a daemon and a Sub Key for all of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use keywright_bus_tests::{Answers, Objects, Plugged, Station, broker::Broker, lockd::Lockd};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::table::{Goal, Row, Samples};

/// All have to have confirmed after this time, in milliseconds.
const LIMIT: f64 = 60_000.0;
/// How long it is waited for, so that a figure over the goal is a figure.
const WAIT_LIMIT: Duration = Duration::from_secs(600);
/// Files that a process may have open here: one connection each, at the broker.
const LEAST_FILES: u64 = 8_192;

/// Locks, a broker and a station.
struct Stage {
    station: Station,
    broker: Broker,
    master: Plugged,
    locks: Vec<Lockd>,
    /// Where the Locks keep their state: in memory, because 2,000 Locks do not share a disk.
    _states: TempDir,
}

/// With so many Locks.
pub async fn measure(count: usize) -> Vec<Row> {
    raise_limit();
    let mut stage = prepare(count).await;
    let started = Instant::now();
    for lock in &mut stage.locks {
        lock.start(&stage.broker, "");
    }
    let all = u32::try_from(count).unwrap();
    let path = stage.master.path.clone();
    until(&mut stage.station, &path, all).await;
    let mut rows =
        vec![row(count, "start of all, to the Master's right active at each", Goal::NONE, started)];

    // The time of the job itself is not counted: it ends with the statement, and so the count begins there.
    let (sub, since) = sub(&mut stage, "Sub").await;
    until(&mut stage.station, &sub.path, all).await;
    rows.push(row(count, "statement to the last confirmation", Goal::at_most(LIMIT), since));
    stage.station.unplug(sub).await;

    // A fifth of them is away, and back.
    for lock in stage.locks.iter_mut().step_by(5) {
        lock.kill();
    }
    let away = u32::try_from(count.div_ceil(5)).unwrap();
    let (sub, _) = self::sub(&mut stage, "Sub 2").await;
    until(&mut stage.station, &sub.path, all - away).await;
    let since = Instant::now();
    for lock in stage.locks.iter_mut().step_by(5) {
        lock.start(&stage.broker, "");
    }
    until(&mut stage.station, &sub.path, all).await;
    rows.push(row(
        count,
        "a fifth away and back, to the last confirmation",
        Goal::at_most(LIMIT),
        since,
    ));
    stage.station.unplug(sub).await;

    // The broker is killed while confirmations come, and started again.
    let (sub, since) = self::sub(&mut stage, "Sub 3").await;
    until_some(&mut stage.station, &sub, all / 10).await;
    stage.broker.kill();
    stage.broker.restart();
    until(&mut stage.station, &sub.path, all).await;
    rows.push(row(
        count,
        "broker killed on the way, to the last confirmation",
        Goal::at_most(LIMIT),
        since,
    ));
    stage.station.unplug(sub).await;

    // The daemon is.
    let (sub, since) = self::sub(&mut stage, "Sub 4").await;
    until_some(&mut stage.station, &sub, all / 10).await;
    let id = stage.station.watch.objects().await.key(&sub.path).unwrap().text("Id");
    stage.station.daemon.kill_9().await;
    stage.station.daemon.restart(stage.station.client.connection()).await;
    all_active(&stage.station, &id, count).await;
    rows.push(row(
        count,
        "daemon killed on the way, to the last confirmation",
        Goal::at_most(LIMIT),
        since,
    ));
    let memory = stage.locks.iter().map(|lock| proportional(lock.process()));
    rows.push(Row::memory(
        "PSS of each of them, mean",
        Goal::at_most(6.0),
        memory.sum::<u64>() / count as u64,
    ));
    let broker = proportional(stage.broker.id());
    rows.push(Row::memory(format!("PSS of mosquitto, {count} Locks"), Goal::NONE, broker));
    rows
}

async fn prepare(count: usize) -> Stage {
    let states = TempDir::new_in("/dev/shm").unwrap();
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let mut locks = Vec::with_capacity(count);
    for number in 0..count {
        locks.push(Lockd::add_below(states.path(), &station, &master, &number.to_string()).await);
    }
    let chain = station.client.key(&master.path).await.get_certificate_chain("").await.unwrap();
    station.unplug(master).await;
    let broker = station.link(&chain).await;
    let master = station.plug("master").await;
    station.until_state(&master.path, "master").await;
    Stage { station, broker, master, locks, _states: states }
}

/// Makes a Sub Key for all Locks; and when that was done.
async fn sub(stage: &mut Stage, name: &str) -> (Plugged, Instant) {
    let sub = stage.station.plug(name).await;
    stage.station.make(&stage.master, &sub, &Answers::sub(name, &[])).await;
    (sub, Instant::now())
}

async fn until(station: &mut Station, key: &zbus::OwnedObjectPath, active: u32) {
    let check = |objects: &Objects| (objects.key(key)?.get::<u32>("Locks") == active).then_some(());
    station.watch.until_within(WAIT_LIMIT, &format!("{active} rights active"), check).await;
}

async fn until_some(station: &mut Station, key: &Plugged, active: u32) {
    let check =
        |objects: &Objects| (objects.key(&key.path)?.get::<u32>("Locks") >= active).then_some(());
    station.watch.until_within(WAIT_LIMIT, &format!("{active} rights active"), check).await;
}

/// Asks until all are: the signals of a daemon that was killed are gone with it.
async fn all_active(station: &Station, key: &str, count: usize) {
    let manager = station.client.manager().await;
    loop {
        let (mut active, mut after) = (0, String::new());
        loop {
            let (rows, next) = manager.list_rights(key, &after, 1_000).await.unwrap();
            active += rows.iter().filter(|row| row.2 == "active").count();
            after = next;
            if after.is_empty() {
                break;
            }
        }
        if active == count {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn row(count: usize, what: &str, goal: Goal, since: Instant) -> Row {
    let time: Samples = [since.elapsed()].into_iter().collect();
    // It takes long: what is known is said at once.
    eprintln!("{count} Locks: {what}: {:.1} s", since.elapsed().as_secs_f64());
    Row::times(format!("{count} Locks: {what}"), goal, &time)
}

/// In kB.
fn proportional(process: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// The broker inherits it.
fn raise_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted =
        rustix::process::Rlimit { current: Some(most.min(65_536)), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    // Each Lock watches its inbox, and here they are all of one user; on a gateway there is one.
    let instances = "/proc/sys/fs/inotify/max_user_instances";
    let enough = fs::read_to_string(instances)
        .is_ok_and(|n| n.trim().parse::<u64>().is_ok_and(|n| n >= LEAST_FILES));
    if !enough {
        fs::write(instances, LEAST_FILES.to_string())
            .expect("as root: sysctl fs.inotify.max_user_instances=8192");
    }
    assert!(most >= LEAST_FILES, "a process may have only {most} files open here: see ulimit -Hn");
}
