//! If the daemon's files or socket cannot be used, it prints one line, exits with status 2 and leaves
//! them unchanged.

use std::{fs, os::unix::net::UnixListener, path::Path, process::Output};

use keywright_bus_tests::{
    Answers, Client, Gate, Station,
    api::{NONE, Options},
    bus::Bus,
    client::assert_refused as refused,
    daemon::Launch,
    pins::{self, PIN},
};
use tempfile::TempDir;

const GARBAGE: [u8; 4096] = [0xA5; 4096];

/// Panics unless the daemon ended with status 2 and one line that contains this.
#[track_caller]
fn assert_refused(output: &Output, about: &Path) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(about.to_str().unwrap()), "{said:?} does not name {}", about.display());
}

/// How to start a second daemon beside the running one. The bus name does not matter: the files are
/// checked first.
fn another(station: &Station) -> Launch {
    let state_dir = station.dir.path().join("another");
    fs::create_dir(&state_dir).unwrap();
    Launch {
        state_dir,
        reader: station.dir.path().join("another-reader"),
        ..station.launch.clone()
    }
}

#[tokio::test]
async fn second_daemon_on_a_state_directory_is_refused() {
    let station = Station::start().await;
    let launch = Launch { state_dir: station.launch.state_dir.clone(), ..another(&station) };
    assert_refused(&launch.run_to_end().await, &station.launch.state_dir);
    station.client.manager().await.version().await.unwrap();
}

#[tokio::test]
async fn socket_in_use_is_refused_and_a_stale_one_replaced() {
    let mut station = Station::start().await;
    let launch = Launch { reader: station.launch.reader.clone(), ..another(&station) };
    assert_refused(&launch.run_to_end().await, &station.launch.reader);
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
    drop(key);

    station.daemon.kill_9().await;
    assert!(station.launch.reader.exists(), "killed, it left its socket");
    station.daemon.restart(station.client.connection()).await;
    let key = station.plug("key").await;
    station.until_state(&key.path, "blank").await;
}

#[tokio::test]
async fn file_at_the_socket_path_is_kept() {
    let station = Station::start().await;
    let launch = another(&station);
    fs::write(&launch.reader, "mine").unwrap();
    assert_refused(&launch.run_to_end().await, &launch.reader);
    assert_eq!(fs::read(&launch.reader).unwrap(), b"mine");
    let other = UnixListener::bind(station.dir.path().join("other")).unwrap();
    let launch = Launch { reader: station.dir.path().join("other"), ..launch };
    assert_refused(&launch.run_to_end().await, &launch.reader);
    drop(other);
}

#[tokio::test]
async fn state_directory_full_of_garbage_is_reported_and_kept() {
    let station = Station::start().await;
    let launch = another(&station);
    for name in ["db", "conf"] {
        fs::write(launch.state_dir.join(name), GARBAGE).unwrap();
    }
    let output = launch.run_to_end().await;
    assert_refused(&output, &launch.state_dir);
    assert!(holds_garbage(station.dir.path()), "a damaged database is never deleted");
}

#[tokio::test]
async fn damaged_registry_is_set_aside_and_the_next_start_is_empty() {
    let station = Station::start().await;
    let mut launch = another(&station);
    let registry = launch.state_dir.join("registry");
    fs::create_dir(&registry).unwrap();
    for name in ["db", "conf", "mark"] {
        fs::write(registry.join(name), GARBAGE).unwrap();
    }
    let output = launch.run_to_end().await;
    assert_refused(&output, &launch.state_dir.join("registry.damaged-"));
    assert!(holds_garbage(&launch.state_dir), "a damaged database is never deleted");
    let bus = Bus::start(TempDir::new_in(station.dir.path()).unwrap().keep().as_path());
    launch.bus = bus.address().into();
    let client = Client::new(bus.connect().await);
    let _daemon = launch.start(client.connection()).await;
    let keys = client.manager().await.list_keys(Options::new(), "", 10).await.unwrap();
    assert_eq!(keys, (Vec::new(), String::new()));
}

