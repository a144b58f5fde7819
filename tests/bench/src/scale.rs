//! Measures many Locks, each a process of its own, on one mosquitto, with a daemon and Sub Keys for all of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use keywright_bus_tests::{Answers, Objects, Plugged, Station, broker::Broker, lockd::Lockd};
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    lists::read_all,
    process,
    table::{Goal, Row, Samples},
};

/// Goal for the last confirmation, in milliseconds.
const LIMIT: f64 = 60_000.0;
/// Time to wait for the last confirmation, so that a figure over the goal is still measured.
const WAIT_LIMIT: Duration = Duration::from_secs(600);
/// Open files that the broker needs: one connection for each Lock.
const LEAST_FILES: u64 = 8_192;

/// Locks, a broker and a station.
struct Stage {
    station: Station,
    broker: Broker,
    master: Plugged,
    locks: Vec<Lockd>,
    /// The Locks' state directories, in memory: on gateways 2,000 Locks do not share a disk.
    _states: TempDir,
}

/// Measures with this many Locks.
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

    // The clock starts at the end of the job, when the statement is signed.
    let (sub, since) = sub(&mut stage, "Sub").await;
    until(&mut stage.station, &sub.path, all).await;
    rows.push(row(count, "statement to the last confirmation", Goal::at_most(LIMIT), since));
    stage.station.unplug(sub).await;

    // A fifth of the Locks is stopped and started again.
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

    // The broker is killed and restarted while confirmations arrive.
    let (sub, since) = self::sub(&mut stage, "Sub 3").await;
    until(&mut stage.station, &sub.path, all / 10).await;
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

    // The daemon is killed and restarted while confirmations arrive.
    let (sub, since) = self::sub(&mut stage, "Sub 4").await;
    until(&mut stage.station, &sub.path, all / 10).await;
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

/// Makes a Sub Key for all Locks; returns it and the time of its end.
async fn sub(stage: &mut Stage, name: &str) -> (Plugged, Instant) {
    let sub = stage.station.plug(name).await;
    stage.station.make(&stage.master, &sub, &Answers::sub(name, &[])).await;
    (sub, Instant::now())
}

/// Waits until at least this many Locks have confirmed the Key's right.
async fn until(station: &mut Station, key: &zbus::OwnedObjectPath, active: u32) {
    let check = |objects: &Objects| (objects.key(key)?.get::<u32>("Locks") >= active).then_some(());
    station.watch.until_within(WAIT_LIMIT, &format!("{active} rights active"), check).await;
}

/// Polls until all rights are active: the signals of the killed daemon are lost.
async fn all_active(station: &Station, key: &str, count: usize) {
    let manager = station.client.manager().await;
    loop {
        let rights = read_all(async |after| manager.list_rights(key, &after, 1_000).await).await;
        if rights.iter().filter(|row| row.2 == "active").count() == count {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn row(count: usize, what: &str, goal: Goal, since: Instant) -> Row {
    let time: Samples = [since.elapsed()].into_iter().collect();
    // The run is long: print each figure at once.
    eprintln!("{count} Locks: {what}: {:.1} s", since.elapsed().as_secs_f64());
    Row::times(format!("{count} Locks: {what}"), goal, &time)
}

/// PSS of a process in KiB.
fn proportional(process: u32) -> u64 {
    let pid = Pid::from_raw(process.try_into().unwrap()).unwrap();
    process::memory(pid).proportional
}

/// Raises the limit of open files, which the broker inherits.
fn raise_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted =
        rustix::process::Rlimit { current: Some(most.min(65_536)), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    // Each Lock watches its inbox with inotify, and here all run as one user; a gateway has one Lock.
    let instances = "/proc/sys/fs/inotify/max_user_instances";
    let enough = fs::read_to_string(instances)
        .is_ok_and(|n| n.trim().parse::<u64>().is_ok_and(|n| n >= LEAST_FILES));
    if !enough {
        fs::write(instances, LEAST_FILES.to_string())
            .expect("as root: sysctl fs.inotify.max_user_instances=8192");
    }
    assert!(most >= LEAST_FILES, "the limit of open files is {most}; raise it (ulimit -Hn)");
}