/// Revocations that only the damaged registry knew are gone: the daemon says so and signs nothing, over restarts too, until
/// somebody acknowledges it.
#[tokio::test]
async fn loss_of_a_registry_is_said_until_it_is_acknowledged() {
    let (mut station, master) = Station::with_master().await;
    let family = station.family(&master.path).await;
    Gate::add(&station, &master, "gate", 21).await;
    let exported = station.export(&family).await;
    station.unplug(master).await;
    assert!(station.daemon.stop().await.success());
    let state = station.launch.state_dir.clone();
    fs::write(state.join("registry/db"), GARBAGE).unwrap();
    let moved_to = state.join("registry.damaged-");
    assert_refused(&station.launch.run_to_end().await, &moved_to);

    for _ in 0..2 {
        station.daemon.restart(station.client.connection()).await;
        let manager = station.client.manager().await;
        let lost = manager.lost_registry().await.unwrap();
        assert!(lost.starts_with(moved_to.to_str().unwrap()), "{lost:?}");
        assert!(station.daemon.log().contains("registry acknowledge"));
        assert!(station.daemon.stop().await.success());
    }
    station.daemon.restart(station.client.connection()).await;
    let (blank, master) = (station.plug("blank").await, station.plug("master").await);
    station.until_state(&blank.path, "blank").await;
    station.until_state(&master.path, "master").await;
    let manager = station.client.manager().await;
    let options = || Options::from([("kind", "master".into())]);
    let start = async || manager.start_serialization(&NONE, &blank.path, options()).await;
    refused(start().await, "StoreFailed");
    // The Master proves its family, so that the export of another station can be imported.
    Gate::add(&station, &master, "barn", 22).await;
    let request = Gate::request(23);
    refused(
        manager.add_lock(&master.path, "attic", &request, pins::pipe(PIN)).await,
        "StoreFailed",
    );
    assert!(station.import(&exported).await > 0);
    refused(start().await, "StoreFailed");
    manager.acknowledge_lost_registry().await.unwrap();
    assert_eq!(manager.lost_registry().await.unwrap(), "");
    manager.add_lock(&master.path, "attic", &request, pins::pipe(PIN)).await.unwrap();
    start().await.unwrap();
    drop((blank, master));
    assert!(station.daemon.stop().await.success());
    station.daemon.restart(station.client.connection()).await;
    assert_eq!(station.client.manager().await.lost_registry().await.unwrap(), "");
}

/// Whether the garbage is still in a file below this path.
fn holds_garbage(path: &Path) -> bool {
    if path.is_dir() {
        fs::read_dir(path).unwrap().any(|entry| holds_garbage(&entry.unwrap().path()))
    } else {
        path.is_file() && fs::read(path).unwrap() == GARBAGE
    }
}

#[tokio::test]
async fn a_state_directory_must_be_a_directory() {
    let station = Station::start().await;
    let file = station.dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let launch = Launch { state_dir: file.clone(), ..another(&station) };
    assert_refused(&launch.run_to_end().await, &file);
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[tokio::test]
async fn invalid_configuration_is_refused() {
    let station = Station::start().await;
    let config = station.dir.path().join("config");
    let launch = Launch { config: Some(config.clone()), ..another(&station) };
    assert_refused(&launch.run_to_end().await, &config);
    for text in ["\u{0}garbage", "no-such-setting = 1", "= =\n= ="] {
        fs::write(&config, text).unwrap();
        assert_refused(&launch.run_to_end().await, &config);
    }
}

#[tokio::test]
async fn missing_bus_is_reported() {
    let station = Station::start().await;
    let bus = station.dir.path().join("no-bus");
    let launch = Launch { bus: format!("unix:path={}", bus.display()), ..another(&station) };
    let output = launch.run_to_end().await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(bus.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn killed_daemon_loses_nothing_it_announced() {
    let mut station = Station::start().await;
    let master = station.plug("master").await;
    station.make_master(&master, "Master").await;
    let (lock, _) = station.add_lock(&master, "gate").await;
    let sub = station.plug("sub").await;
    station.make(&master, &sub, &Answers::sub("Sub", &[&lock])).await;
    let id = station.id(&sub.path).await;
    station.daemon.kill_9().await;
    drop((master, sub));
    station.daemon.restart(station.client.connection()).await;
    let rights = station.client.manager().await.list_rights(&id, "", 10).await.unwrap().0;
    assert_eq!(
        rights.iter().map(|row| (&row.0, &*row.2)).collect::<Vec<_>>(),
        [(&lock, "pending")]
    );
}
